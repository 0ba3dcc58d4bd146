"""Which batch norms a layer takes in before an export: those alone that change no logit by it."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rice_jax import train
from rice_jax.export.folding import folded
from rice_jax.models.own import Own

SHAPE = (2, 8, 8, 3)


class Standardised(nn.Conv):
    """A convolution whose kernel is normalised as it is called: a factor on it does nothing."""

    @nn.compact
    def __call__(self, x):
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        kernel = (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2))
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers) + bias


class Bent(nn.Dense):
    """A dense layer with a function in it."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        return jnp.tanh(x @ kernel + self.param("bias", self.bias_init, (self.features,)))


class Net(nn.Module):
    what: str
    classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        if self.what == "a norm of two layers":
            shared = norm(name="norm")
            x = nn.relu(shared(nn.Conv(4, (3, 3), name="first")(x)))
            x = nn.relu(shared(nn.Conv(4, (3, 3), name="second")(x)))
        if self.what == "a normalised kernel":
            x = nn.relu(norm(name="norm")(Standardised(4, (3, 3), name="first")(x)))
        x = x.mean((1, 2))
        if self.what == "a function within the layer":
            x = norm(name="norm")(Bent(4, name="first")(x))
        if self.what == "a layer as it is":
            x = norm(name="norm")(nn.Dense(4, name="first")(x))
        return nn.Dense(self.classes, name="head")(x)


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ("a layer as it is", {"norm": False}),
        ("a norm of two layers", {}),
        ("a normalised kernel", {}),
        ("a function within the layer", {}),
    ],
)
def test_a_norm_is_taken_in_where_the_layer_is_a_product_and_a_sum_alone(what, gone):
    net, rng = Own.of(Net, what=what), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(SHAPE)))
    params = jax.tree.map(
        lambda leaf: rng.uniform(0.3, 1.5, leaf.shape).astype(np.float32), shapes["params"]
    )
    config = types.SimpleNamespace(data=types.SimpleNamespace(image_size=SHAPE[1]))
    lighter = folded(train.Trained(config, net, params, ("a", "b", "c"), 1))
    assert dict(lighter.module.folded) == gone
    x = rng.random(SHAPE, np.float32)
    given, wanted = (
        np.asarray(module.apply({"params": each}, x))
        for module, each in ((lighter.module, lighter.params), (net, params))
    )
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4)
