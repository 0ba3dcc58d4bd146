"""The runs to compare: read, and gathered by net, so that several seeds of one are one."""

import dataclasses
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rice_jax import config as configuration
from rice_jax import nets
from rice_jax.errors import UserError
from rice_jax.files import resolved, same_place
from rice_jax.records import SummaryFile, plain
from rice_jax.report.comparison.measures import MEASURES
from rice_jax.report.record import Record, load, load_file, summarize
from rice_jax.run import Run

_NO_PART = ("train.on_collapse", "train.save_seconds", "train.tensorboard")
"""Fields of config.train that change nothing in what a net learns."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """A measure over the runs of a net."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Their sample standard deviation; None for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Compared:
    """One run, or one exported file."""

    run: Run
    record: Record
    summary: SummaryFile

    @property
    def name(self) -> str:
        """Name of the net, with ', pruned' where filters were removed; of a file its kind."""
        if self.record.file is not None:
            kind = self.run.path.suffix
            return f"{self.record.model}, {self.record.file.precision} {kind}"
        return self.record.model + (", pruned" if self.record.prune is not None else "")

    @property
    def test(self) -> str | None:
        """By which tests are compared; None where it was not evaluated."""
        return self.record.evaluation.test if self.record.evaluation else None


@dataclasses.dataclass(frozen=True)
class NetRuns:
    """All runs of one net by one recipe on the same images, whatever their seeds."""

    label: str
    entries: tuple[Compared, ...]

    @property
    def is_final(self) -> bool:
        """Whether it is the net that the study ends with."""
        return self.entries[0].name == "final"

    @property
    def summary(self) -> SummaryFile:
        """The first run's summary, for the study's figures, which are the same in all."""
        return self.entries[0].summary

    @property
    def complete(self) -> bool:
        """Whether the FLOPs of all its runs lack nothing."""
        return all(entry.summary.flops_complete for entry in self.entries)

    @property
    def at_chance(self) -> bool:
        """Whether one of its runs answers no better than by one guess a class."""
        return any(_at_chance(entry.record) for entry in self.entries)

    def spread(self, measure: str) -> Spread | None:
        """A measure over the runs that have it; None where none has."""
        found = (MEASURES[measure].read(entry.summary) for entry in self.entries)
        values = tuple(float(x) for x in found if x is not None and math.isfinite(x))
        return Spread(values) if values else None

    def mean(self, measure: str) -> float | None:
        """The mean of a measure over the runs that have it."""
        spread = self.spread(measure)
        return None if spread is None else spread.mean


def read(workdirs: Sequence[str], files: Sequence[str] = ()) -> list[NetRuns]:
    """The nets of the runs in `workdirs` and of exported files, the best on augmented images first.

    Raises:
        UserError: nothing given, or something twice, a folder that is no run's, a file without
            its JSON, or a damaged one.
    """
    if not workdirs and not files:
        raise UserError("no run to compare: give --workdirs=DIR,DIR2,...")
    given = Counter(map(resolved, [*workdirs, *files]))
    twice = [path for path, times in given.items() if times > 1]
    if twice:
        raise UserError(f"{twice[0]} is given twice: give each run once")
    groups: dict[str, list[Compared]] = {}
    for entry in (*map(_run, workdirs), *map(_file, files)):
        groups.setdefault(_recipe(entry), []).append(entry)
    nets = [
        NetRuns(label, tuple(entries))
        for label, entries in zip(_labels(list(groups.values())), groups.values(), strict=True)
    ]
    return sorted(nets, key=lambda net: -(net.mean("augmented_accuracy") or 0.0))


def _run(folder: str) -> Compared:
    return _entry(Run(folder), load(Run(folder)))


def _file(path: str) -> Compared:
    return _entry(Run(path), load_file(path))


def _entry(run: Run, record: Record) -> Compared:
    return Compared(run, record, summarize(record))


def _recipe(entry: Compared) -> str:
    """What the runs of one net have in common: all but the seed and where things lie."""
    images, config = entry.record.data, configuration.filled(entry.record.config.config)
    net = {name: value for name, value in config.items() if name.startswith("model.")}
    pruned = entry.record.prune and dataclasses.replace(entry.record.prune.request, parent="")
    learning = _learning(entry.record, config)
    common: list[Any] = [entry.name, net, learning, images and images.fingerprint]
    common += [entry.record.file and entry.record.file.file, pruned and plain(pruned)]
    common += [config["data.image_size"], entry.test]
    return json.dumps(common, sort_keys=True)


def _learning(record: Record, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of config.train that have a part in what it learns, by their names.

    The net that it was made out of is as little told by its folder as where it is the teacher.
    """
    recipe = {name: config[name] for name in config if name.startswith("train.")}
    told = {name.removeprefix("train."): value for name, value in recipe.items()}
    recipe["train.initializer"] = nets.initializer(record.model, told)
    teacher = told["teacher"]
    decisive = configuration.from_json(
        {"train": {"schedule": told["schedule"], "teacher": teacher}}
    )
    if teacher and record.prune and same_place(record.prune.request.parent, teacher):
        recipe["train.teacher"] = "the whole net"
    return {
        name: value
        for name, value in recipe.items()
        if name not in _NO_PART and not configuration.idle(decisive, [name])
    }


def _labels(groups: Sequence[Sequence[Compared]]) -> list[str]:
    """The net's name, its folder's or its whole path beside it where names are shared."""
    names = [entries[0].name for entries in groups]
    folders = [entries[0].run.path.name for entries in groups]
    labels = [
        name if names.count(name) == 1 else f"{name} ({folder})"
        for name, folder in zip(names, folders, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{entries[0].name} ({entries[0].run})"
        for label, entries in zip(labels, groups, strict=True)
    ]


def _at_chance(record: Record) -> bool:
    """Whether the clean test's accuracy is within two standard errors of one guess a class."""
    clean = record.results.get("clean")
    if not clean:
        return False
    chance = 1 / len(clean.per_class)
    error = math.sqrt(chance * (1 - chance) / clean.images)
    return clean.accuracy <= chance + 2 * error


def listed(names: Iterable[str]) -> str:
    """Names one after the other; of nets as 'final, pruned', which have commas, by semicolons."""
    names = list(names)
    return ("; " if any("," in name for name in names) else ", ").join(names)
