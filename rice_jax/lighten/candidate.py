"""A candidate of the search: a run's folder of its own, and what came of it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections

from rice_jax import config as configuration
from rice_jax import data, evaluate, nets, profile, records, train, zoo
from rice_jax.bar import Bar
from rice_jax.errors import NotFiniteError
from rice_jax.lighten import child, smaller
from rice_jax.lighten.moves import Lighter
from rice_jax.records import Candidate, StepFile
from rice_jax.run import Run
from rice_jax.train.origin import OF_A_MACHINE

MEASURES = ("flops", "params", "bytes", "latency")
"""FLOPs of one image from the whole image on (`study`), parameters, bytes that its layers read and
write, measured seconds of one image."""

_TURNS = 3
"""How often each net's latency is measured before the choice: others may have kept the machine
busy in one of them."""


@dataclasses.dataclass(frozen=True)
class Workshop:
    """What all candidates of a search have in common."""

    out: Run
    parent: Run
    whole: ml_collections.ConfigDict
    """The configuration of the net that is made lighter, with the settings of training."""
    dataset: data.Dataset
    measure: str

    def folder(self, name: str) -> Run:
        """Of a candidate; of the whole net the run's own."""
        return Run(self.out.path / "candidates" / name) if name else self.parent

    def result(self, name: str) -> Candidate | None:
        """What came of a candidate; None where it is not finished."""
        return records.read_if_there(self.folder(name), Candidate)

    def begun(self, name: str) -> bool:
        """Whether the candidate has begun to learn, from weights that its folder still has."""
        return child.begun(self.folder(name))

    def net(self, name: str) -> train.Trained:
        """A candidate, or the whole net, with this search's settings around its own widths."""
        net = train.load(self.folder(name))
        config = ml_collections.ConfigDict(self.whole.to_dict()).unlock()
        config.model = net.config.model
        config.train.frozen = net.config.train.frozen
        return dataclasses.replace(net, config=config.lock())

    def here(self, run: Run) -> ml_collections.ConfigDict:
        """A run's configuration, its images where they are now; it is tested on their test split.

        A search may have been begun elsewhere, and its run been trained with other test images.
        """
        config = configuration.from_json(configuration.read(run).config)
        with config.unlocked():
            for field in OF_A_MACHINE:
                config.data[field] = self.whole.data[field]
            config.eval.update(self.whole.eval, path="")
            self._find_teacher(config)
        return config

    def _find_teacher(self, config: ml_collections.ConfigDict) -> None:
        """Name a candidate's teacher as it is named now, maybe from another folder."""
        if configuration.same("train.teacher", config.train.teacher, self.whole.train.teacher):
            config.train.teacher = self.whole.train.teacher

    def begin(self, name: str, out_of: str, step: str, lighter: Lighter, epochs: int) -> None:
        """Make a candidate's folder, before it learns; what is left of an earlier try goes."""
        run = self.folder(name)
        run.path.rmtree(missing_ok=True)
        run.create()
        records.write(
            run,
            StepFile(name=name, out_of=out_of, step=step, removed=lighter.removed, why=lighter.why),
        )
        config = self.recipe(lighter.config, epochs)
        params = child.settled(config, lighter.params, self.dataset)
        child.begin(run, self.parent, config, params, self.dataset)

    def finish(self, name: str) -> Candidate:
        """Let a candidate learn, from where it stands, and measure it."""
        run = self.folder(name)
        trouble, accuracy = "", 0.0
        try:
            train.train(self.here(run), run, self.dataset)
        except NotFiniteError as error:
            trouble = str(error)
        net = train.load(run)
        if not trouble:
            accuracy = self.accuracy(net, "validation", "augmented")
        step = records.read(run, StepFile)
        found = Candidate(**vars(step), **self.costs(net), accuracy=accuracy, trouble=trouble)
        records.write(run, found)
        return found

    def recipe(self, config: ml_collections.ConfigDict, epochs: int) -> ml_collections.ConfigDict:
        """The configuration of a candidate that learns for so many epochs.

        The rate falls to 0 in them. Images are averaged to what the larger-eyed of the two nets,
        the candidate and its teacher, looks at, which is all that either would see of them. Where
        they are augmented the last quarter of the epochs has images of twice that size: what is
        averaged and turned then is less sharp than what is turned whole, as test images are. The
        best epoch is the best at what the search weighs, augmented validation images.
        """
        made = ml_collections.ConfigDict(config.to_dict()).unlock()
        made.train.schedule = "quick"
        made.train.validation_augmented = True
        configuration.set_epochs(made, epochs)
        side, eyes = made.data.image_size, self.eyes(config)
        made.train.quick.shrink = (side // eyes,)
        larger = epochs // 4 if config.train.augment and 2 * eyes <= side else 0
        if larger:
            made.train.quick.update(
                shrink=(side // eyes, side // (2 * eyes)), epochs=(epochs - larger, larger)
            )
        return made.lock()

    def eyes(self, config: ml_collections.ConfigDict) -> int:
        """Height and width of the images that a candidate learns from."""
        side, source = config.data.image_size, config.train.teacher
        own = smaller.looks_at(config)
        if not source or not config.train.distill.weight:
            return own
        if source.startswith(zoo.PREFIX):
            model = zoo.card(source.removeprefix(zoo.PREFIX)).model
        else:
            model = configuration.read(Run(source)).config["model"]
        return max(own, nets.averaged(side, model.get("grid", 0)))

    def accuracy(self, net: train.Trained, split: str, kind: str) -> float:
        """Share of a split's images that are right, 'clean' or 'augmented'."""
        measured = evaluate.evaluate(
            net.module,
            net.params,
            self.dataset.splits[split],
            classes=self.dataset.classes,
            image_size=self.whole.data.image_size,
            batch_size=self.whole.eval.batch_size,
            augment_seed=self.whole.seed if kind == "augmented" else None,
            limit=self.whole.train.validation_images if split == "validation" else 0,
            workers=self.whole.data.workers,
        )
        return measured.accuracy

    def costs(self, net: train.Trained) -> dict[str, Any]:
        """What a `Candidate` tells of them; latency only where the search goes by it."""
        counted = self._profile(net.config)
        costs = _by_measure(counted)
        if self.measure == "latency":
            costs["latency"] = self._latency(net)
        return {"costs": costs, "flops_complete": counted.complete}

    def latencies(self, names: Sequence[str]) -> dict[str, float]:
        """Seconds of one image by each of these nets, measured in turn: the least of `_TURNS`.

        Those that `costs` told are hours apart, each as fast as the machine was then.
        """
        found: dict[str, float] = {}
        for turn in range(1, _TURNS + 1):
            for number, name in enumerate(names, start=1):
                task = f"latency of net {number} of {len(names)}, turn {turn} of {_TURNS}"
                with Bar(f"measuring the {task}"):
                    seconds = self._latency(self.net(name))
                found[name] = min(seconds, found.get(name, seconds))
        return found

    def saves(self, lighter: Lighter, before: Candidate) -> bool:
        """Whether a net costs less than the one before it, as far as that can be counted."""
        counted = _by_measure(self._profile(lighter.config))
        measure = self.measure if self.measure in counted else "flops"
        return not lighter.removed or counted[measure] < before.costs[measure]

    def _latency(self, net: train.Trained) -> float:
        side = self.whole.data.image_size
        timed = profile.latency(
            net.module, {"params": net.params}, (side, side, 3), seconds=1.0, largest_batch=1
        )
        return timed["median"]

    def _profile(self, config: ml_collections.ConfigDict) -> profile.Profile:
        side = self.whole.data.image_size
        return profile.count(train.build(config), (side, side, 3))


def _by_measure(counted: profile.Profile) -> dict[str, float]:
    flops, traffic = counted.flops.study, counted.traffic.total
    return {"flops": flops, "params": counted.params, "bytes": traffic}
