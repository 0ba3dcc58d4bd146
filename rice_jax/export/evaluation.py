"""How well an exported file does: the same images and the same report as of a run."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import scipy.special

from rice_jax import data
from rice_jax.errors import UserError
from rice_jax.evaluate import report
from rice_jax.export import micro, runtimes
from rice_jax.export.artifact import Artifact
from rice_jax.run import Run
from rice_jax.train.images import Images, load_images

KINDS = ("clean", "augmented")
_NUMBERS = ("bytes", *KINDS, "ms an image")
_COMPARED = 100
"""Images on which tflite-micro is held against LiteRT."""


def record(artifact: Artifact, found: Mapping[str, Any]) -> None:
    """Write what `evaluate` found into FILE.json beside the file, with all that stands there."""
    folder, name = os.path.split(artifact.path)
    beside, about = Run(folder or "."), f"{name}.json"
    told = beside.read_json(about) if beside.has(about) else {"file": artifact.path}
    if not isinstance(told, dict):
        raise UserError(f"{beside.path / about} is damaged: it holds no object")
    seconds = {**(told.get("latency_seconds") or {}), **found["latency_seconds"]}
    merged = {**told, **artifact.about, **found, "latency_seconds": seconds}
    merged["sha256"] = hashlib.sha256(artifact.content).hexdigest()
    beside.write_json(about, merged)


def table(artifacts: Sequence[Artifact], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `evaluate` found of each file, as lines of a table and one for each .tflite."""
    header = ("file", "precision", "bytes", "clean", "augmented", "ms an image", "in")
    rows = [header, *(_row(*pair) for pair in zip(artifacts, found, strict=True))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if header[place] in _NUMBERS else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    micros = (
        f"{artifact.path} in tflite-micro: {_on_device(each['micro'])}"
        for artifact, each in zip(artifacts, found, strict=True)
        if "micro" in each
    )
    return [*lines, *micros]


def _row(artifact: Artifact, found: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        artifact.path,
        artifact.about["precision"],
        f"{found['bytes']:,}",
        *(f"{found['evaluation'][kind]['accuracy']:.4f}" for kind in KINDS),
        f"{1000 * found['latency_seconds'][artifact.runtime]['median']:.2f}",
        artifact.runtime,
    )


def _on_device(micro: Mapping[str, Any]) -> str:
    if "lacks" in micro:
        return f"it lacks {micro['lacks']}"
    return (
        f"{micro['flash_bytes']:,} bytes of flash, {micro['arena_bytes']:,} of arena; the output "
        f"is LiteRT's to the last byte on {micro['identical']} of {micro['images']} images"
    )


def evaluate(artifact: Artifact, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Evaluate a file as the run that it came from is evaluated.

    Args:
        artifact: the file.
        config: whose `data` and `eval` say which images; how they are split and augmented, and
            their size, is the file's to tell.

    Returns:
        evaluation: {clean, augmented: as `rice_jax.evaluate.evaluate`, path}; dataset: {name,
        synthetic, fingerprint}; latency_seconds: {its runtime: {median, p10, p90}}; bytes;
        micro: as `micro.measure`, of a .tflite.

    Raises:
        UserError: the images are of other classes than the net's.
    """
    about = artifact.about
    settings = _of_its_run(config, about)
    source, dataset = _images(about["classes"], settings)
    measured = {
        kind: measure(
            artifact.net,
            Images(settings, source, (kind,), task=f"evaluating {artifact.path}"),
            about["classes"],
        )
        for kind in KINDS
    }
    found = {
        "evaluation": measured | {"path": config.eval.path or "test split"},
        "dataset": dataset,
        "bytes": len(artifact.content),
        "latency_seconds": {artifact.runtime: runtimes.latency(artifact.net, about["image_size"])},
    }
    if artifact.suffix == ".tflite":
        few = Images(settings, source, ("augmented",), limit=_COMPARED)
        images = [image for batch, _ in few for image in np.asarray(batch)]
        found["micro"] = micro.measure(artifact.content, images)
    return found


def _of_its_run(
    config: ml_collections.ConfigDict, about: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """The settings with what the file tells of the run that it came from."""
    settings = ml_collections.ConfigDict(config.to_dict())
    settings.seed = about["seed"]
    settings.data.update(image_size=about["image_size"], split_seed=about["split_seed"])
    return settings


def measure(
    net: runtimes.Net, images: Iterable[tuple[Any, Any]], classes: Sequence[str]
) -> dict[str, Any]:
    """The report of a net on pairs of images in [0, 1] and labels; what `evaluate.report` says,
    and `loss`: the mean cross-entropy in nats."""
    confusion, loss = np.zeros((len(classes), len(classes)), np.int64), 0.0
    for batch, labels in images:
        logits = net(np.asarray(batch)).astype(np.float64)
        np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
        loss -= scipy.special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].sum()
    return {**report(confusion, classes), "loss": float(loss / confusion.sum())}


def _images(
    classes: Sequence[str], config: ml_collections.ConfigDict
) -> tuple[data.Source, dict[str, Any]]:
    """The images to evaluate on, and what there is to tell of them."""
    if config.eval.path:
        folder = data.folder(config.eval.path, classes)
        return folder, {"name": config.eval.path, "synthetic": False, "fingerprint": None}
    dataset = load_images(config)
    if tuple(classes) != dataset.classes:
        raise UserError(
            f"the net is one for {', '.join(classes)}; the images are of "
            f"{', '.join(dataset.classes)}"
        )
    told = ("name", "synthetic", "fingerprint")
    return dataset.splits["test"], {name: getattr(dataset, name) for name in told}
