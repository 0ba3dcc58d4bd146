"""The steps as they are lowered for each platform, also those that are not at hand."""

import collections
import re

import jax
import numpy as np
import pytest

from rice_jax import models
from rice_jax.train import state
from rice_jax.train.feed import data_mesh
from rice_jax.train.step import eval_step, train_step

SIDE, IMAGES = 64, 4
ELSEWHERE = ("cuda", "tpu")


def given(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def batch():
    devices = data_mesh().size
    rows = IMAGES * devices
    return {
        "image": given(rows, SIDE, SIDE, 3, dtype=np.uint8),
        "label": given(rows, dtype=np.int32),
        "weight": given(rows),
        "signal": given(devices, dtype=np.int32),
    }


def operations(step, platform, *arguments):
    """How often each operation is in what XLA would be given."""
    lowered = jax.jit(step).trace(*arguments).lower(lowering_platforms=(platform,))
    return collections.Counter(re.findall(r"stablehlo\.(\w+)", lowered.as_text()))


def learning(name, platform, **fields):
    module = models.build(name, **fields)
    step = train_step(module, data_mesh(), seed=0, augment=True)
    start = state.shapes(module, (1, SIDE, SIDE, 3), ())
    return operations(step, platform, start, batch(), given(dtype=np.int32), given())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", models.NETS)
@pytest.mark.parametrize("platform", ELSEWHERE)
@pytest.mark.one_in(10)
def test_training_is_xlas_own_operations_where_it_is_not_on_a_cpu(platform, name, dtype):
    found = learning(name, platform, dtype=dtype)
    assert found["custom_call"] == 0, "XLA has none of a CPU's there"
    assert found["convolution"] > 0
    assert found["all_reduce"] > 0, "devices are to exchange what they learned"


@pytest.mark.parametrize("platform", ["cpu", *ELSEWHERE])
def test_a_pools_gradient_is_the_fast_one_of_its_platform(platform):
    scatters = learning("final", platform)["select_and_scatter"]
    assert scatters == (0 if platform == "cpu" else 2)


@pytest.mark.parametrize("name", models.NETS)
@pytest.mark.parametrize("platform", ELSEWHERE)
@pytest.mark.one_in(5)
def test_evaluation_is_xlas_own_operations_where_it_is_not_on_a_cpu(platform, name):
    module = models.build(name)
    params = state.shapes(module, (1, SIDE, SIDE, 3), ()).params
    step = eval_step(module, data_mesh(), 5, augment_seed=0)
    found = operations(step, platform, params, batch(), given(dtype=np.int32))
    assert found["custom_call"] == 0
    assert found["convolution"] > 0
