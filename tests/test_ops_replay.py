"""A trace run by the package's operations: XLA's own values and gradients, whatever was traced."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from jax import lax

from rice_jax import models, ops, prune
from rice_jax.graph.trace import trace, variable_shapes
from rice_jax.prune import importance, probe

SHAPE = (2, 19, 17, 3)


def pool(x, window, strides=(1, 1, 1, 1), padding="VALID", **dilations):
    lowest = np.array(-np.inf if jnp.issubdtype(x.dtype, jnp.floating) else 0, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, window, strides, padding, **dilations)


class Convolutions(nn.Module):
    """Those that the package does itself, and those that it leaves to XLA."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), 2)(x))
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=8)(x))  # depthwise
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=2)(x))
        x = nn.relu(nn.Conv(8, (3, 2), kernel_dilation=(2, 1))(x))
        x = nn.relu(nn.ConvTranspose(6, (3, 3), (2, 2))(x))
        x = nn.relu(nn.Conv(6, (1, 1), (5, 5))(x))
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (6, 6, 3, 3))
        x = lax.conv_general_dilated(x.transpose(0, 3, 1, 2), kernel, (2, 2), "SAME")  # NCHW
        x = nn.relu(nn.Conv(5, (3, 3))(x.transpose(0, 2, 3, 1)))  # a map smaller than its window
        x = nn.Conv(4, (3,))(x.reshape(len(x), -1, 5))  # along one axis
        return nn.Dense(3)(x.mean(1))


class Pools(nn.Module):
    """The same of maxima."""

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.Conv(8, (3, 3))(x), (3, 3), (2, 2), "SAME")
        x = nn.max_pool(nn.Conv(8, (3, 3))(x), (2, 2), (1, 2))
        x = pool(x, (1, 1, 1, 2), (1, 1, 1, 2))  # of channels
        still = lax.stop_gradient(x)  # JAX has no gradient of the dilated
        x = (
            x[:, 2:]
            + pool(still, (1, 2, 2, 1), (1, 1, 1, 1), "SAME", window_dilation=(1, 2, 1, 1))[:, 2:]
        )
        x = x + pool(still, (1, 2, 2, 1), base_dilation=(1, 1, 2, 1))[:, 1:, : x.shape[2]]
        x = pool(x, (1, 2, 2, 1), padding=((0, 0), (0, 1), (1, 0), (0, 0)))
        x = x[:, :-1] + pool((x > 0).astype(jnp.int32), (1, 2, 1, 1))
        return nn.Dense(3)(x.max((1, 2)))


@pytest.mark.parametrize("make", [Convolutions, Pools])
def test_values_and_gradients_are_those_of_the_module(make):
    module, x = make(), prunable.images(1, SHAPE)
    variables = prunable.random_variables(variable_shapes(module, x.shape), 0)
    traced = trace(module, x.shape)

    def replayed(variables, x):
        return traced.evaluate(variables, x, traced.outputs, run=ops.replayed)[0]

    def scalar(function):
        return lambda variables, x: jnp.sum(jnp.sin(function(variables, x)))

    @jax.jit
    def both(variables, x):
        with ops.inference():
            alone = replayed(variables, x)
        gradients = [
            jax.grad(scalar(each), argnums=(0, 1))(variables, x)
            for each in (module.apply, replayed)
        ]
        return module.apply(variables, x), replayed(variables, x), alone, gradients

    expected, found, alone, gradients = both(variables, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5), *gradients)


IMAGES, LABELS = prunable.images(0, (4, 12, 12, 3)), np.array([0, 1, 2, 1])
BATCHES = [(IMAGES, LABELS)]


class Overlapping(nn.Module):
    """A pool with a large window and a map smaller than the window of its convolution."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))
        x = models.layers.MaxPool((3, 3), (6, 6), "SAME", name="pool")(x)
        return nn.Dense(3, name="head")(nn.relu(nn.Conv(4, (3, 3), name="conv2")(x)).max((1, 2)))


def judge(criterion):
    def judged(module, variables):
        graph = prune.dependencies(module, IMAGES.shape, batched=True)
        return importance.importance(criterion, importance.Evidence(graph, variables, BATCHES))

    return judged


def remove_dead(module, variables):
    return prune.prune(module, variables, BATCHES, drop="dead").certificate.max_abs_logit_difference


def compare(module, variables):
    return prune.certify((module, variables), (module, variables), BATCHES).images


TASKS = {
    "taylor": judge("taylor"),
    "apoz": judge("apoz"),
    "dead": remove_dead,
    "certificate": compare,
    "probe": lambda *net: [each.accuracy for each in probe.probe(*net, BATCHES, BATCHES)],
}


@pytest.mark.parametrize("task", TASKS)
def test_what_goes_over_many_images_goes_by_them(task, monkeypatch):
    """Where they are XLA's own nothing depends on the platform; what comes out is the same."""
    module = Overlapping()
    variables = prunable.random_variables(variable_shapes(module, IMAGES.shape), 3)
    with ops.plain():
        expected = TASKS[task](module, variables)
    chosen, choose = [], lax.platform_dependent
    monkeypatch.setattr(
        lax, "platform_dependent", lambda *a, **k: chosen.append(a) or choose(*a, **k)
    )
    found = TASKS[task](module, variables)
    assert chosen
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
