"""A run that begins with given parameters instead of random ones or a file's, or once more."""

import jax
import ml_collections
import numpy as np

from rice_jax import data, lock
from rice_jax.records import HISTORY, DeadFiltersFile, EvaluationFile, FeatureMapsFile
from rice_jax.run import Run
from rice_jax.train import origin, state
from rice_jax.train.checkpoints import Checkpoint, Checkpoints, clear
from rice_jax.train.feed import data_mesh
from rice_jax.train.progress import Progress
from rice_jax.train.state import Params


def begin(
    config: ml_collections.ConfigDict, run: Run, dataset: data.Dataset, params: Params
) -> None:
    """Save `params` as the run's checkpoint before its first step.

    `load` gives them, and `train` goes on from them.

    Raises:
        UserError: the folder is in use or cannot be written, or a frozen path is no layer's.
    """
    fresh = jax.tree.map(np.asarray, state.create(params, config.train.frozen))
    with lock.hold(run):
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


def forget_measured(run: Run) -> None:
    """Remove what the run's folder tells of its weights: it is about to have others.

    Raises:
        UserError: that is not permitted.
    """
    for file in (EvaluationFile, DeadFiltersFile, FeatureMapsFile):
        run.remove(file.FILE)


def forget(run: Run) -> None:
    """Remove what the run has learned: its checkpoints and history.csv.

    Raises:
        UserError: the folder is in use, cannot be written, or has another program's checkpoints.
    """
    with lock.hold(run):
        clear(run.checkpoints)
        run.remove(HISTORY)
