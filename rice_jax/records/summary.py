"""summary.json: the headline figures of a run's other files."""

import dataclasses
from typing import ClassVar

from rice_jax.records.configuration import WeightsTold
from rice_jax.records.costs import Errata, FlopCounts, Reported
from rice_jax.records.store import FileRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesSummed:
    """The run's images."""

    name: str
    synthetic: bool
    fingerprint: str
    images: dict[str, int]
    """By split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
    """Of a `Result`."""

    images: int
    accuracy: float
    loss: float | None
    macro_precision: float
    macro_recall: float
    macro_f1: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeadTold:
    """How many filters are dead."""

    filters: int
    clean: int
    augmented: int
    proven: int
    images: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SummaryFile(FileRecord):
    """A figure whose stage has not run is None; shares are in [0, 1], FLOPs for one image."""

    FILE: ClassVar[str] = "summary.json"

    model: str
    seed: int | None
    pruned: bool
    dataset: ImagesSummed | None
    weights: WeightsTold | None
    epochs: int
    best_epoch: int | None
    train_accuracy: float | None
    train_loss: float | None
    """In nats."""
    val_accuracy: float | None
    val_loss: float | None
    clean: Headline | None
    augmented: Headline | None
    evaluated_on: str | None
    params: int | None
    trainable_params: int | None
    filters: int | None
    study_filters: int | None
    flops: FlopCounts | None
    flops_complete: bool
    precision: str
    """'float32' or 'int8'."""
    bit_operations: int | None
    bytes: int | None
    """Of a run's parameters, of an exported file all."""
    latency_seconds: float | None
    """Of one image."""
    images_per_second: float | None
    latency_device: str | None
    dead_filters: DeadTold | None
    reported: Reported | None
    errata: list[Errata]
