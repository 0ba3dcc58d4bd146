"""Add a trained run's net to the zoo: its weights, and a card out of what the run's files tell.

  python scripts/make_zoo.py --workdir=runs/final --name=final --machine='2 cores of an AMD EPYC'

The run must have been trained and evaluated on its own test split, which seed 0 cut, as the
sample's photographs are of that one. Paths are left out of the card.
"""

import dataclasses
import datetime
import shlex

import jax
import ml_collections
import numpy as np
from absl import app, flags

from rice_jax import config as configuration
from rice_jax import evaluate, identity, profile, records, train, zoo
from rice_jax.errors import UserError
from rice_jax.report import history
from rice_jax.run import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
_NAME = flags.DEFINE_string("name", None, "The net's name in the zoo; by default the net's own.")
_MACHINE = flags.DEFINE_string("machine", "", "Where it was trained; by default the devices.")
_RECIPE = flags.DEFINE_string("recipe", "", "How it was trained; by default the schedule's name.")
_COMMAND = flags.DEFINE_string("command", "", "What gives such a run again; by default a training.")
_HALF = flags.DEFINE_bool(
    "half", False, "Keep the weights in half precision; what they do is measured with those."
)
_NOTE = flags.DEFINE_string("note", "", "What else is to be known of it.")


def card(
    run: Run,
    trained: train.Trained,
    *,
    machine: str = "",
    recipe: str = "",
    command: str = "",
    note: str = "",
    measured: bool = False,
) -> records.ZooCard:
    """The card but for name and digest; UserError where the run is not finished.

    With `measured` its accuracies are those of `trained`, not those that the run's files tell.
    """
    saved, rows = configuration.read(run), records.read_history(run)
    best, evaluation = history.best_row(rows), records.read(run, records.EvaluationFile)
    images = saved.data
    if not best or images is None or images.synthetic:
        raise UserError(f"{run} was not trained on photographs")
    if evaluation.path != "test split":
        raise UserError(f"{run} was evaluated on {evaluation.path}, not on its test split")
    if seed := configuration.split_seed(trained.config):
        raise UserError(
            f"{run} learned from the splits of seed {seed}, and so from some of the sample's "
            "photographs: train it with --config.data.split_seed=0"
        )
    config = _portable(trained.config, images.name)
    side = config.data.image_size
    counted = profile.count(trained.module, (side, side, 3), frozen=config.train.frozen)
    ended = datetime.date.fromtimestamp((run.path / records.HISTORY).stat().mtime)
    versions = {
        name: version
        for name, version in saved.versions.items()
        if name not in ("command", "devices", "platform")
    }
    return records.ZooCard(
        name="",
        config=configuration.to_json(config),
        params=counted.params,
        flops=records.made(records.FlopCounts, counted.flops.to_json()),
        recipe=recipe or _recipe(config),
        epochs=len(rows),
        best_epoch=best.epoch,
        seed=config.seed,
        data=_without_names(images),
        accuracy=_measured(run, trained) if measured else _told(run, trained, best, evaluation),
        versions=versions,
        machine=machine or saved.versions["devices"],
        date=ended.isoformat(),
        command=command or _command(config),
        note=note or None,
        sha256="",
    )


def _without_names(images: records.ImagesTold) -> records.ImagesTold:
    """How many of the images are there twice, but not which."""
    copies = images.copies and dataclasses.replace(images.copies, pairs=())
    return dataclasses.replace(images, copies=copies)


def _told(
    run: Run,
    trained: train.Trained,
    best: records.EpochRow,
    evaluation: records.EvaluationFile,
) -> records.CardAccuracy:
    """As the run's files have it, but for validation on others than all of the clean images."""
    recipe = trained.config.train
    if recipe.validation_augmented or recipe.validation_images:
        validation = _share(run, trained, "validation")
    else:
        images = configuration.read(run).data.images["validation"]
        validation = records.Share(accuracy=best.val_accuracy, images=images)
    tested = {
        part: records.Share(accuracy=result.accuracy, images=result.images)
        for part, result in evaluation.parts().items()
    }
    return records.CardAccuracy(validation=validation, **tested)


def _measured(run: Run, trained: train.Trained) -> records.CardAccuracy:
    return records.CardAccuracy(
        validation=_share(run, trained, "validation"),
        clean=_share(run, trained, "test"),
        augmented=_share(run, trained, "test", augment_seed=trained.config.seed),
    )


def _share(
    run: Run, trained: train.Trained, split: str, augment_seed: int | None = None
) -> records.Share:
    found = evaluate.evaluate(
        trained.module,
        trained.params,
        identity.load_own(trained.config, run).splits[split],
        classes=trained.classes,
        image_size=trained.config.data.image_size,
        batch_size=trained.config.eval.batch_size,
        augment_seed=augment_seed,
    )
    return records.Share(accuracy=found.accuracy, images=found.images)


def halved(trained: train.Trained) -> train.Trained:
    """The same with weights as half precision has them."""
    params = jax.tree.map(lambda array: array.astype(np.float16).astype(np.float32), trained.params)
    return dataclasses.replace(trained, params=params)


def _portable(config: ml_collections.ConfigDict, images: str) -> ml_collections.ConfigDict:
    """The configuration without this machine's folders, its images by name.

    They are named also where the environment told them: without a path it would be the sample's.
    """
    usual = configuration.default(config.model.name)
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.cache_dir = usual.data.cache_dir
    config.data.path = config.data.path.rstrip("/").rpartition("/")[2] or images
    config.eval.path = ""  # what it was evaluated on is the test split
    if not config.model.weights.startswith(zoo.PREFIX):
        config.model.weights = config.model.weights.rstrip("/").rpartition("/")[2]
    if not config.train.teacher.startswith(zoo.PREFIX):
        config.train.teacher = config.train.teacher.rstrip("/").rpartition("/")[2]
    return config


def _recipe(config: ml_collections.ConfigDict) -> str:
    schedule = config.train.get("schedule", "study")
    taught = config.train.distill.weight and config.train.teacher
    return ", ".join(
        [
            schedule,
            *(["augmented"] if config.train.augment else []),
            *([f"taught by {taught}"] if taught else []),
        ]
    )


def _command(config: ml_collections.ConfigDict) -> str:
    """What gives such a run again: all that is not as the net's configuration has it."""
    flat, usual = (
        dict(configuration.flat(each.to_dict()))
        for each in (config, configuration.default(config.model.name))
    )
    fields = [
        shlex.quote(f"--config.{key}={flat[key]}") for key in flat if flat[key] != usual.get(key)
    ]
    return " ".join(
        ["python -m rice_jax.main", f"--config=configs/{config.model.name}.py", *fields]
    )


def main(argv: list[str]) -> None:
    """Add the run's net and say what came of it."""
    del argv
    run = Run(_WORKDIR.value)
    trained = halved(train.load(run)) if _HALF.value else train.load(run)
    name = _NAME.value or trained.config.model.name
    said = {
        "machine": _MACHINE.value,
        "recipe": _RECIPE.value,
        "command": _COMMAND.value,
        "note": _NOTE.value,
    }
    about = card(run, trained, **said, measured=_HALF.value)
    zoo.save(name, trained.params, about, half=_HALF.value)
    again = zoo.load(name)
    count = sum(leaf.size for leaf in jax.tree.leaves(again.variables))
    print(f"{name}: {count:,} parameters; {again.card.accuracy}")


if __name__ == "__main__":
    app.run(main)
