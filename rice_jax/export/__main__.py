"""Write a trained net as a file that runs without this package.

  python -m rice_jax.export --workdir=DIR --out=FILE.stablehlo   runs with jax alone
  python -m rice_jax.export --workdir=DIR --out=FILE.onnx        runs in onnxruntime and others

Either takes images (N, H, W, 3), float32 in [0, 1], N of any size, and returns logits (N, classes).
FILE.json beside it says which classes, which size, and what the net costs.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from rice_jax import cli, export, profile, train
from rice_jax.errors import UserError
from rice_jax.run import Run

_SUFFIXES = (".stablehlo", ".onnx")
_TOLERANCE = 1e-4
"""Largest difference of a logit that float rounding explains, relative to the largest logit."""
_REPEATS = 30


def _define_flags() -> None:
    flags.DEFINE_string("workdir", None, "The run's folder.")
    flags.DEFINE_string("out", None, "The file to write, *.stablehlo or *.onnx.")


def main(argv: Sequence[str]) -> None:
    """Export the net in --workdir to --out and say what was written."""
    if argv[1:]:
        raise UserError(f"{' '.join(argv[1:])}: not understood; give --workdir=DIR --out=FILE")
    if not flags.FLAGS.workdir or not flags.FLAGS.out:
        raise UserError("give --workdir=DIR, the folder of a trained run, and --out=FILE")
    _tell(write(Run(flags.FLAGS.workdir), flags.FLAGS.out))


def write(run: Run, out: str) -> dict[str, Any]:
    """Export the net of `run` to the file `out`, and what is to be known about it to `out`.json.

    Returns:
        The content of that JSON.

    Raises:
        UserError: an unknown kind of file, no trained net, a file that computes something else
            than the net does; nothing is written then.
    """
    folder, name = os.path.split(out)
    suffix = os.path.splitext(name)[1]
    if suffix not in _SUFFIXES:
        raise UserError(f"--out={out}: the name must end in {' or '.join(_SUFFIXES)}")
    trained = train.load(run)
    about = {"file": out} | _about(trained)
    net = (trained.module, trained.params, trained.config.data.image_size)
    if suffix == ".onnx":
        metadata = {
            "classes": json.dumps(trained.classes, ensure_ascii=False),
            "input": about["input"],
        }
        content = export.to_onnx(*net, metadata)
        apply = _onnxruntime(content)
        about["latency_seconds"] = _latencies(trained, apply)
    else:
        content = export.to_stablehlo(*net)
        apply = jax.jit(jax.export.deserialize(bytearray(content)).call)
    about["bytes"] = len(content)
    about["max_abs_logit_difference"] = _difference(trained, apply)
    target = Run(folder or ".")
    target.create()
    target.write_bytes(name, content)
    target.write_json(f"{name}.json", about)
    return about


def _about(trained: train.Trained) -> dict[str, Any]:
    side = trained.config.data.image_size
    counted = profile.count(trained.module, (side, side, 3), train=False)
    return {
        "net": trained.config.model.name,
        "classes": list(trained.classes),
        "input": f"images: float32 (batch, {side}, {side}, 3), RGB in [0, 1], any batch size",
        "output": f"logits: float32 (batch, {len(trained.classes)}); softmax gives probabilities",
        "params": counted.params,
        "flops": counted.flops.to_json(),
        "flops_complete": counted.complete,
    }


def _onnxruntime(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _difference(trained: train.Trained, run: Callable[[np.ndarray], Any]) -> float:
    """Largest difference between the file's logits and the module's, on a few random images."""
    side = trained.config.data.image_size
    images = np.random.default_rng(0).random((3, side, side, 3), dtype=np.float32)
    net = trained.module.clone(dtype=jnp.float32)
    ours = np.asarray(
        jax.jit(lambda p, x: net.apply({"params": p}, x, train=False))(trained.params, images)
    )
    difference = float(np.abs(np.asarray(run(images)) - ours).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(ours).max())):
        raise UserError(
            f"the exported net's logits differ by {difference:.2g}: nothing was written"
        )
    return difference


def _latencies(
    trained: train.Trained, run: Callable[[np.ndarray], np.ndarray]
) -> dict[str, dict[str, float]]:
    """Seconds on the CPU for one image: median, p10 and p90, in onnxruntime and in JAX."""
    side = trained.config.data.image_size
    image = np.random.default_rng(0).random((1, side, side, 3), dtype=np.float32)
    for _ in range(3):
        run(image)
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - started)
    variables = {"params": jax.tree.map(np.asarray, trained.params)}
    with jax.default_device(jax.devices("cpu")[0]):
        ours = profile.latency(
            trained.module, variables, (side, side, 3), repeats=_REPEATS, train=False
        )
    p10, median, p90 = (float(value) for value in np.percentile(seconds, (10, 50, 90)))
    return {
        "onnxruntime": {"median": median, "p10": p10, "p90": p90},
        "rice_jax": {name: ours[name] for name in ("median", "p10", "p90")},
    }


def _tell(about: dict[str, Any]) -> None:
    least = "" if about["flops_complete"] else "≥ "
    flops = ", ".join(f"{name} {least}{count:,}" for name, count in about["flops"].items())
    lines = [
        f"{about['file']}: {about['bytes']:,} bytes",
        f"net: {about['net']}, {about['params']:,} parameters; FLOPs of an image: {flops}",
        f"input:  {about['input']}",
        f"output: {about['output']}",
        f"classes: {', '.join(about['classes'])}",
        f"largest difference of a logit on random images: {about['max_abs_logit_difference']:.1e}",
    ]
    for name, seconds in about.get("latency_seconds", {}).items():
        median, p10, p90 = (1000 * seconds[key] for key in ("median", "p10", "p90"))
        lines.append(
            f"one image on the CPU in {name}: {median:.2f} ms (10% to 90%: {p10:.2f} to {p90:.2f})"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
