"""An inception where it is run has its 1x1 convolutions of one map as one; looked at, not."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rice_jax import models, ops
from rice_jax.models.googlenet import Inception


def inferring():
    stack = contextlib.ExitStack()
    stack.enter_context(ops.inference())
    stack.enter_context(ops.joined())
    return stack


WAYS = pytest.mark.parametrize("way", [ops.joined, inferring])


def drawn(*shape):
    return jax.random.normal(jax.random.key(len(shape)), shape)


def filled(module, x):
    """Variables of the module for x, biases drawn too."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: drawn(*leaf.shape) / 3, shapes)


def same(got, expected, close):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=close, atol=close), got, expected
    )


def convolutions(function, *args):
    """How many of them, traced anew."""
    return str(jax.make_jaxpr(lambda *args: function(*args))(*args)).count("conv_general_dilated[")


@WAYS
@pytest.mark.parametrize(
    ("widths", "as_written", "run"),
    [
        ((4, 3, 5, 2, 6, 3), 6, 4),  # of 1x1, 1x1 3x3, 1x1 5x5 and 1x1 three read x
        ((4, 3, 5, 0, 0, 0), 3, 2),
        ((0, 3, 5, 2, 6, 1), 5, 4),
        ((4, 0, 0, 0, 0, 3), 2, 2),  # one alone has nothing to be joined with
        ((0, 0, 0, 0, 0, 3), 1, 1),
    ],
)
@pytest.mark.one_in(3)
def test_an_inception_is_run_in_fewer_convolutions(way, widths, as_written, run):
    module, x = Inception(widths), drawn(2, 7, 6, 5)
    variables = filled(module, x)

    def apply(x):
        with way():
            return module.apply(variables, x)

    assert convolutions(lambda x: module.apply(variables, x), x) == as_written
    assert convolutions(apply, x) == run
    same(jax.jit(apply)(x), jax.jit(lambda x: module.apply(variables, x))(x), 1e-5)


@pytest.mark.parametrize(
    ("dtype", "close", "widths"),
    [
        (jnp.float32, 1e-4, (4, 3, 5, 2, 6, 3)),
        (jnp.float32, 1e-4, (0, 3, 5, 2, 6, 1)),
        (jnp.bfloat16, 0.1, (4, 3, 5, 0, 0, 1)),
    ],
)
@pytest.mark.one_in(3)
def test_an_inception_learns_the_same_in_fewer_convolutions(dtype, close, widths):
    module, x = Inception(widths, dtype=dtype), drawn(2, 7, 6, 5)
    variables = filled(module, x)

    def gradients(way):
        def loss(variables, x):
            with way():
                return jnp.sum(jnp.sin(module.apply(variables, x)))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(variables, x)

    same(gradients(ops.joined), gradients(contextlib.nullcontext), close)


@WAYS
@pytest.mark.parametrize(
    ("net", "as_written", "run"), [("googlenet_light", 51, 35), ("googlenet", 57, 39)]
)
@pytest.mark.one_in(3)
def test_a_googlenet_is_run_in_two_convolutions_less_for_each_inception(way, net, as_written, run):
    module, image = models.build(net), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)

    def apply(variables, image):
        with way():
            return module.apply(variables, image)

    assert convolutions(module.apply, variables, image) == as_written
    assert convolutions(apply, variables, image) == run


@WAYS
def test_parameters_are_the_same_wherever_they_are_made(way):
    module, x = Inception((4, 3, 5, 2, 6, 3)), drawn(2, 7, 6, 5)
    with way():
        made = module.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, made, module.init(jax.random.key(1), x))


@pytest.mark.parametrize("way", [contextlib.nullcontext, ops.inference, ops.plain])
def test_a_net_that_is_looked_at_has_each_convolution(way):
    module, x = Inception((4, 3, 5, 2, 6, 3)), drawn(2, 7, 6, 5)
    variables = filled(module, x)

    def apply(x):
        with way():
            return module.apply(variables, x)

    assert convolutions(apply, x) == 6
    with ops.joined():
        assert convolutions(apply, x) == 4
    assert convolutions(apply, x) == 6
