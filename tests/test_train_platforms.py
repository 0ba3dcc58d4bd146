"""What is lowered for a TPU or a GPU: XLA's own operations, and none of the CPU's loops."""

import collections
import re

import jax
import jax.export
import numpy as np
import pytest

from rice_jax import export, models, ops
from rice_jax.train import state
from rice_jax.train.feed import data_mesh
from rice_jax.train.step import eval_step, train_step

SIZE, EACH = 16, 4  # pixels of a side, images of a device
CONVOLUTIONS, POOLS = 4, 2  # of `final`
DEVICES = ("tpu", "cuda")


@pytest.fixture(scope="module")
def mesh():
    return data_mesh()


@pytest.fixture(scope="module")
def net():
    """`final` narrow, with its dropout, and the shapes of its state."""
    module = models.build("final", stages=((2,), (3, 2, 2)), dense=4)
    return module, state.shapes(module, (1, SIZE, SIZE, 3), ())


@pytest.fixture
def lowered(monkeypatch):
    """How often each operation stands in a program whose mesh's devices are of a platform."""
    part_size = ops.part_size
    monkeypatch.setattr(ops.parts, "_MEAN_MAP", 1)  # on a CPU each image is a part of its own

    def operations(trace, platform):
        monkeypatch.setattr(ops, "part_size", lambda *given: part_size(*given[:-1], platform))
        return counted(trace().lower(lowering_platforms=(platform,)).as_text())

    return operations


def counted(text):
    return collections.Counter(re.findall(r"\bstablehlo\.(\w+)", text))


def batch(mesh, side=SIZE):
    rows = EACH * mesh.size
    return {
        "image": jax.ShapeDtypeStruct((rows, side, side, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((rows,), np.int32),
        "weight": jax.ShapeDtypeStruct((rows,), np.float32),
        "signal": jax.ShapeDtypeStruct((mesh.size,), np.int32),
    }


@pytest.fixture
def training(net, mesh):
    """Traces a step with everything that it may have but a teacher."""
    module, shapes = net
    step = train_step(module, mesh, seed=0, augment=True, weight_decay=0.1)
    return lambda: jax.jit(step).trace(shapes, batch(mesh), np.int32(0), np.float32(0.1))


@pytest.fixture
def evaluation(net, mesh):
    """Traces a step on augmented images."""
    module, shapes = net
    step = eval_step(module, mesh, 5, augment_seed=0)
    return lambda: jax.jit(step).trace(shapes.params, batch(mesh), np.int32(0))


@pytest.mark.parametrize("platform", DEVICES)
def test_a_training_step_is_xla_s_own(training, lowered, platform):
    found = lowered(training, platform)
    # Forward, the gradient of each kernel, and of what each but the first was given.
    assert found["convolution"] == 3 * CONVOLUTIONS - 1
    assert found["select_and_scatter"] == POOLS
    assert not found["while"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", models.NETS)
@pytest.mark.parametrize("platform", DEVICES)
@pytest.mark.one_in(20)
def test_every_net_learns_by_what_xla_has_there(platform, name, dtype, mesh):
    module, side = models.build(name, dtype=dtype), 64
    step = train_step(module, mesh, seed=0, augment=True)
    start = state.shapes(module, (1, side, side, 3), ())
    traced = jax.jit(step).trace(start, batch(mesh, side), np.int32(0), np.float32(0.1))
    found = counted(traced.lower(lowering_platforms=(platform,)).as_text())
    assert not found["custom_call"]
    assert found["all_reduce"], "devices are to exchange what they learned"


@pytest.mark.parametrize("platform", DEVICES)
def test_an_evaluation_step_is_xla_s_own(evaluation, lowered, platform):
    found = lowered(evaluation, platform)
    assert found["convolution"] == CONVOLUTIONS
    assert found["reduce_window"] == POOLS
    assert not found["while"]


def test_a_cpu_s_steps_are_ours(training, evaluation, lowered):
    """What the two above would find if something of the CPU's were left."""
    found = lowered(training, "cpu")
    assert found["while"]
    assert not found["select_and_scatter"]
    assert lowered(evaluation, "cpu")["while"]


def test_an_export_holds_no_loop_for_any_platform(net):
    module, shapes = net
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.params)
    exported = jax.export.deserialize(bytearray(export.to_stablehlo(module, params, SIZE)))
    assert {"cpu", *DEVICES} <= set(exported.platforms)
    found = counted(exported.mlir_module())
    assert found["convolution"] >= CONVOLUTIONS  # for each platform, where JAX lowers them apart
    assert not found["while"]
