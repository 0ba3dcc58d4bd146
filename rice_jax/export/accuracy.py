"""How well an exported file does: the same images and the same report as of a run."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import scipy.special

from rice_jax import data, records
from rice_jax.errors import UserError
from rice_jax.evaluate import report
from rice_jax.export import averaging, microcontroller, runtimes
from rice_jax.export.artifact import Artifact
from rice_jax.records import (
    EvaluatedOn,
    EvaluationFile,
    ExportFile,
    OnDevice,
    Result,
    Seconds,
    left_out,
)
from rice_jax.report import numbers
from rice_jax.run import Run
from rice_jax.train.prepared import Images, load_images

KINDS = ("clean", "augmented")
_NUMBERS = ("bytes", *KINDS, "ms an image")
_COMPARED = 100
"""Images on which tflite-micro is held against LiteRT."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """How well a file does, and what it takes: what is added to the JSON beside it."""

    evaluation: EvaluationFile
    dataset: EvaluatedOn
    bytes: int
    latency_seconds: dict[str, Seconds]
    """By runtime, its own alone."""
    micro: OnDevice | None = left_out()
    """Of a .tflite."""


def record(artifact: Artifact, found: Found) -> None:
    """Write what `evaluate` found into FILE.json beside the file, with all that stands there."""
    beside, about, told = _beside(artifact)
    known = records.plain(told) if told else {"file": artifact.path}
    seconds = {**(told.latency_seconds or {} if told else {}), **found.latency_seconds}
    content = {
        **known,
        **artifact.about,
        **records.plain(dataclasses.replace(found, latency_seconds=seconds)),
        "sha256": _digest(artifact),
    }
    records.write(beside, records.made(ExportFile, content), about)


def require_place(artifact: Artifact) -> None:
    """UserError where FILE.json beside the file is damaged, before anything is evaluated."""
    beside, about, told = _beside(artifact)
    if told is None and beside.has(about):
        print(f"{about} is of another file by that name: it is written anew")


def _beside(artifact: Artifact) -> tuple[Run, str, ExportFile | None]:
    """The folder, FILE.json's name, and what it tells where it is of this very file."""
    folder, name = os.path.split(artifact.path)
    beside, about = Run(folder or "."), f"{name}.json"
    told = records.read(beside, ExportFile, about) if beside.has(about) else None
    of_another = told and told.sha256 not in (None, _digest(artifact))
    return beside, about, None if of_another else told


def _digest(artifact: Artifact) -> str:
    return hashlib.sha256(artifact.content).hexdigest()


def table(artifacts: Sequence[Artifact], found: Sequence[Found]) -> list[str]:
    """What `evaluate` found of each file, as lines of a table, and on which images; of each
    .tflite also what it takes on a device."""
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
        f"{artifact.path} in tflite-micro: {_on_device(each.micro)}"
        for artifact, each in zip(artifacts, found, strict=True)
        if each.micro
    )
    looked_at = (_looked_at(*pair) for pair in zip(artifacts, found, strict=True))
    return [*lines, *looked_at, *micros]


def _looked_at(artifact: Artifact, found: Found) -> str:
    images = found.evaluation.parts()["clean"].images
    return f"{artifact.path} on {numbers.counted(images, 'image')} of {found.dataset.name}"


def _row(artifact: Artifact, found: Found) -> tuple[str, ...]:
    return (
        artifact.path,
        artifact.about["precision"],
        f"{found.bytes:,}",
        *(f"{result.accuracy:.4f}" for result in found.evaluation.parts().values()),
        f"{1000 * found.latency_seconds[artifact.runtime].median:.2f}",
        artifact.runtime,
    )


def _on_device(micro: OnDevice) -> str:
    if micro.lacks is not None:
        return f"it lacks {micro.lacks}"
    return (
        f"{micro.flash_bytes:,} bytes of flash, {numbers.count(micro.arena_bytes)} of arena; the "
        f"output is LiteRT's to the last byte on {micro.identical} of {micro.images} images"
    )


def evaluate(artifact: Artifact, config: ml_collections.ConfigDict) -> Found:
    """Evaluate a file as a run is evaluated.

    Args:
        artifact: the file.
        config: whose `data` and `eval` say which images; how they are split and augmented, and
            their size, is the file's to tell.

    Raises:
        UserError: the images are of other classes than the net's.
    """
    about = artifact.about
    settings = _of_its_run(config, about)
    source, dataset, fingerprint = _images(about["classes"], settings)
    clean, augmented = (
        measure(
            artifact.net,
            Images(settings, source, (kind,), task=f"evaluating {artifact.path}"),
            about["classes"],
        )
        for kind in KINDS
    )
    seconds = runtimes.latency(artifact.alone, about["image_size"] // about["averaged"])
    found = Found(
        evaluation=EvaluationFile(
            clean=clean,
            augmented=augmented,
            path=records.tested_on(config.eval.path),
            fingerprint=fingerprint,
        ),
        dataset=dataset,
        bytes=len(artifact.content),
        latency_seconds={artifact.runtime: Seconds(**seconds)},
    )
    if artifact.suffix == ".tflite":
        few = Images(settings, source, ("augmented",), limit=_COMPARED)
        batches = (averaging.averaged(np.asarray(batch), about["averaged"]) for batch, _ in few)
        images = [image for batch in batches for image in batch]
        measured_there = microcontroller.measure(artifact.content, images)
        found = dataclasses.replace(found, micro=records.made(OnDevice, measured_there))
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
    net: runtimes.Runnable, images: Iterable[tuple[Any, Any]], classes: Sequence[str]
) -> Result:
    """The report of a net on pairs of images in [0, 1] and labels; what `evaluate.report` says,
    and `loss`: the mean cross-entropy in nats."""
    confusion, loss = np.zeros((len(classes), len(classes)), np.int64), 0.0
    for batch, labels in images:
        logits = net(np.asarray(batch)).astype(np.float64)
        np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
        loss -= scipy.special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels].sum()
    return dataclasses.replace(report(confusion, classes), loss=float(loss / confusion.sum()))


def _images(
    classes: Sequence[str], config: ml_collections.ConfigDict
) -> tuple[data.Source, EvaluatedOn, str | None]:
    """The images to evaluate on, what there is to tell of them, and of a folder its digest."""
    if config.eval.path:
        folder = data.folder(config.eval.path, classes)
        about = EvaluatedOn(name=records.tested_on(config.eval.path))
        return folder, about, folder.fingerprint
    dataset = load_images(config)
    if tuple(classes) != dataset.classes:
        raise UserError(
            f"the net is one for {', '.join(classes)}; the images are of "
            f"{', '.join(dataset.classes)} ({dataset.name}): give its own as --config.data.path"
        )
    told = EvaluatedOn(
        name=dataset.name, synthetic=dataset.synthetic, fingerprint=dataset.fingerprint
    )
    return dataset.splits["test"], told, None
