"""A configuration held against what its fields may be, and against what they change."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rice_jax import files, nets
from rice_jax.bounds import MOST_EPOCHS, Place, Word, checked, nearest
from rice_jax.config.defaults import FIELDS, fields
from rice_jax.errors import UserError

if TYPE_CHECKING:
    import ml_collections


def check(config: "ml_collections.ConfigDict") -> None:
    """Hold every field against its bounds, and fields that depend on each other.

    Raises:
        UserError: a field that is missing, unknown or out of its bounds, by name, with what is
            allowed.
    """
    given = dict(flat(config.to_dict()))
    known = fields(checked("config.model.name", given.get("model.name"), Word(nets.names())))
    for name in given.keys() - known.keys():
        near = nearest(name, known)
        raise UserError(
            f"config.{name}: there is no such field"
            + (f"; nearest is config.{near}" if near else "")
        )
    for name, field in known.items():
        if name not in given:
            raise UserError(f"config.{name} is missing: give {field.bounds}")
        checked(f"config.{name}", given[name], field.bounds)
    quick = config.train.quick
    if len(quick.shrink) != len(quick.epochs):
        raise UserError(
            f"config.train.quick.shrink={quick.shrink} and config.train.quick.epochs="
            f"{quick.epochs} differ in length: give each size its epochs, as "
            f"--config.train.quick.epochs={_one_for_each(quick.epochs, len(quick.shrink))}"
        )
    if (together := sum(quick.epochs)) > MOST_EPOCHS:
        raise UserError(
            f"config.train.quick.epochs are {together:,} together: give {MOST_EPOCHS:,} at most"
        )


def _one_for_each(epochs: Sequence[int], sizes: int) -> str:
    """So many of the epochs as there are sizes, the last of them again where they are too few."""
    return ",".join(str(number) for number in [*epochs, *[epochs[-1]] * sizes][:sizes])


_OF_THE_STUDY = (
    *("epochs", "learning_rate", "stop_patience"),
    *("plateau_patience", "plateau_factor", "plateau_min_delta"),
)
NO_PART_IN: Mapping[str, Sequence[str]] = {"study": ("quick",), "quick": _OF_THE_STUDY}
"""By schedule, the fields of `train` that change nothing in its trainings."""


def idle(config: "ml_collections.ConfigDict", given: Iterable[str]) -> str:
    """Which of the fields given changes nothing in a training, and why; '' for none."""
    for name in given:
        part, _, last = name.partition(".")
        if part != "train":
            continue
        if config.train.schedule == "quick" and last in _OF_THE_STUDY:
            instead = {"epochs": "quick.epochs", "learning_rate": "quick.peak_rate"}.get(last)
            other = f"--config.train.{instead}, or " if instead else ""
            return f"{name} changes nothing in the quick schedule: give {other}{_by('study')}"
        if config.train.schedule == "study" and last.startswith("quick."):
            return f"{name} changes nothing in the study's schedule: give {_by('quick')}"
        if not config.train.teacher and last.startswith("distill."):
            return f"{name} changes nothing without a teacher: give --config.train.teacher"
    return ""


def same(name: str, told: Any, given: Any) -> bool:
    """Whether a field given now is what a file tells of it: equal, or a path of the same place."""
    paths = name in FIELDS and isinstance(FIELDS[name].bounds, Place)
    texts = isinstance(told, str) and isinstance(given, str)
    return told == given or (paths and texts and files.same_place(told, given))


def _by(schedule: str) -> str:
    return f"--config.train.schedule={schedule}"


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each field with its name, as 'train.epochs'."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
