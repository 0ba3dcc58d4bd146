"""FILE.json beside an exported file."""

import dataclasses

from rice_jax import files
from rice_jax.errors import UserError
from rice_jax.records.configuration import Classes
from rice_jax.records.costs import FlopCounts, Seconds
from rice_jax.records.evaluation import EvaluationFile
from rice_jax.records.store import FileRecord, left_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """On how many images the net of int8 sees the same class as the one it was made of."""

    compared: int
    same_class: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatedOn:
    """The images that a file was evaluated on."""

    name: str | None = None
    synthetic: bool = False
    fingerprint: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnDevice:
    """What the net takes on a microcontroller, or which operation that lacks."""

    flash_bytes: int
    arena_bytes: int | None = left_out()
    images: int | None = left_out()
    identical: int | None = left_out()
    lacks: str | None = left_out()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFile(FileRecord):
    """An exported file; what only its export knows is None in one that was evaluated alone."""

    file: str | None = left_out()
    net: str
    precision: str
    classes: Classes = ()
    image_size: int | None = left_out()
    averaged: int | None = left_out()
    """Pixels of a side whose average is one that the file takes; 1 where images come whole."""
    seed: int
    split_seed: int | None = left_out()
    images: str | None = left_out()
    """Where its run had its images, as config.data.path of it tells; None in older files."""
    input: str = ""
    resizing: str = ""
    """How a photograph becomes one of `image_size`."""
    output: str = ""
    params: int | None = left_out()
    flops: FlopCounts | None = left_out()
    flops_complete: bool | None = left_out()
    bit_operations: int | None = left_out()
    latency_seconds: dict[str, Seconds] | None = left_out()
    """By runtime; 'rice_jax' is JAX."""
    operators: tuple[str, ...] | None = left_out()
    """Kinds that a runtime has to have, as the format calls them; None of a .stablehlo."""
    bytes: int | None = left_out()
    float32_bytes: int | None = left_out()
    """Of the file of float32 that one of int8 was made of."""
    sha256: str | None = left_out()
    max_abs_logit_difference: float | None = left_out()
    calibrated: Calibrated | None = left_out()
    evaluation: EvaluationFile | None = left_out()
    dataset: EvaluatedOn | None = left_out()
    micro: OnDevice | None = left_out()


def require_beside(path: str) -> None:
    """UserError where an exported file has no FILE.json beside it."""
    if not files.reached(f"{path}.json").exists():
        raise UserError(
            f"{path}.json is missing, which rice-jax export wrote beside the file: bring it there "
            "too, or export again"
        )
