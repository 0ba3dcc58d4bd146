"""What a search leaves: the chosen run, the front on the test split, lighten.json, a figure."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from rice_jax import config as configuration
from rice_jax import records, report, stages, train
from rice_jax.errors import UserError
from rice_jax.lighten import weighing
from rice_jax.lighten.candidate import Workshop
from rice_jax.records import (
    STEPS,
    Candidate,
    ConfigFile,
    EvaluationFile,
    LightenFile,
    OnTest,
    SearchRequest,
    StepFile,
)
from rice_jax.report import figures, numbers
from rice_jax.report.record import PARTS
from rice_jax.run import Run, is_partial


def finish(
    workshop: Workshop, content: LightenFile, points: Sequence[weighing.Point], floor: float
) -> None:
    """Choose among `points`, measure the front on the test split, and make the run of the choice.

    Args:
        workshop: the search's folders.
        content: what lighten.json holds of it so far.
        points: all candidates that could learn, the whole net first.
        floor: the accuracy that is wanted.

    Raises:
        UserError: nothing lighter has it; the candidates stay.
    """
    whole, *others = points
    lighter = [point for point in others if point.cost < whole.cost]  # measured ones may not be
    chosen = weighing.lightest(lighter, floor)
    if chosen is None:
        raise UserError(_nothing(workshop, points, lighter, content.request, floor))
    on, least = weighing.front(points), floor - content.request.slack
    names = [point.name for point in on]
    hopeful = [point.name for point in on if weighing.reaches(point.accuracy, least)]
    test = {name: _tested(workshop, name) for name in dict.fromkeys([*hopeful, chosen.name])}
    out = workshop.out
    _copy(workshop.folder(chosen.name), out)
    stages.run_stages(workshop.here(out), str(out), ["profile", "inspect"])
    finished = dataclasses.replace(
        content, front=names, chosen=chosen.name, test=test, finished=True
    )
    records.write(out, finished)
    show(workshop, finished)
    left = numbers.percent(chosen.cost / whole.cost, 1)
    print(
        f"chosen: {chosen.name}, with {left} of the whole net's "
        f"{workshop.measure} and {numbers.percent(chosen.accuracy)} of augmented validation images "
        f"right, {numbers.percent(test[chosen.name].augmented)} of augmented test images"
    )


def show(workshop: Workshop, content: LightenFile) -> None:
    """Draw what a finished search found, and write the report."""
    figure = figures.searched(
        content.candidates,
        front=content.front,
        chosen=content.chosen,
        measure=workshop.measure,
        floor=content.floor,
        title=f"{workshop.whole.model.name}: lighter nets",
        synthetic=workshop.dataset.synthetic,
    )
    workshop.out.write_bytes(figures.SEARCHED, figures.png(figure))
    report.write(workshop.out)


def _nothing(
    workshop: Workshop,
    points: Sequence[weighing.Point],
    lighter: Sequence[weighing.Point],
    request: SearchRequest,
    floor: float,
) -> str:
    """Why none of `points`, the whole net first, is chosen; `lighter` are those that cost less."""
    if not lighter:  # which no margin changes
        left = [step for step in STEPS if step not in request.steps]
        more = f"; the same --out goes on with more --steps ({', '.join(left)})" if left else ""
        whole, *others = points
        if not others:
            return f"no lighter net was made that could learn: what was tried says why{more}"
        near = min(others, key=lambda point: point.cost)
        share = numbers.percent(near.cost / whole.cost, 1)
        return (
            f"nothing that was made is lighter in {request.measure} than the run itself: "
            f"nearest is {workshop.folder(near.name)} with {share} of it{more}"
        )
    best = max(lighter, key=lambda point: point.accuracy)
    told = f"nothing lighter has {floor:.4f} of the augmented validation images right"
    told += f": nearest is {workshop.folder(best.name)} with {best.accuracy:.4f}"
    margin = "a wider --within" if request.at_least is None else "a lower --at_least"
    return f"{told}; the same --out goes on with {margin}, more --slack or --rounds"


def _tested(workshop: Workshop, name: str) -> OnTest:
    """Accuracies on the test split; nothing is written to the folder of the whole net.

    All are of images of the search's size, augmented as its seed draws: neither need be the run's.
    """
    run = workshop.folder(name)
    done = records.read_if_there(run, EvaluationFile)
    config, whole = configuration.from_json(configuration.read(run).config), workshop.whole
    alike = (config.seed, config.data.image_size) == (whole.seed, whole.data.image_size)
    if done is None or not alike or done.path != "test split" or not report.is_current(run):
        if not name:
            net = train.load(run)
            clean, augmented = (workshop.accuracy(net, "test", part) for part in PARTS)
            return OnTest(clean=clean, augmented=augmented)
        stages.run_stages(workshop.here(run), str(run), ["evaluate"])
        done = records.read(run, EvaluationFile)
    results = done.parts()
    return OnTest(clean=results["clean"].accuracy, augmented=results["augmented"].accuracy)


def _copy(run: Run, out: Run) -> None:
    """Make `out` the run: config.json last, with which it is one.

    A search that was stopped here and goes on with another margin may have chosen another before.
    """
    config = out.path / ConfigFile.FILE
    config.unlink(missing_ok=True)
    train.forget(out)
    for child in run.path.iterdir():
        if child.name not in (ConfigFile.FILE, Candidate.FILE, StepFile.FILE, ".lock"):
            _copy_into(child, out.path / child.name)
    out.write_bytes(ConfigFile.FILE, (run.path / ConfigFile.FILE).read_bytes())


def _copy_into(source: epath.Path, target: epath.Path) -> None:
    if is_partial(source.name):  # the candidate may have been killed at it
        return
    if not source.is_dir():
        Run(target.parent).write_bytes(target.name, source.read_bytes())
        return
    target.mkdir(parents=True, exist_ok=True)
    for child in source.iterdir():
        _copy_into(child, target / child.name)
