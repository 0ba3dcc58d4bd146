"""A trained run as a file that runs without this package, checked before it is written."""

import hashlib
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax import config as configuration
from rice_jax import export, profile, train
from rice_jax.errors import UserError
from rice_jax.export import flatbuffer, passport, runtimes
from rice_jax.run import Run

_SUFFIXES = (".stablehlo", ".onnx", ".tflite")
_RUNTIMES = {".onnx": "onnxruntime", ".tflite": "LiteRT"}
_TOLERANCE = 1e-4
"""Largest difference of a logit that float rounding explains, relative to the largest logit."""
_REPEATS = 30


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
        raise UserError(f"--out={out}: the name must end in {', '.join(_SUFFIXES)}")
    trained = train.load(run)
    about = {"file": out} | _about(trained, suffix)
    content, apply = _made(trained, suffix, about)
    if suffix != ".stablehlo":
        about["latency_seconds"] = _latencies(trained, _RUNTIMES[suffix], apply)
    about["bytes"] = len(content)
    about["sha256"] = hashlib.sha256(content).hexdigest()
    about["max_abs_logit_difference"] = _difference(trained, apply)
    target = Run(folder or ".")
    target.create()
    target.write_bytes(name, content)
    target.write_json(f"{name}.json", about)
    return about


def _made(trained: train.Trained, suffix: str, about: dict[str, Any]) -> tuple[bytes, runtimes.Net]:
    """The file, and the net that is in it."""
    net = (trained.module, trained.params, trained.config.data.image_size)
    told = passport.unsealed(about)
    if suffix == ".onnx":
        content = passport.sealed(export.to_onnx(*net, {passport.NAME: told}))
        return content, runtimes.onnx(content)
    if suffix == ".tflite":
        content = flatbuffer.with_note(export.to_tflite(*net), passport.NAME, told)
        content = passport.sealed(content)
        return content, runtimes.tflite(content)
    content = export.to_stablehlo(*net)
    return content, runtimes.stablehlo(content)


def _about(trained: train.Trained, suffix: str) -> dict[str, Any]:
    config, side = trained.config, trained.config.data.image_size
    classes = list(trained.classes)
    counted = profile.count(trained.module, (side, side, 3), train=False)
    number, batch = ("1", "one at a time") if suffix == ".tflite" else ("batch", "any batch size")
    return {
        "net": config.model.name,
        "precision": "float32",
        "classes": classes,
        "image_size": side,
        "seed": config.seed,
        "split_seed": configuration.split_seed(config),
        "input": f"images: float32 ({number}, {side}, {side}, 3), RGB / 255, {batch}",
        "output": f"logits: float32 ({number}, {len(classes)}); softmax gives probabilities",
        "params": counted.params,
        "flops": counted.flops.to_json(),
        "flops_complete": counted.complete,
    }


def _difference(trained: train.Trained, run: runtimes.Net) -> float:
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
    trained: train.Trained, runtime: str, run: runtimes.Net
) -> dict[str, dict[str, float]]:
    """Seconds on the CPU for one image: median, p10 and p90, in its own runtime and in JAX."""
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
        runtime: {"median": median, "p10": p10, "p90": p90},
        "rice_jax": {name: ours[name] for name in ("median", "p10", "p90")},
    }


def tell(about: dict[str, Any]) -> None:
    """Print what `write` wrote."""
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
