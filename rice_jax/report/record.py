"""What the stages left in a run's folder, read once; and the headline figures of it."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rice_jax import config as configuration
from rice_jax import records
from rice_jax.errors import UserError
from rice_jax.report import history, reported
from rice_jax.run import Run

PARTS = ("clean", "augmented")
"""The two halves of evaluation.json, and of the census."""
TOLD = (
    *(records.ConfigFile.FILE, "history.csv", records.EvaluationFile.FILE),
    *(records.ProfileFile.FILE, records.DeadFiltersFile.FILE, records.PruneFile.FILE),
    *(records.VariantsFile.FILE, records.LightenFile.FILE),
)
"""Files that a record is made of."""


@dataclasses.dataclass(frozen=True)
class Record:
    """The contents of a run's files; None, or no rows, for a stage that has not run."""

    config: records.ConfigFile
    history: Sequence[records.EpochRow]
    evaluation: records.EvaluationFile | None = None
    profile: records.ProfileFile | None = None
    dead_filters: records.DeadFiltersFile | None = None
    prune: records.PruneFile | None = None
    variants: records.VariantsFile | None = None
    lighten: records.LightenFile | None = None
    """Of a run that a search for lighter nets chose."""
    file: records.ExportFile | None = None
    """Of an exported file what stands in the JSON beside it; None for a run."""

    @property
    def model(self) -> str:
        """Name of the net."""
        return self.config.config["model"]["name"]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The fields of config.train, as far as they are told."""
        return self.config.config.get("train") or {}

    @property
    def validated_augmented(self) -> bool:
        """Whether its validation images were augmented."""
        return bool(self.recipe.get("validation_augmented"))

    @property
    def validation_size(self) -> int | None:
        """Height and width of its newest validation's images, where they were not whole."""
        return self.history[-1].validation_size if self.history else None

    @property
    def data(self) -> records.ImagesTold | None:
        """What config.json says of the images; None for a run that has seen none."""
        return self.config.data

    @property
    def learns_from(self) -> int | None:
        """Images of an epoch: of those for training all, or so many as the recipe takes."""
        there = self.data.images.get("train") if self.data else None
        return there and min(there, self.recipe.get("images") or there)

    @property
    def results(self) -> dict[str, records.Result]:
        """How well it does on clean and on augmented test images, where that is known."""
        return self.evaluation.parts() if self.evaluation else {}

    @property
    def seed(self) -> int | None:
        """The seed that the net ended with: a net that began again has another than its config."""
        told = self.history[-1].seed if self.history else None
        return self.config.seed if told is None else told

    @property
    def failed_seeds(self) -> Sequence[int]:
        """Those of the tries that did not learn, after which the net began again."""
        begun, ended = self.config.config.get("seed"), self.seed
        return () if begun is None or ended is None else range(begun, ended)

    @property
    def tested_elsewhere(self) -> str:
        """The folder that it was evaluated on; '' where that was its test split, or is unknown."""
        path = self.evaluation.path if self.evaluation else None
        return path if path and path != records.TEST_SPLIT else ""

    @property
    def split_seed(self) -> int | None:
        """What its test images were drawn by; None where it was tested on others, or not."""
        if self.evaluation is None or self.evaluation.path != records.TEST_SPLIT:
            return None
        if self.file is not None:
            return self.file.split_seed
        given = (self.config.config.get("data") or {}).get("split_seed", -1)
        return self.config.config.get("seed") if given == -1 else given

    @property
    def synthetic(self) -> bool:
        """Whether the run's images are drawn."""
        return bool(self.data and self.data.synthetic)

    @property
    def flops_complete(self) -> bool:
        """Whether the profile counts all that the net does; True where there is no profile."""
        return self.profile is None or not self.profile.uncounted


def load(run: Run) -> Record:
    """Read a run's folder; UserError where config.json is missing or a file is damaged."""
    config = records.read(run, records.ConfigFile)
    if mistake := configuration.mistake(config.config):
        raise UserError(f"{run.path / config.FILE} is damaged: {mistake}")
    return Record(
        config=config,
        history=records.read_history(run),
        evaluation=records.read_if_there(run, records.EvaluationFile),
        profile=records.read_if_there(run, records.ProfileFile),
        dead_filters=records.read_if_there(run, records.DeadFiltersFile),
        prune=records.read_if_there(run, records.PruneFile),
        variants=records.read_if_there(run, records.VariantsFile),
        lighten=records.read_if_there(run, records.LightenFile),
    )


def load_file(path: str) -> Record:
    """An exported file as a record, by the JSON beside it alone.

    Raises:
        UserError: that JSON is missing or damaged, or of a file that was evaluated without what
            its export wrote.
    """
    records.require_beside(path)
    folder, name = os.path.split(path)
    told = records.read(Run(folder or "."), records.ExportFile, f"{name}.json")
    if told.params is None or told.flops is None:
        raise UserError(
            f"{path}.json is not as rice-jax export writes it: give the file that it wrote"
        )
    measured = [
        records.Measured(median=seconds.median, device=f"CPU, {runtime}")
        for runtime, seconds in (told.latency_seconds or {}).items()
        if runtime != "rice_jax"
    ]
    images = told.dataset or records.EvaluatedOn()
    lacking = [] if told.flops_complete else [records.Uncountable(layer="", operation="")]
    return Record(
        config=records.ConfigFile(
            config={"model": {"name": told.net}, "data": {}, "train": {}},
            seed=told.seed,
            data=records.ImagesTold(
                name=images.name or "",
                synthetic=images.synthetic,
                fingerprint=images.fingerprint or "",
                classes=told.classes,
            ),
        ),
        history=[],
        evaluation=told.evaluation,
        profile=records.ProfileFile(
            totals=records.TotalCosts(params=told.params, flops=told.flops),
            uncounted=lacking,
            time=records.Timed(measured=measured[0]) if measured else None,
        ),
        file=dataclasses.replace(told, file=path),
    )


def summarize(record: Record) -> records.SummaryFile:
    """summary.json: model, images, best epoch, and the headline figures of the other files."""
    data, profile = record.data, record.profile
    best = history.best_row(record.history)
    totals = profile.totals if profile else None
    measured = profile.time.measured if profile and profile.time else records.Measured()
    results = record.results
    return records.SummaryFile(
        model=record.model,
        seed=record.seed,
        pruned=record.prune is not None,
        dataset=_images(data),
        weights=record.config.weights,
        epochs=len(record.history),
        best_epoch=best.epoch if best else None,
        train_accuracy=best.train_accuracy if best else None,
        train_loss=best.train_loss if best else None,
        val_accuracy=best.val_accuracy if best else None,
        val_loss=best.val_loss if best else None,
        clean=_headline(results.get("clean")),
        augmented=_headline(results.get("augmented")),
        evaluated_on=record.evaluation.path if record.evaluation else None,
        params=totals.params if totals else None,
        trainable_params=totals.trainable_params if totals else None,
        filters=totals.filters if totals else None,
        study_filters=totals.study_filters if totals else None,
        flops=totals.flops if totals else None,
        flops_complete=record.flops_complete,
        precision=record.file.precision if record.file else "float32",
        bit_operations=_bit_operations(record),
        bytes=record.file.bytes if record.file else totals.param_bytes if totals else None,
        latency_seconds=measured.median,
        images_per_second=measured.throughput.images_per_second,
        latency_device=measured.device,
        dead_filters=_dead(record.dead_filters),
        reported=reported.of_the_same_images(
            profile.reported if profile else None,
            data,
            tested=not record.tested_elsewhere,
            validated=not (record.validated_augmented or record.validation_size),
        ),
        errata=profile.errata if profile else [],
    )


def _images(told: records.ImagesTold | None) -> records.ImagesSummed | None:
    if told is None:
        return None
    return records.ImagesSummed(
        name=told.name,
        synthetic=told.synthetic,
        fingerprint=told.fingerprint,
        images=told.images,
    )


def _headline(result: records.Result | None) -> records.Headline | None:
    if result is None:
        return None
    return records.Headline(
        images=result.images,
        accuracy=result.accuracy,
        loss=result.loss,
        macro_precision=result.macro_avg.precision,
        macro_recall=result.macro_avg.recall,
        macro_f1=result.macro_avg.f1,
    )


def _bit_operations(record: Record) -> int | None:
    if record.file is not None:
        return record.file.bit_operations
    costs = record.profile.totals.precisions.get("float32") if record.profile else None
    return costs.bit_operations if costs else None


def _dead(found: records.DeadFiltersFile | None) -> records.DeadTold | None:
    if found is None:
        return None
    return records.DeadTold(
        filters=sum(layer.filters for layer in found.layers),
        clean=sum(len(layer.dead_clean) for layer in found.layers),
        augmented=sum(len(layer.dead_augmented) for layer in found.layers),
        proven=sum(len(layer.proven_dead) for layer in found.layers),
        images=found.images,
    )
