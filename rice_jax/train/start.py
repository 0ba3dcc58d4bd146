"""A run that begins with given parameters instead of random ones or a file's, or once more."""

import os

import ml_collections

from rice_jax import cluster, data, lock
from rice_jax.errors import UserError
from rice_jax.records import (
    HISTORY,
    DeadFiltersFile,
    EvaluationFile,
    FeatureMapsFile,
    SummaryFile,
)
from rice_jax.run import Run
from rice_jax.train import board, origin, state, weights
from rice_jax.train.checkpoint_folder import clear
from rice_jax.train.checkpoints import Checkpoint, Checkpoints
from rice_jax.train.feed import data_mesh
from rice_jax.train.progress import Progress
from rice_jax.train.state import Params

_OF_WEIGHTS = (
    *(EvaluationFile.FILE, DeadFiltersFile.FILE, FeatureMapsFile.FILE, SummaryFile.FILE),
    *("confusion_matrix_clean.png", "confusion_matrix_augmented.png", "dead_filters.png"),
    "report.md",
)
"""What tells of a run's weights, the report among it; report.html is written as it learns."""
_MAPS = "feature_maps"
"""The folder of the pictures of them, which tell of its weights too."""


def begin(
    config: ml_collections.ConfigDict, run: Run, dataset: data.Dataset, params: Params
) -> None:
    """Save `params` as the run's checkpoint before its first step.

    `load` gives them once the run has a config.json, and `train` goes on from them.

    Raises:
        UserError: parameters of another net than `config` names, a frozen path that is no layer's,
            a folder that has checkpoints already, is in use or cannot be written.
    """
    weights.require_of_the_net(config, params)
    if missing := weights.at_random(params):
        raise UserError(f"there are no parameters for {', '.join(missing)}, but shapes alone")
    fresh = state.fresh(params, config.train.frozen)
    with lock.hold(run):
        if _numbered(run):  # the newest of them would be what is loaded
            raise UserError(f"{run} has checkpoints already: `forget` it, or give another folder")
        checkpoints = Checkpoints(run.checkpoints)
        try:
            checkpoints.save(
                Checkpoint(
                    state.replicate(fresh, data_mesh()),
                    Progress(learning_rate=config.train.learning_rate, given=True),
                    origin.describe(config, dataset),
                )
            )
            checkpoints.wait()
        finally:
            checkpoints.close()


def has_checkpoints(run: Run) -> bool:
    """Whether a net was trained in the run's folder, or taken into it."""
    return bool(_numbered(run))


def _numbered(run: Run) -> list[str]:
    """Names of the run's checkpoints, damaged ones too."""
    folder = run.checkpoints
    found = folder.iterdir() if folder.exists() else ()
    return sorted(path.name for path in found if path.name.isdecimal())


def require_same_checkpoints(run: Run) -> None:
    """UserError on every process of a job where not all see the run's checkpoints alike."""

    if not cluster.see_the_same(lambda: str(_numbered(run))):
        raise UserError(
            f"the processes of the job do not see the same checkpoints in {run}: wait until the "
            "disk that they share shows them to all, then give the same command"
        )


def forget_measured(run: Run) -> None:
    """Remove what the run's folder tells of its weights: it is about to have others.

    Raises:
        UserError: that is not permitted.
    """
    for name in (*_OF_WEIGHTS, *_pictures_of_maps(run)):
        run.remove(name)


def _pictures_of_maps(run: Run) -> list[str]:
    """Names of the pictures of feature maps: another net would not draw over all of them."""
    folder = run.path / _MAPS
    if os.path.islink(folder):  # through which none is written
        return []
    return [f"{_MAPS}/{picture.name}" for picture in folder.glob("*.png")]


def forget(run: Run) -> None:
    """Remove what the run has learned, and what tells of it: checkpoints, history.csv, event files.

    Raises:
        UserError: the folder is in use, cannot be written, or has another program's checkpoints.
    """
    with lock.hold(run):
        clear(run.checkpoints)
        forget_measured(run)
        board.clear(run)
        for name in (HISTORY, "curves.png"):
            run.remove(name)
