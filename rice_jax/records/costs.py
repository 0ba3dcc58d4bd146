"""profile.json: what a net costs."""

import dataclasses
from typing import Annotated, ClassVar

import msgspec

from rice_jax.records.store import MOST_LAYERS, FileRecord, Name, left_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlopCounts:
    """FLOPs by convention; None where one is not counted."""

    formula: int | None = None
    study: int | None = None
    xla: int | None = None

    def by(self, convention: str) -> int:
        """Those in one convention, 0 where they are not counted."""
        return getattr(self, convention) or 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved:
    """Bytes that are read and written."""

    read: int
    written: int

    @property
    def total(self) -> int:
        """Both."""
        return self.read + self.written


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerCosts:
    """A row of the profile."""

    path: Name
    """'' for what the net does outside of its layers."""
    type: Name
    output_shape: tuple[int, ...] | None = None
    """With the batch dimension."""
    params: int
    filters: int
    flops: FlopCounts
    times: int = 1
    """How often a loop runs it."""
    branches: int = 1
    """Of which the dearest counts."""
    complete: bool = True
    """Whether the FLOPs lack nothing."""
    skipped: bool = False
    """Whether it is in a cheaper branch."""
    training_flops: int | None = None
    intensity: float | None = None
    """FLOPs (`xla`) a byte."""
    bytes: Moved | None = None
    bound: str | None = None
    """'compute' or 'memory' on the roofline's device; None for what moves nothing."""
    seconds: float = 0.0
    """At least, on that device."""

    @property
    def size(self) -> str:
        """Of the output, without the batch: '56 x 56 x 8'."""
        return " x ".join(map(str, (self.output_shape or ())[1:]))

    @property
    def study(self) -> int:
        """FLOPs in the study's convention, 0 where they are not counted."""
        return self.flops.by("study")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionCosts:
    """What a net costs in numbers of so many bits."""

    bit_operations: int
    param_bytes: int
    bytes: int | None = left_out()
    """What is read and written; none of a net that does not compute in float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryHeld:
    """Bytes at the peak of inference."""

    weights: int
    activations: int
    at: str
    peak: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TotalCosts:
    """Of all rows."""

    params: int
    trainable_params: int | None = None
    param_bytes: int | None = None
    filters: int | None = None
    study_filters: int | None = None
    flops: FlopCounts
    training_flops: int | None = None
    bytes: Moved | None = None
    precisions: dict[str, PrecisionCosts] = dataclasses.field(default_factory=dict)
    memory: MemoryHeld | None = None
    complete: bool = True
    xla_loops_once: int | None = None
    xla_measured: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peaks:
    """What a device does in a second at most, and the net's seconds there."""

    flops_per_second: float
    bytes_per_second: float
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncountable:
    """An operation that no rule counts."""

    layer: Name
    operation: Name
    input_shapes: list[list[int]] = dataclasses.field(default_factory=list)
    output_shapes: list[list[int]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MacroReported:
    """Means over classes."""

    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reported:
    """The study's figures for a net, as printed."""

    params: int | None = None
    trainable: int | None = None
    filters: int | None = None
    flops: int | None = None
    tflops_7500: float | None = None
    best_epoch: int | None = None
    train_accuracy: float | None = None
    train_loss: float | None = None
    val_accuracy: float | None = None
    val_loss: float | None = None
    augmented_test_accuracy: float | None = None
    macro: MacroReported = MacroReported()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Errata:
    """A figure that the study has wrong."""

    model: str
    field: str
    """Of `Reported`."""
    reported: int | float
    correct: int | float
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput:
    """Of a batch."""

    batch_size: int | None = None
    repeats: int | None = None
    compile_seconds: float | None = None
    images_per_second: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of one image on a device."""

    device: str | None = None
    repeats: int | None = None
    compile_seconds: float | None = None
    median: float | None = None
    p10: float | None = None
    p90: float | None = None
    from_host: float | None = left_out()
    """With the way from NumPy's memory and back."""
    throughput: Throughput = Throughput()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """Of one image on the CPU."""

    median: float
    p10: float | None = left_out()
    p90: float | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds in theory, and measured."""

    device_flops_per_second: float | None = None
    theoretical_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """By convention."""
    measured: Measured = Measured()
    runtimes: dict[str, Seconds] | None = left_out()
    """Of one image, exported, by what else was asked to compute it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileFile(FileRecord):
    """FLOPs, parameters, bytes and time, layer by layer and in all."""

    FILE: ClassVar[str] = "profile.json"

    input_shape: tuple[int, ...] = ()
    layers: Annotated[list[LayerCosts], msgspec.Meta(max_length=MOST_LAYERS)] = dataclasses.field(
        default_factory=list
    )
    totals: TotalCosts
    roofline: Peaks | None = None
    uncounted: list[Uncountable] = dataclasses.field(default_factory=list)
    not_called: list[Name] = dataclasses.field(default_factory=list)
    reported: Reported | None = None
    """None for a net that is none of the study's."""
    errata: list[Errata] = dataclasses.field(default_factory=list)
    time: Timed | None = left_out()
