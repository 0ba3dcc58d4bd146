"""The study's nets trained one after the other, and compared."""

import dataclasses
import traceback
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import ml_collections

from rice_jax import config as configuration
from rice_jax import data, first_run, identity, models, own_images, profile, records, report, train
from rice_jax.errors import UserError, line, tell
from rice_jax.report import comparison, numbers
from rice_jax.run import Run
from rice_jax.stages import STAGES, run_stages
from rice_jax.train import schedule
from rice_jax.train.origin import decided
from rice_jax.train.prepared import load_images

_LAST = records.DeadFiltersFile.FILE
"""What is written last but for the report."""


@dataclasses.dataclass
class Plan:
    """A net's run before it is made."""

    config: ml_collections.ConfigDict
    given: Collection[str]
    """Fields of it that the user has set."""
    run: Run
    finished: bool
    hours: float = 0.0
    """Of training that are to come at most."""

    @property
    def name(self) -> str:
        """The net's."""
        return self.config.model.name


def reproduce(
    config: ml_collections.ConfigDict,
    fields: Mapping[str, Any],
    names: Sequence[str],
    out: str,
    imagenet: str = "",
    *,
    estimate_only: bool = False,
) -> None:
    """Make the runs of nets in the folders OUT/NAME, and compare them in OUT/comparison.

    Args:
        config: what the configurations of all nets have in common; says which images.
        fields: those to be set for all nets, as {'train.epochs': 2}.
        names: keys of `models.NETS`; none for the study's that can be trained.
        out: folder of the runs.
        imagenet: Keras's .h5 of VGG16, for the nets that start from it.
        estimate_only: only say how long it would take.

    Raises:
        UserError: images or settings that will not do, a folder that cannot be made or that holds
            another run, or a net failed.
    """
    dataset = load_images(config)
    chosen = list(dict.fromkeys(names)) or trainable(imagenet)
    plans = [plan(name, out, fields, dataset, weights=imagenet) for name in chosen]
    unfinished = [each for each in plans if not each.finished]
    for each in unfinished:  # before minutes of measuring, and hours of training the others
        identity.require_same(each.run, each.config, dataset)
    if not estimate_only:
        for each in unfinished:
            each.run.require_place()
        comparison.require_place([str(each.run) for each in plans], _compared_in(out))
    estimate(plans, dataset)
    if not estimate_only:
        print("Ctrl-C stops; the same command goes on.", flush=True)
        make(plans, out)


def trainable(imagenet: str) -> list[str]:
    """The nets that can be trained; says which cannot where no ImageNet weights are given."""
    studied = profile.study.REPORTED
    waiting = [name for name in studied if models.get(name).needs_weights and not imagenet]
    if waiting:
        print(f"Without --imagenet=FILE, their weights, these are left out: {', '.join(waiting)}")
    return [name for name in studied if name not in waiting]


def plan(
    name: str, out: str, fields: Mapping[str, Any], dataset: data.Dataset, *, weights: str = ""
) -> Plan:
    """What is left to do of the net called `name`, whose run is the folder of that name in `out`.

    Args:
        name: a key of `models.NETS`.
        out: folder of all runs.
        fields: of the configuration, as {'train.epochs': 2}, instead of the study's recipe.
        dataset: the images.
        weights: Keras's .h5, for a net that starts from one.

    Raises:
        UserError: an unknown net, a field that changes nothing in its training, or a net that
            starts from trained weights and has none.
    """
    needs_weights = models.get(name).needs_weights
    config = configuration.default(name)
    config.update_from_flattened_dict(fields)
    config.model.update(weights=weights if needs_weights else "", classes=len(dataset.classes))
    configuration.check(config)
    if idle := configuration.idle(config, fields):
        raise UserError(f"{name}: --config.{idle}")
    first_run.settle(config, fields)
    if needs_weights and not config.model.weights:
        raise UserError(
            f"{name} starts from trained weights: give --imagenet=FILE, Keras's .h5 of VGG16"
        )
    if said := own_images.settle(config, len(dataset.splits["train"]), fields):
        print(f"{name}: {said}")
    run = Run(f"{out}/{name}")
    return Plan(config, list(fields), run, finished=_finished(run, config, dataset))


def _finished(run: Run, config: ml_collections.ConfigDict, dataset: data.Dataset) -> bool:
    """Whether all was done and told after the run was last begun, and with the same settings."""
    begun, ended = records.ConfigFile.FILE, _LAST
    if not all(run.has(name) for name in (begun, records.FeatureMapsFile.FILE, ended)):
        return False
    saved = configuration.read(run)
    return (
        run.written(begun) <= run.written(ended)
        and report.is_current(run)
        and decided(saved.config) == decided(configuration.to_json(config))
        and saved.data is not None
        and saved.data.fingerprint == dataset.fingerprint
    )


def estimate(plans: Sequence[Plan], dataset: data.Dataset) -> None:
    """Measure a few training steps of each net, and print and note the hours that are to come.

    They are a bound for nets that learn: patience may end a training sooner, and images to validate
    on, which take less time, are counted as if they were learnt from. One that rests at chance
    begins again.
    """
    available, others = (len(dataset.splits[name]) for name in ("train", "validation"))
    print(f"{'net':<18}{'images/s':>10}{'epochs at most':>16}{'hours at most':>15}", flush=True)
    for each in plans:
        whole = each.config.data.image_size
        sizes = train.image_sizes(each.config)[_epochs_done(each.run) :]
        epochs = len(sizes)
        if each.finished or not epochs:
            print(f"{each.name:<18}  {'finished' if each.finished else 'trained'}", flush=True)
            continue
        speed = train.images_per_second(each.config, dataset)
        images = schedule.images(each.config.train, available)
        looked_at = schedule.validation_images(each.config.train, others)
        learnt = sum((size / whole) ** 2 for size in sizes) * images
        each.hours = (learnt + epochs * looked_at) / speed / 3600
        print(f"{each.name:<18}{speed:>10.1f}{epochs:>16}{_hours(each.hours)}", flush=True)
    print(f"{'together':<44}{_hours(sum(each.hours for each in plans))}")
    again = any(each.config.train.on_collapse == "restart" for each in plans if each.hours)
    tries = ", and tries of nets that rest at chance and begin again" if again else ""
    print(f"Evaluation, profile and inspection come on top{tries}.", flush=True)


def _hours(hours: float) -> str:
    return numbers.decimal(hours, 2).rjust(15)


def _epochs_done(run: Run) -> int:
    """By its history; 0 where that is damaged, which the training writes anew."""
    try:
        return len(records.read_history(run))
    except UserError:
        return 0


def make(plans: Sequence[Plan], out: str) -> None:
    """Make the runs that are not finished, the quickest first; compare all in OUT/comparison.

    Raises:
        UserError: after the comparison, where a net failed.
    """
    failed = []
    for each in sorted(plans, key=lambda each: each.hours):
        print(f"\n=== {each.name} ===", flush=True)
        if each.finished:
            print(f"{each.run} is finished")
        elif not _made(each):
            failed.append(each.name)
    runs = [str(each.run) for each in plans if each.name not in failed]
    if runs:
        target = _compared_in(out)
        chosen = comparison.compare(runs, target)
        print(f"\nTake {chosen}." if chosen else "\nNo net is recommended: the page says why.")
        print(f"The comparison is in {target}: read report.md or report.html there.")
    if failed:
        raise UserError(f"{', '.join(failed)} failed: see above; the same command tries again")


def _compared_in(out: str) -> str:
    return f"{out}/comparison"


def _made(plan: Plan) -> bool:
    """Whether the run came to its end; whatever goes wrong is told and must not stop the others."""
    try:
        run_stages(plan.config, str(plan.run), list(STAGES), plan.given)
    except (UserError, OSError, jax.errors.JaxRuntimeError) as error:
        tell(f"{plan.name}: {line(error)}")
        return False
    except Exception:
        traceback.print_exc()
        return False
    return True
