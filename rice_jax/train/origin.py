"""What a training is of: a run goes on only with the configuration and images it began with."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from rice_jax import nets
from rice_jax.config import NO_PART_IN, same, to_json
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train import schedule
from rice_jax.train.teacher import Teacher

MAY_CHANGE = (
    "train.epochs",
    "train.on_collapse",
    "train.save_seconds",
    "train.stop_patience",
    "train.tensorboard",
)
"""Fields of a recipe that may change between one command and the next: none has a part in what an
epoch does."""
OF_A_MACHINE = ("path", "cache_dir", "keep_decoded", "workers")
"""Fields of config.data that tell of a machine, not of its images: the processes of a job, and
commands that go on elsewhere, may have others."""
_FREE = (*(f"data.{name}" for name in OF_A_MACHINE), "eval", "profile", *MAY_CHANGE)


def describe(
    config: ml_collections.ConfigDict, dataset: Any, teacher: Teacher | None = None
) -> dict[str, Any]:
    """The configuration, the classes, the images' and the teacher's digest, in plain JSON types."""
    return {
        "config": to_json(config),
        "classes": list(dataset.classes),
        "fingerprint": dataset.fingerprint,
        **({"teacher": teacher.digest} if teacher else {}),
    }


def require_same(run: Run, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """UserError where `run` was trained otherwise than is wanted now, naming what differs."""
    differences = [
        f"config.{path}={before!r}, not {now!r}"
        for path, before, now in changes(saved["config"], wanted["config"])
    ]
    if saved["classes"] != wanted["classes"]:
        differences.append(f"the classes {', '.join(saved['classes'])}")
    elif saved["fingerprint"] != wanted["fingerprint"]:
        differences.append("other images")
    # A run that only begins with given parameters has not met its teacher yet, and one that is
    # finished does not meet it again.
    met = {each["teacher"] for each in (saved, wanted) if "teacher" in each}
    if len(met) > 1:
        differences.append(f"another net in {wanted['config']['train']['teacher']}")
    if differences:
        raise UserError(
            f"{run} was trained with {'; '.join(differences)}: give the same, or another folder"
        )


def decided(content: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in JSON with what has a part in its training.

    That is the rule by which it draws kernels, if its version had any, and no field of the other
    schedule.
    """
    recipe = content["train"]
    others = NO_PART_IN.get(str(recipe.get("schedule", schedule.STUDY)), ())  # files tell any
    recipe = {name: value for name, value in recipe.items() if name not in others}
    if "initializer" in recipe:
        recipe["initializer"] = nets.initializer(content["model"]["name"], recipe)
    return {**content, "train": recipe}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, before, now) of each field that differs and changes what is trained.

    Both are configurations in JSON.
    """
    return _changes(decided(before), decided(now))


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    found = []
    for key in sorted(before.keys() & now.keys()):  # fields come and go with versions
        path = f"{prefix}{key}"
        old, new = before[key], now[key]
        if path in _FREE or same(path, old, new):
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _changes(old, new, f"{path}.")
        else:
            found.append((path, old, new))
    return found
