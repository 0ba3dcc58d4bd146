"""What is computed on the CPU on every machine says so where JAX has none."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from rice_jax import inspection, profile, prune
from rice_jax.errors import UserError
from rice_jax.prune import surgery

SHAPE = (4, 4, 1)


class Net(nn.Module):
    """Times its width and divided by it, so that what is cut has to be tried."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (1, 1), name="conv")(x)
        x = x * x.shape[-1] / x.shape[-1]
        return nn.Dense(2, name="head")(x.mean((1, 2)))


VARIABLES = {
    "params": {
        "conv": {"kernel": np.ones((1, 1, 1, 2), np.float32), "bias": np.ones(2, np.float32)},
        "head": {"kernel": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)},
    }
}


def cut(*, always=None):
    """The net without its first filter, which is 0 or `always` that."""
    graph = prune.dependencies(Net(), (1, *SHAPE))
    sizes = [each.equation.inputs[each.operand].shape[each.axis] for each in graph.contractions]
    constants = () if always is None else [np.full(size, always) for size in sizes]
    chosen = graph.select({"conv": [0]})
    return surgery.remove(Net(), VARIABLES, graph, chosen, constants=constants)


TASKS = {
    "XLA counts FLOPs": lambda: profile.count(Net(), SHAPE, measure_xla=True),
    "bounds are computed": lambda: inspection.map_bounds(Net(), VARIABLES, SHAPE),
    "nets are held against each other": cut,
    "constants are folded into biases": lambda: cut(always=1.0),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_machine_where_jax_has_no_cpu_is_told_what_to_do(task, monkeypatch):
    TASKS[task]()

    def no_cpu(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", no_cpu)
    with pytest.raises(UserError, match=f"^{task} on the CPU .*: add cpu to JAX_PLATFORMS$"):
        TASKS[task]()
