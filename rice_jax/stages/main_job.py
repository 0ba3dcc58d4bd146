"""The main job: stages in their order, in a run's folder that nobody else is at work in."""

import functools
import signal
import threading
from collections.abc import Collection, Sequence

import ml_collections

from rice_jax import cluster, first_run, identity, lock, own_images, records, train
from rice_jax import config as configuration
from rice_jax.bar import Bar
from rice_jax.errors import UserError
from rice_jax.report import writing
from rice_jax.run import Run
from rice_jax.stages import evaluate_stage, inspect_stage, profile_stage, train_stage
from rice_jax.stages.job import Job

STAGES = {
    "train": train_stage.stage,
    "evaluate": evaluate_stage.stage,
    "profile": profile_stage.stage,
    "inspect": inspect_stage.stage,
}


def run_stages(
    config: ml_collections.ConfigDict,
    workdir: str | None,
    stages: Sequence[str],
    given: Collection[str] = (),
    *,
    restart: bool | None = None,
) -> None:
    """Do the `stages` in their own order and write the report.

    Args:
        config: the run's; what it leaves open is settled by `first_run` and `own_images`.
        workdir: the run's folder, by default runs/NAME.
        stages: keys of `STAGES`.
        given: fields of the configuration that the user has set, as 'train.epochs'.
        restart: train anew; what the folder holds of a run goes when everything else is sound.
            None in a command that does not offer it.

    Raises:
        UserError: a mistake of the user's.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        raise UserError(f"--stages={','.join(stages)}: there are {', '.join(STAGES)}")
    configuration.check(config)
    if restart and "train" not in stages:
        raise UserError("--restart trains anew: leave it out, or have train among the --stages")
    chosen = [name for name in STAGES if name in stages]
    identity.require_one_command(config, stages=chosen, restart=bool(restart))
    train.require_sound(config)
    job = Job(Run(workdir or f"runs/{config.model.name}"), config, given, bool(restart))
    cluster.on_first(lambda: _refuse_strangers(job))
    with lock.hold(job.run):  # from before the first write to after the last
        _settle(job, stages, may_restart=restart is not None)
        try:
            for name in chosen:
                print(f"== {name} ==", flush=True)
                if not (job.restart and name == "train"):  # an older run is not what is under way
                    cluster.on_first(functools.partial(job.watch, name))
                STAGES[name](job)
            cluster.on_first(lambda: _report(job.run))
        except BaseException:  # the page would say for ever that it is under way
            if cluster.leads():
                _leave_at_rest(job)
            raise
    print(f"\nThe run is in {job.run}: read report.md or report.html there")


def _leave_at_rest(job: Job) -> None:
    """Write the page anew, whole, though a Ctrl-C comes again until its command has ended."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears it
        job.watch("")
        return
    usual = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        job.watch("")
    finally:
        signal.signal(signal.SIGINT, usual)


def _refuse_strangers(job: Job) -> None:
    """UserError where a run that begins would write over what is another's."""
    if not (job.run.has(records.ConfigFile.FILE) or job.has_checkpoints):
        identity.refuse_strangers(job.run, but=("checkpoints",))


def _settle(job: Job, stages: Sequence[str], *, may_restart: bool) -> None:
    """Decide what the configuration leaves open; UserError where the folder has another run."""
    config, run = job.config, job.run
    goes_on = _irreplaceable(job)
    if job.made_of_another and not job.has_checkpoints and set(stages) != {"profile"}:
        raise UserError(
            f"{run} was made out of another run, and its checkpoints, which alone held its "
            "weights, are gone: make it of that one again, in another folder"
        )
    if job.restart and goes_on:
        raise UserError(
            f"{run} begins with what was left of another run, which its checkpoints alone hold: "
            "make it of that one again, in another folder"
        )
    if may_restart and "train" in stages and not goes_on:
        job.instead = "give another --workdir, or --restart to train anew in that folder"
    if job.restart:
        identity.refuse_own_weights(run, config)
    saved = None if job.restart or not run.has("config.json") else configuration.read(run)
    given = {*job.given, *identity.unchanged(saved, config)}
    said = first_run.settle(config, given)
    if said and "train" in stages and not goes_on:  # it names no weights that are there alone
        print(said, flush=True)
    if saved:
        config.model.classes = saved.config["model"]["classes"]
        images = saved.data.images.get("train", 0) if saved.data else 0
        own_images.settle(config, images, given)
        if images:  # what they decide is decided, also where it is the usual
            job.given = given
        wanted = records.ConfigFile(config=configuration.to_json(config))
        identity.refuse_another(run, saved, wanted, job.instead)


def _irreplaceable(job: Job) -> bool:
    """Whether what a run began with is in its checkpoints alone: `prune` or `lighten` made it."""
    if job.made_of_another:
        return True
    try:
        named = configuration.read(job.run).config["model"]["weights"]
        return named in ("", train.RANDOM) and train.newest(job.run).progress.given
    except UserError:  # no run yet, or a damaged one
        return False


def _report(run: Run) -> None:
    with Bar("drawing the report"):
        writing.write(run)
