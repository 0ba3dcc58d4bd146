"""A trained run as a file that runs without this package, checked before it is written."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rice_jax import config as configuration
from rice_jax import export, identity, profile, records, train
from rice_jax.bar import Bar
from rice_jax.errors import UserError
from rice_jax.export import averaging, flatbuffer, int8, litert, onnx, passport, runtimes
from rice_jax.export.artifact import RUNTIMES
from rice_jax.export.folding import folded
from rice_jax.export.sample import EvenSample
from rice_jax.graph.cpu import cpu
from rice_jax.records import ExportFile
from rice_jax.run import Run
from rice_jax.train.prepared import Images, Kinds

Batches = Iterable[tuple[Any, Any]]
"""Pairs of images (N, H, W, 3) in [0, 1] and labels."""
_TOLERANCE = 1e-4
"""Largest difference of a logit that float rounding explains, relative to the largest logit."""
_JUDGED = 100
"""Images on which a net of int8 is held against the one that it was made of."""


def write(
    run: Run, out: str, calibration: Batches | None = None, *, averaged: bool = False
) -> ExportFile:
    """Export the net of `run` to the file `out`, and what is to be known about it to `out`.json.

    Args:
        run: a trained one.
        out: the file; the end of its name tells the format.
        calibration: images that int8 is calibrated on (`calibration_images`); without them the
            net is written in float32.
        averaged: whether the file takes images averaged as the net would do first.

    Returns:
        The content of that JSON.

    Raises:
        UserError: an unknown kind of file, or one that has no int8, no trained net, a net that the
            format cannot hold, or that averages no images, a file that computes something else than
            the net does; nothing is written then.
    """
    target, name = _folder(out), os.path.basename(out)
    suffix = os.path.splitext(name)[1]
    if suffix not in RUNTIMES:
        raise UserError(f"--out={out}: give a file's name that ends in {', '.join(RUNTIMES)}")
    if calibration is not None and suffix == ".stablehlo":
        raise UserError(f"--out={out}: int8 is for .onnx and .tflite")
    require_place(out)
    trained = train.load(run)
    size, whole = averaging.block(trained.config) if averaged else 1, trained.config.data.image_size
    if size > 1:
        trained, calibration = _of_averaged(trained, size), _averaged(calibration, size)
    net = folded(trained)
    about = {"file": out, "image_size": whole, "averaged": size}
    about |= _about(net, suffix, size, calibration is not None)
    content, differences = _made(net, trained, suffix, passport.unsealed(about), calibration)
    if suffix != ".stablehlo":
        with Bar("measuring latency"):
            about["latency_seconds"] = _latencies(
                trained, RUNTIMES[suffix], runtimes.opened(suffix, content)
            )
        about["operators"] = (onnx if suffix == ".onnx" else flatbuffer).operators(content)
    about["bytes"] = len(content)
    about["sha256"] = hashlib.sha256(content).hexdigest()
    about |= differences
    told, beside = records.made(ExportFile, about), f"{name}.json"
    target.create()
    target.write_together({name: content, beside: target.as_json(beside, records.plain(told))})
    return told


def _of_averaged(trained: train.Trained, size: int) -> train.Trained:
    """The same net as one of images that have been averaged: of such it averages none."""
    config = ml_collections.ConfigDict(trained.config.to_dict())
    config.data.image_size //= size
    return dataclasses.replace(trained, config=config)


def _averaged(calibration: Batches | None, size: int) -> Batches | None:
    if calibration is None:
        return None
    return (
        (averaging.averaged(np.asarray(images), size), labels) for images, labels in calibration
    )


def require_place(out: str) -> None:
    """UserError where `write` could not leave the file `out`, before there is anything to write."""
    folder = _folder(out)
    if (folder.path / os.path.basename(out)).is_dir():
        raise UserError(f"--out={out}: a folder is there")
    folder.require_place()


def _folder(out: str) -> Run:
    return Run(os.path.dirname(out) or ".")


def calibration_images(run: Run, config: ml_collections.ConfigDict, number: int) -> Images:
    """Images for `write`: some of the run's training images.

    Augmented where its training does that, else half of them as they are and half augmented: a
    camera's are turned and shifted too.

    Args:
        run: the trained run.
        config: its configuration, which says where the images are.
        number: how many at most.

    Raises:
        UserError: the images are not those that the run was trained on.
    """
    kinds: Kinds = ("augmented",) if config.train.augment else ("clean", "augmented")[:number]
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.keep_decoded = False  # a few images do not make it worth while to decode all
    source = identity.load_own(config, run).splits["train"]
    return Images(config, source, kinds, limit=number // len(kinds), task="calibrating")


def _made(
    made_of: train.Trained,
    trained: train.Trained,
    suffix: str,
    told: str,
    calibration: Batches | None,
) -> tuple[bytes, dict[str, Any]]:
    """The file, and how far it is from the trained net."""
    content = _float32(made_of, suffix, to_be_quantized=calibration is not None)
    if suffix == ".stablehlo":
        return content, _differences(trained, runtimes.opened(suffix, content), None)
    with_cpu = cpu("an export is compared")  # where the runtimes are, and no product is rounded
    differences = _differences(trained, runtimes.opened(suffix, content), with_cpu)
    annotated = onnx.with_note if suffix == ".onnx" else flatbuffer.with_note
    if calibration is not None:
        quantized = int8.quantized_onnx if suffix == ".onnx" else int8.quantized_tflite
        looked_at = EvenSample(_JUDGED)
        whole, content = (
            content,
            quantized(content, looked_at.showing(images for images, _ in calibration)),
        )
        differences = _agreement(
            runtimes.opened(suffix, content), runtimes.opened(suffix, whole), looked_at.images()
        )
        differences["float32_bytes"] = len(annotated(whole, passport.NAME, told))
    return passport.sealed(annotated(content, passport.NAME, told)), differences


def _float32(trained: train.Trained, suffix: str, *, to_be_quantized: bool) -> bytes:
    net = (trained.module, trained.params, trained.config.data.image_size)
    with Bar(f"converting to {suffix}"):
        if suffix == ".stablehlo":
            return export.to_stablehlo(*net)
        if suffix == ".onnx":
            return onnx.float32_onnx(*net)
        return litert.float32_tflite(*net, to_be_quantized=to_be_quantized)


def _about(trained: train.Trained, suffix: str, size: int, quantized: bool) -> dict[str, Any]:
    """What is told of the net of images that were averaged over squares of `size` pixels."""
    config, side = trained.config, trained.config.data.image_size
    classes, precision = list(trained.classes), "int8" if quantized else "float32"
    counted = profile.count(trained.module, (side, side, 3), train=False)
    number, batch = ("1", "one at a time") if suffix == ".tflite" else ("batch", "any batch size")
    images, logits = ("float32", "RGB / 255"), "float32"
    if quantized and suffix == ".tflite":
        images, logits = ("int8", "RGB - 128"), "int8, with scale and zero point,"
    values = f"{images[1]}, averaged over {size} x {size} pixels" if size > 1 else images[1]
    return {
        "net": config.model.name,
        "precision": precision,
        "classes": classes,
        "seed": config.seed,
        "split_seed": configuration.split_seed(config),
        "images": config.data.path,
        "input": f"images: {images[0]} ({number}, {side}, {side}, 3), {values}, {batch}",
        "resizing": "bilinear at half-pixel centres, no antialiasing, as cv2.resize",
        "output": f"logits: {logits} ({number}, {len(classes)}); softmax gives probabilities",
        "params": counted.params,
        "flops": counted.flops.to_json(),
        "flops_complete": counted.complete,
        "bit_operations": counted.at(profile.PRECISIONS[precision])["bit_operations"],
    }


def _differences(
    trained: train.Trained, run: runtimes.Runnable, device: jax.Device | None
) -> dict[str, float]:
    """Largest difference between the file's logits and the module's, on a few random images.

    The module runs on `device`; None for JAX's first, which a StableHLO runs on too.
    """
    side = trained.config.data.image_size
    images = np.random.default_rng(0).random((3, side, side, 3), dtype=np.float32)
    net = trained.module.clone(dtype=jnp.float32)
    logits = jax.jit(lambda p, x: net.apply({"params": p}, x, train=False))
    with jax.default_device(device):
        ours = np.asarray(logits(jax.tree.map(np.asarray, trained.params), images))
    difference = float(np.abs(np.asarray(run(images)) - ours).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(ours).max())):
        raise UserError(
            f"the exported net's logits differ by {difference:.2g}: nothing was written"
        )
    return {"max_abs_logit_difference": difference}


def _agreement(
    quantized: runtimes.Runnable, whole: runtimes.Runnable, images: np.ndarray
) -> dict[str, Any]:
    """On how many of the images the net of int8 sees the same class."""
    same = quantized(images).argmax(axis=1) == whole(images).argmax(axis=1)
    return {"calibrated": {"compared": len(images), "same_class": int(same.sum())}}


def _latencies(
    trained: train.Trained, runtime: str, run: runtimes.Runnable
) -> dict[str, dict[str, float]]:
    """Seconds on the CPU for one image: median, p10 and p90, in its own runtime and in JAX."""
    side = trained.config.data.image_size
    variables = {"params": jax.tree.map(np.asarray, trained.params)}
    with jax.default_device(jax.devices("cpu")[0]):
        ours = profile.latency(trained.module, variables, (side, side, 3), train=False)
    return {
        runtime: runtimes.latency(run, side),
        "rice_jax": {name: ours[name] for name in ("median", "p10", "p90")},
    }


def tell(about: ExportFile) -> None:
    """Print what `write` wrote."""
    assert about.flops is not None
    least = "" if about.flops_complete else "≥ "
    counts = records.plain(about.flops)
    flops = ", ".join(f"{name} {least}{count:,}" for name, count in counts.items())
    lines = [
        f"{about.file}: {about.bytes:,} bytes",
        f"net: {about.net}, {about.params:,} parameters; FLOPs of an image: {flops}",
        f"input:  {about.input}",
        f"output: {about.output}",
        f"bit operations: {least}{about.bit_operations:,}",
        f"classes: {', '.join(about.classes)}",
    ]
    if about.calibrated:
        if about.float32_bytes and about.bytes and about.bytes > about.float32_bytes:
            lines.append(
                f"larger than in float32, {about.float32_bytes:,} bytes: so small a net "
                "gains nothing by 8 bits in this format"
            )
        lines.append(
            f"the same class as in float32: {about.calibrated.same_class} of "
            f"{about.calibrated.compared} of the images that it was calibrated on"
        )
    else:
        difference = about.max_abs_logit_difference
        lines.append(f"largest difference of a logit on random images: {difference:.1e}")
    if about.operators:
        lines.append(f"operators: {', '.join(about.operators)}")
    for name, seconds in (about.latency_seconds or {}).items():
        line = f"one image on the CPU in {name}: {1000 * seconds.median:.2f} ms"
        if seconds.p10 is not None and seconds.p90 is not None:
            line += f" (10% to 90%: {1000 * seconds.p10:.2f} to {1000 * seconds.p90:.2f})"
        lines.append(line)
    print("\n".join(lines))
