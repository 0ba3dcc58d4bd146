"""What the stages share: a run's folder, its configuration, its images and its net."""

import contextlib
import dataclasses
import functools
from collections.abc import Collection

import ml_collections

from rice_jax import cluster, data, identity, own_images, records, train
from rice_jax.errors import UserError
from rice_jax.report import writing
from rice_jax.run import Run
from rice_jax.train.prepared import load_images

_MADE_OF_ANOTHER = (records.PruneFile, records.LightenFile, records.StepFile)


@dataclasses.dataclass
class Job:
    """A run's folder, its configuration, and what several stages need of both."""

    run: Run
    config: ml_collections.ConfigDict
    given: Collection[str] = ()
    """Fields of it that the user has set, as 'train.epochs'."""
    restart: bool = False
    """Whether the training begins anew, and what the folder has of the one before goes."""
    instead: str = identity.INSTEAD
    """What the user is told to do where the folder holds another run."""

    @functools.cached_property
    def _images(self) -> data.Dataset:
        dataset = load_images(self.config)
        cluster.require_same("images", dataset.fingerprint)
        if len(dataset.classes) > records.MOST_CLASSES:
            raise UserError(
                f"{dataset.name} has {len(dataset.classes):,} classes: up to "
                f"{records.MOST_CLASSES:,} are told of in a run's files"
            )
        return dataset

    @property
    def dataset(self) -> data.Dataset:
        """The images, prepared on first use; the number of classes follows from them."""
        self.config.model.classes = len(self._images.classes)
        return self._images

    @functools.cached_property
    def trained_on(self) -> data.Dataset:
        """The images that the run was trained on; UserError where they are others now."""
        others = "; others are evaluated by --config.eval.path"
        return identity.require_own(self.run, self._images, others)

    @functools.cached_property
    def trained(self) -> train.Trained:
        """The best epoch of the run; of one without, the weights that its configuration names."""
        if not self.has_checkpoints and self.config.model.weights not in ("", train.RANDOM):
            self._take_weights()
        return train.load(self.run)

    @property
    def has_checkpoints(self) -> bool:
        """Whether a net was trained in the folder, or taken into it."""
        return train.has_checkpoints(self.run)

    @property
    def made_of_another(self) -> bool:
        """Whether `prune` or `lighten` made the run."""
        return any(self.run.has(record.FILE) for record in _MADE_OF_ANOTHER)

    @property
    def kinds(self) -> dict[str, int | None]:
        """What a net is tested on, each with the seed of its augmentation."""
        return {"clean": None, "augmented": self.config.seed}

    def watch(self, stage: str) -> None:
        """Write report.html anew while a stage is under way; '' for none."""
        if self.run.has("config.json"):
            # A file that was damaged before is told at the end, when nothing is lost by it.
            with contextlib.suppress(Exception):
                writing.watch(self.run, stage)

    def _take_weights(self) -> None:
        """Make the weights that the configuration names the run's own, before any training."""
        dataset, named = self.dataset, self.config.model.weights
        about = train.about(self.config)
        known = about.classes if about else None
        if known and known != dataset.classes:
            raise UserError(
                f"config.model.weights={named!r} is a net for {', '.join(known)}; "
                f"the images are of {', '.join(dataset.classes)}"
            )
        params = train.given_params(self.config, train.build(self.config))
        if missing := train.at_random(params):
            raise UserError(
                f"config.model.weights={named!r} has nothing for {', '.join(missing)}: "
                "train the net (--stages=train) before anything is told of it"
            )
        # Recorded with the images, the epochs that these ask for are settled from then on.
        if said := own_images.settle(self.config, len(dataset.splits["train"]), self.given):
            print(said, flush=True)
        cluster.on_first(lambda: identity.record(self.run, self.config, dataset))
        train.begin(self.config, self.run, dataset, params)
        print(f"The weights are those of {named}, as they are.", flush=True)
