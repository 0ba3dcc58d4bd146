"""Checkpoints whose numbers tell which they are, written and read."""

import contextlib
import resource

import jax
import jax.numpy as jnp
from etils import epath

from rice_jax.train import state
from rice_jax.train.checkpoints import Checkpoint, Checkpoints
from rice_jax.train.feed import data_mesh
from rice_jax.train.progress import Progress

ORIGIN = {"config": {"seed": 0}, "classes": ["a", "b"], "fingerprint": "tiny"}


def make(step, best=0, epoch=0):
    """A checkpoint of step `step`; its numbers tell which it is."""
    params = {"conv1": {"kernel": jnp.arange(40.0) + step}, "head": {"bias": jnp.ones(2)}}
    made = state.create(params, ("head",)).replace(step=jnp.int32(step))
    progress = Progress(learning_rate=1e-3, step=step, epoch=epoch, best_checkpoint=best)
    return Checkpoint(state.replicate(made, data_mesh()), progress, ORIGIN)


def like(origin):
    assert origin == ORIGIN
    return state.replicated(jax.eval_shape(lambda: make(0).state), data_mesh())


def write(folder, *saved):
    checkpoints = Checkpoints(epath.Path(folder))
    for checkpoint in saved:
        checkpoints.save(checkpoint)
    checkpoints.close()


def read(folder, which="newest", **how):
    checkpoints = Checkpoints(epath.Path(folder), **how)
    try:
        return getattr(checkpoints, which)(like)
    finally:
        checkpoints.close()


def numbers(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


@contextlib.contextmanager
def limit_of(kind, limit):
    """Hold this process to a limit of the system's, one of `resource`'s kinds."""
    usual = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, usual)
