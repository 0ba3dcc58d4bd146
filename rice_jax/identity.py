"""What a run is of: config.json, and what a folder that holds another run does not take."""

import dataclasses
import importlib.metadata
import json
import platform
import sys
from collections.abc import Collection, Sequence
from typing import Any

import jax
import ml_collections

import rice_jax
from rice_jax import cluster, data, files, records, train, zoo
from rice_jax import config as configuration
from rice_jax.errors import UserError
from rice_jax.records import ConfigFile, ImagesTold, WeightsTold
from rice_jax.run import Run
from rice_jax.train.origin import MAY_CHANGE, OF_A_MACHINE, decided
from rice_jax.train.prepared import load_images

_IDENTITY = ("seed", "model", "train", "data.image_size", "data.split_seed")
"""What makes a run another run, but for `MAY_CHANGE`: a change there cannot go on in its folder."""
_SCHEDULE = "train.schedule"
_OF_THE_IMAGES = ("model.classes", "train.quick.epochs")
"""What follows from them, the latter by `own_images`: open in a run that has seen none yet."""
_NAMES = (
    *("report.md", "report.html", records.HISTORY, "checkpoints", "tensorboard", "feature_maps"),
    *("classes.png", "curves.png", "flops.png", "roofline.png", "dead_filters.png"),
    *("confusion_matrix_clean.png", "confusion_matrix_augmented.png"),
    *(records.EvaluationFile.FILE, records.ProfileFile.FILE, records.DeadFiltersFile.FILE),
    *(records.FeatureMapsFile.FILE, records.SummaryFile.FILE),
    *("steps", "candidates", "variants", "pruned_maps", "filters.png", "front.png"),
)
"""Of what a run leaves in its folder, beside config.json, which comes first."""
INSTEAD = "give the same, or another folder"
"""What helps in every command where a folder holds another run."""
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def unchanged(saved: ConfigFile | None, config: ml_collections.ConfigDict) -> set[str]:
    """The fields that are as the run has them: they have been settled before."""
    if saved is None:
        return set()
    before, now = (
        dict(configuration.flat(each)) for each in (saved.config, configuration.to_json(config))
    )
    return {field for field in before if before[field] == now.get(field)}


def record(
    run: Run,
    config: ml_collections.ConfigDict,
    dataset: data.Dataset | None,
    *,
    anew: bool = False,
    instead: str = INSTEAD,
) -> None:
    """Write config.json, after making sure that the folder does not hold another run.

    One that begins `anew` takes the place of whatever run is there, whose config.json stays until
    then: without it the folder would be no run's.

    Raises:
        UserError: as `refuse_another`, or the weights that it names are not there.
    """
    now = _wanted(config, dataset)
    saved = configuration.read(run) if run.has(ConfigFile.FILE) and not anew else None
    if saved:
        refuse_another(run, saved, now, instead)
        now = dataclasses.replace(now, data=now.data or saved.data, weights=saved.weights)
        if saved.config["model"]["classes"] != config.model.classes:
            run.remove(records.ProfileFile.FILE)  # of a net of so many, before there were images
    if now.weights is None:
        # Told once, at the beginning: the run or file that they are from may be gone later.
        now = dataclasses.replace(now, weights=_about_weights(config, now.data))
    run.create()
    records.write(run, now)


def require_same(run: Run, config: ml_collections.ConfigDict, dataset: data.Dataset) -> None:
    """UserError where the folder holds another run, as `record` refuses it; a look alone."""
    if run.has(ConfigFile.FILE):
        refuse_another(run, configuration.read(run), _wanted(config, dataset))


def _wanted(config: ml_collections.ConfigDict, dataset: data.Dataset | None) -> ConfigFile:
    return ConfigFile(
        config=configuration.to_json(config),
        versions=versions(),
        seed=config.seed,
        data=dataclasses.replace(_describe(dataset), size=dataset.size) if dataset else None,
    )


def _about_weights(
    config: ml_collections.ConfigDict, images: ImagesTold | None
) -> WeightsTold | None:
    """`train.about`, with a warning where the weights are used to other images or another net."""
    about, side = train.about(config), config.data.image_size
    known = about.classes if about else None
    if images and known and len(known) == len(images.classes) and known != images.classes:
        print(
            f"WARNING: {config.model.weights} tells {_few(known)} apart: from these its head "
            f"learns to tell {_few(images.classes)}",
            file=sys.stderr,
        )
    theirs = about.image_size if about else None
    if theirs not in (None, side):
        print(
            f"WARNING: {config.model.weights} was trained on images of {theirs} x {theirs} pixels "
            f"and gets {side} x {side}: --config.data.image_size={theirs} suits it better",
            file=sys.stderr,
        )
    from_zoo = config.model.weights.startswith(zoo.PREFIX)
    if others := train.used_otherwise(config):
        print(
            f"WARNING: {config.model.weights} was trained with {', '.join(others)}: "
            f"{'--config=' + config.model.weights if from_zoo else 'the same config.model'} "
            "suits it better",
            file=sys.stderr,
        )
    return about


def refuse_strangers(run: Run, but: Collection[str] = ()) -> None:
    """UserError where a folder that is no run's has what a run would write over, or remove.

    Args:
        run: a folder without config.json.
        but: names that may be there.
    """
    for name in _NAMES:
        if name not in but and run.has(name):
            raise UserError(
                f"{run} has a {name} that no run made, as config.json is missing: move it away, or "
                "give another folder"
            )


def refuse_another(run: Run, saved: ConfigFile, wanted: ConfigFile, instead: str = INSTEAD) -> None:
    """UserError, which tells what to do `instead`, where `saved` is of another run than `wanted`.

    `data` of either is None where the images are not known (yet). Fields that have no part in its
    training may differ, as where another version has other defaults for them.
    """
    before, after = (dict(configuration.flat(decided(each.config))) for each in (saved, wanted))
    may_change = MAY_CHANGE if saved.data else (*MAY_CHANGE, *_OF_THE_IMAGES)
    # The schedule first: by another one other fields have a part.
    for field in sorted(before.keys() | after.keys(), key=lambda each: (each != _SCHEDULE, each)):
        same_run = not field.startswith(_IDENTITY) or field in may_change
        if not (same_run or configuration.same(field, before.get(field), after.get(field))):
            raise UserError(
                f"{run} holds a run with {field}={before.get(field)!r}, "
                f"not {after.get(field)!r}: "
                f"{instead}"
            )
    if saved.data and wanted.data and saved.data.fingerprint != wanted.data.fingerprint:
        raise UserError(
            f"{run} holds a run on other images ({saved.data.name}, now {wanted.data.name}): "
            f"{instead}"
        )


def refuse_own_weights(run: Run, config: ml_collections.ConfigDict) -> None:
    """UserError where a run that begins anew is to begin with what goes then: its own weights."""
    source = config.model.weights
    if source in ("", train.RANDOM) or source.startswith(zoo.PREFIX):
        return
    place, checkpoints = map(files.resolved, (source, run.checkpoints))
    if run.is_at(source) or f"{place}/".startswith(f"{checkpoints}/"):
        raise UserError(
            f"config.model.weights={source!r} is in {run}, whose weights --restart removes: "
            "give another --workdir"
        )


def require_one_command(config: ml_collections.ConfigDict, **more: Any) -> None:
    """UserError where the processes of a job were not given the same, but for places of their own.

    Each would go by its own rate and its own end, and only the first one's would be told.
    """
    told = configuration.to_json(config)
    told["data"] = {name: told["data"][name] for name in told["data"] if name not in OF_A_MACHINE}
    cluster.require_same("settings", json.dumps([told, more], sort_keys=True))


def require_own(run: Run, dataset: data.Dataset, others: str = "") -> data.Dataset:
    """The images, if they are those that the run was trained on, in the same classes.

    Raises:
        UserError: they are others; it says what each is, and what may be done with `others`.
    """
    saved = configuration.read(run).data if run.has("config.json") else None
    now = _describe(dataset)
    if saved and (saved.fingerprint, saved.classes) != (now.fingerprint, now.classes):
        raise UserError(
            f"{run} is of {_told(saved)}, and given now is {_told(now)}: give the same images "
            f"(--config.data.path or RICE_IMAGE_DATASET){others}"
        )
    return dataset


def load_own(config: ml_collections.ConfigDict, run: Run) -> data.Dataset:
    """The images that a run was trained on; UserError as `require_own` and `data.load`."""
    return require_own(run, load_images(config))


def _told(images: ImagesTold) -> str:
    """What config.json says of images, in a few words."""
    number, classes = sum(images.images.values()), images.classes
    return f"{images.name} ({number:,} images in {len(classes)} classes: {_few(classes)})"


def _few(classes: Sequence[str]) -> str:
    return ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")


def _describe(dataset: data.Dataset) -> ImagesTold:
    return ImagesTold(
        name=dataset.name,
        synthetic=dataset.synthetic,
        fingerprint=dataset.fingerprint,
        classes=tuple(dataset.classes),
        images={name: len(source) for name, source in dataset.splits.items()},
        skipped=len(dataset.skipped),
        copies=dataset.copies,
    )


def versions() -> dict[str, str]:
    """What a run is computed with, and the command that it began with."""
    return {
        "python": platform.python_version(),
        "rice_jax": rice_jax.__version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": platform.platform(),
        "command": " ".join(sys.argv[1:]),
    }
