"""The lightest net within a margin of a trained one's accuracy: a search that keeps a front."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ml_collections

from rice_jax import config as configuration
from rice_jax import identity, lock, records, report, train
from rice_jax.errors import UserError
from rice_jax.lighten import asked, outcome, weighing
from rice_jax.lighten.candidate import Workshop
from rice_jax.lighten.child import for_the_net_of, if_moved, require_its_weights
from rice_jax.lighten.few_images import settled
from rice_jax.lighten.forecast import forecast
from rice_jax.lighten.moves import MOVES, Judge, Lighter, longer
from rice_jax.records import (
    MOST_CANDIDATES,
    Candidate,
    ConfigFile,
    Forecast,
    LearntFrom,
    LightenFile,
    SearchRequest,
    Taken,
)
from rice_jax.report import numbers
from rice_jax.run import Run
from rice_jax.train import schedule
from rice_jax.train.origin import changes
from rice_jax.train.prepared import Images


def search(
    request: SearchRequest,
    config: ml_collections.ConfigDict,
    parent: Run,
    out: Run,
    given: Collection[str] = (),
    *,
    estimate_only: bool = False,
) -> None:
    """Make the lightest run within the margin of the one in `parent`, in `out`.

    Each candidate is a run's folder in `out`/candidates: a search that was stopped goes on where it
    stood, and ends as if it never had been. The test split is looked at once, when the front is
    known, and for the front alone.

    Args:
        request: how far to go.
        config: the run's, with the settings of its candidates' training.
        parent: the trained run.
        out: the lighter run's folder.
        given: fields of the request that the user has set: few images change the other epochs.
        estimate_only: only say what it will take.

    Raises:
        UserError: a request of what there is not, a run without training, images or classes that
            are not its own, a folder that holds something else, or nothing lighter within the
            margin: what came nearest is told.
    """
    asked.require_search(request)
    request = dataclasses.replace(request, parent=str(parent))
    most = 1 + sum(request.candidates()) + request.longest()
    if most > MOST_CANDIDATES:
        raise UserError(
            f"--rounds and --beam allow {most:,} candidates: up to {MOST_CANDIDATES:,} are tried"
        )
    writes = not (estimate_only or _told(out))
    with lock.hold(out) if writes else contextlib.nullcontext():  # before what takes long
        _search(request, config, parent, out, given, estimate_only)


def _told(out: Run) -> bool:
    """Whether the folder's search is at its end and its report whole: it may be read-only then."""
    saved = records.read_if_there(out, LightenFile)
    return bool(saved and saved.finished) and report.is_current(out)


def _search(
    request: SearchRequest,
    config: ml_collections.ConfigDict,
    parent: Run,
    out: Run,
    given: Collection[str],
    estimate_only: bool,
) -> None:
    trained = train.load(parent)
    config = for_the_net_of(parent, config)
    dataset = identity.load_own(config, parent)
    request, said = settled(request, dataset, config.train.batch_size, given)
    workshop = Workshop(out, parent, config, dataset, request.measure)
    saved = _own_search(request, workshop, trained)
    train.check(workshop.recipe(config, request.epochs), dataset, out, anew=True)
    if saved and saved.finished and not estimate_only:
        if not report.is_current(out):
            outcome.show(workshop, saved)
        print(f"{out} is finished: {saved.chosen} was chosen; read {out.path / 'report.md'}")
        return
    if said:
        print(said, flush=True)
    expected = forecast(request, workshop, saved.forecast if saved else None)
    print(expected, flush=True)
    if estimate_only:
        return
    print("Ctrl-C stops; the same command goes on.", flush=True)
    found = _Search(request, workshop, trained, expected)
    found.try_lighter()
    found.train_longer()
    found.measure_in_turn()
    outcome.finish(workshop, found.content(), found.points(), found.floor)


_LONGEST_NAME = 255
"""Letters of a folder's name, as file systems have it."""


class _Search:
    """The candidates that there are, and what is tried next."""

    def __init__(
        self, request: SearchRequest, workshop: Workshop, trained: train.Trained, expected: Forecast
    ) -> None:
        self._request, self._workshop, self._expected = request, workshop, expected
        self._weights = trained.digest
        self._tried: dict[str, Candidate] = {}
        self._note(self._whole(trained))
        self.floor = request.floor(self._tried[""].accuracy)
        self._write()

    def try_lighter(self) -> None:
        """Each kind of step on the whole net; round by round on the most hopeful of the front."""
        done: set[str] = set()
        least, beam = self.floor - self._request.slack, self._request.beam
        for number in range(self._request.rounds):
            hopeful = weighing.to_lighten(self.points(), done, least, beam)
            for point in hopeful if number else self.points():
                done.add(point.name)
                for step in self._request.steps:
                    self._try(point.name, step, functools.partial(self._lighter, step))

    def train_longer(self) -> None:
        """Train nets near to what is wanted for more epochs, until one does not get there."""
        hopeful = weighing.to_train(self.points(), self.floor, self.floor - self._request.slack)
        for point in hopeful[: self._request.longest()]:
            found = self._try(point.name, "longer", longer, self._request.final_epochs)
            if found is None or not weighing.reaches(found.accuracy, self.floor):
                return

    def measure_in_turn(self) -> None:
        """Measure the latencies that the choice is made by, where it is, one after the other.

        No file has them before the search is finished: until then it goes on by those of before,
        as if it had never been stopped.
        """
        if self._request.measure != "latency":
            return
        measured = self._workshop.latencies([point.name for point in self.points()])
        print("latencies, measured in turn, of each the least:", flush=True)
        for name, seconds in measured.items():
            tried = self._tried[name]
            costs = {**tried.costs, "latency": seconds}
            self._tried[name] = dataclasses.replace(tried, costs=costs)
            print(f"{name or 'the run itself'}: {numbers.seconds(seconds)}", flush=True)

    def points(self) -> list[weighing.Point]:
        """All candidates as they are weighed, the whole net first; none that could not learn."""
        measure = self._request.measure
        learnt = (candidate for candidate in self._tried.values() if not candidate.trouble)
        return [weighing.Point.of(candidate, measure) for candidate in learnt]

    def content(self) -> LightenFile:
        """What lighten.json holds of a search that is not finished."""
        recipe, splits = self._workshop.whole.train, self._workshop.dataset.splits
        return LightenFile(
            request=self._request,
            weights=self._weights,
            config=configuration.to_json(self._workshop.whole),
            synthetic=self._workshop.dataset.synthetic,
            images=LearntFrom(
                train=schedule.images(recipe, len(splits["train"])),
                validation=schedule.validation_images(recipe, len(splits["validation"])),
            ),
            forecast=self._expected,
            floor=self.floor,
            candidates=list(self._tried.values()),
            front=[point.name for point in weighing.front(self.points())],
            finished=False,
        )

    def _whole(self, trained: train.Trained) -> Candidate:
        """The run itself, measured once."""
        out = self._workshop.out
        if saved := records.read_if_there(out, LightenFile):
            return saved.candidates[0]
        print("=== the run itself ===", flush=True)
        accuracy = self._workshop.accuracy(trained, "validation", "augmented")
        costs = self._workshop.costs(trained)
        return Candidate(
            name="",
            out_of=None,
            step=None,
            removed=Taken(),
            why="",
            accuracy=accuracy,
            **costs,
        )

    def _try(
        self,
        out_of: str,
        step: str,
        make: Callable[[train.Trained], Lighter | str],
        epochs: int = 0,
    ) -> Candidate | None:
        """What comes of a step; None where it cannot be taken, or makes nothing lighter."""
        workshop = self._workshop
        name = f"{out_of}-{step}".lstrip("-")
        if len(name) > _LONGEST_NAME:
            print(f"{step}, out of {out_of}: its folder's name would be too long", flush=True)
            return None
        number = f"candidate {len(self._tried)} of at most {self._expected.candidates}"
        print(f"=== {number}: {step}, out of {out_of or 'the run itself'} ===", flush=True)
        found = workshop.result(name)
        if found is None:
            if not workshop.begun(name):
                lighter = make(workshop.net(out_of))
                if isinstance(lighter, Lighter) and workshop.saves(lighter, self._tried[out_of]):
                    self._require_there()
                    workshop.begin(
                        name, out_of, step, lighter, epochs=epochs or self._request.epochs
                    )
                else:
                    why = "it would save nothing" if isinstance(lighter, Lighter) else lighter
                    print(f"{step}: there is nothing to take: {why}", flush=True)
                    return None
            found = workshop.finish(name)
        self._note(found)
        self._write()
        return found

    def _require_there(self) -> None:
        """UserError where the search's folder is gone: a candidate's would bring it back, free."""
        out = self._workshop.out
        if not out.has(LightenFile.FILE):
            raise UserError(f"{out} was removed while the search was at work: nothing is left")

    def _lighter(self, step: str, net: train.Trained) -> Lighter | str:
        return MOVES[step](net, self._judge(net))

    def _judge(self, net: train.Trained) -> Judge:
        source = self._workshop.dataset.splits["train"]
        request = self._request
        few = request.judge_images
        images = Images(net.config, source, ("augmented",), limit=few, task="judging")
        measure = "params" if request.measure == "params" else "study"
        return Judge(images, request.share, measure, request.criterion, request.round_to)

    def _note(self, found: Candidate) -> None:
        self._tried[found.name] = found
        on = found.name in {point.name for point in weighing.front(self.points())}
        told = found.trouble or (
            f"{numbers.percent(found.accuracy)} of augmented validation images right"
            f"{', on the front' if on else ''}"
        )
        costs = ", ".join(
            f"{numbers.cost(name, number, complete=found.flops_complete)} {name}"
            for name, number in found.costs.items()
        )
        print(f"{found.name or 'the run itself'}: {costs}; {told}", flush=True)

    def _write(self) -> None:
        records.write(self._workshop.out, self.content())


def _own_search(
    request: SearchRequest, workshop: Workshop, trained: train.Trained
) -> LightenFile | None:
    """What lighten.json holds of this search, where it has begun.

    Raises:
        UserError: a folder that holds another search, or one of the run with other weights, or a
            run that none made.
    """
    out, parent = workshop.out, workshop.parent
    if out.is_at(parent.path):
        raise UserError(f"--out={out} is the run itself: give another folder")
    saved = records.read_if_there(out, LightenFile)
    if saved is None:
        if out.has(ConfigFile.FILE):
            raise UserError(f"{out} holds a run that no search made: give another --out")
        identity.refuse_strangers(out)
        return None
    name = request.differs(saved.request, finished=saved.finished)
    if name:
        before, now = (getattr(each, name) for each in (saved.request, request))
        raise UserError(
            f"{out} holds a search with {name}={before}, not {now}: give the same, or another --out"
            f"{if_moved(name, saved.request.parent)}"
        )
    require_its_weights(out, saved.weights, parent, trained)
    if mistake := configuration.mistake(saved.config):
        raise UserError(f"{out.path / LightenFile.FILE} is damaged: {mistake}")
    whole = configuration.to_json(workshop.whole)
    for path, before, now in changes(*map(_as_candidates_learn, (saved.config, whole))):
        raise UserError(
            f"{out} holds a search with config.{path}={before!r}, not {now!r}: give the same, or "
            "another --out"
        )
    return saved


def _as_candidates_learn(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in JSON with the schedule that candidates learn by, whatever the run did."""
    return {**config, "train": {**config.get("train", {}), "schedule": schedule.QUICK}}
