"""The feature map of a convolution is found by following the computation, in any Linen module."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from inspected import Looped
from jax import lax

from rice_jax import inspection, models, prune
from rice_jax.errors import UserError
from rice_jax.graph.maps import convolutions, unseen
from rice_jax.graph.trace import trace


def found(module, shape=(2, 8, 8, 3), **kwargs):
    return convolutions(trace(module, shape, **kwargs))


class After(nn.Module):
    """One convolution and what `after` makes of it."""

    after: object
    norm: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        if self.norm:
            x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return self.after(x)


RECTIFIERS = {
    "relu": (nn.relu, lambda y: np.maximum(y, 0)),
    "relu6": (jax.nn.relu6, lambda y: np.clip(y, 0, 6)),
    "clip": (lambda y: jnp.clip(y, 0, 0.1), lambda y: np.clip(y, 0, 0.1)),
    "clamp": (lambda y: lax.clamp(0.0, y, 0.2), lambda y: np.clip(y, 0, 0.2)),
    "zeros": (lambda y: jnp.maximum(jnp.zeros_like(y), y), lambda y: np.maximum(y, 0)),
    "scaled": (lambda y: nn.relu(y * 3 - 0.5), lambda y: np.maximum(3 * y - 0.5, 0)),
    "pooled": (lambda y: nn.max_pool(nn.relu(y), (2, 2)), lambda y: np.maximum(y, 0)),
}
OTHERS = {
    "none": lambda y: y,
    "swish": nn.swish,
    "tanh": nn.tanh,
    "leaky": nn.leaky_relu,
    "residual": lambda y: nn.relu(y + jnp.flip(y, 1)),
    "read twice": lambda y: nn.relu(y) + y,
    "floor at 1": lambda y: jnp.maximum(y, 1.0),
    "pooled first": lambda y: nn.relu(nn.max_pool(y, (2, 2))),
}


def values(module):
    """The map found, its value, and the convolution's own output, by NumPy."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 5, 3)), rng.normal(size=(3, 3, 3, 4))
    bias = rng.normal(size=4)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    plain = np.einsum("nhwcij,ijcf->nhwf", patches, kernel) + bias
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    variables = {
        "params": {
            "conv": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)},
            "norm": {"scale": ones, "bias": zeros},
        },
        "batch_stats": {"norm": {"mean": zeros, "var": ones}},
    }
    traced = trace(module, x.shape)
    (conv,) = convolutions(traced)
    run = jax.jit(lambda v, x: traced.evaluate(v, x, [conv.value]))
    (got,) = run(variables, jnp.float32(x))
    return conv, np.asarray(got), plain


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", RECTIFIERS)
def test_a_map_is_taken_after_its_rectifier(name, norm):
    after, expected = RECTIFIERS[name]
    conv, got, plain = values(After(after, norm))
    if norm:  # at its initial statistics, mean 0 and variance 1
        plain = plain / np.sqrt(1 + 1e-5)
    assert (conv.path, conv.filters, conv.rectified) == ("conv", 4, True)
    np.testing.assert_allclose(got, expected(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_without_a_rectifier_a_map_is_the_layers_own_output(name):
    conv, got, plain = values(After(OTHERS[name]))
    assert not conv.rectified
    np.testing.assert_allclose(got, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", models.NETS)
def test_every_convolution_of_the_nets_is_found_rectified(name):
    traced = trace(models.build(name), (1, 32, 32, 3))
    maps = convolutions(traced)
    kernels = {
        path.removeprefix("params/").removesuffix("/kernel"): value.shape[-1]
        for path, value in traced.variables.items()
        if path.endswith("kernel") and len(value.shape) == 4
    }
    assert {conv.path: conv.filters for conv in maps} == kernels
    assert all(conv.rectified and conv.value.shape[-1] == conv.filters for conv in maps)


class Hand(nn.Module):
    """Convolutions written by hand: two kernels, a fixed blur, channels before rows."""

    @nn.compact
    def __call__(self, x):
        def conv(x, kernel, *numbers):
            return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

        init = nn.initializers.lecun_normal()
        x = conv(x, jnp.ones((3, 3, 3, 3)) / 27, "NHWC", "HWIO", "NHWC")
        x = nn.relu(conv(x, self.param("first", init, (1, 1, 3, 5)), "NHWC", "HWIO", "NHWC"))
        return nn.relu(conv(x, self.param("second", init, (3, 3, 5, 6)), "NHWC", "HWIO", "NCHW"))


def test_convolutions_written_by_hand():
    maps = found(nn.Sequential([Hand()]), (2, 8, 8, 3))
    assert [(m.path, m.filters, m.channel_axis) for m in maps] == [
        ("layers_0", 5, 3),
        ("layers_0#2", 6, 1),
    ]


def test_a_layer_called_twice_has_an_entry_for_each_call():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv = nn.Conv(3, (3, 3), name="conv")
            return conv(nn.relu(conv(x)))

    first, second = found(Twice())
    assert (first.name, second.name) == ("conv", "conv@2")
    assert (first.path, second.path) == ("conv", "conv")
    assert (first.rectified, second.rectified) == (True, False)


def test_transposed_and_one_dimensional_convolutions():
    (up,) = found(nn.Sequential([nn.ConvTranspose(4, (2, 2), (2, 2)), nn.relu]))
    assert (up.path, up.value.shape, up.rectified) == ("layers_0", (2, 16, 16, 4), True)
    (line,) = found(nn.Sequential([nn.Conv(7, (3,)), nn.relu]), (2, 9, 3))
    assert (line.filters, line.value.shape) == (7, (2, 9, 7))


def test_convolutions_in_a_loop_are_named():
    traced = trace(Looped(), (2, 8, 8, 3))
    assert [conv.path for conv in convolutions(traced)] == ["first", "last"]
    assert unseen(traced) == ["loop/conv"]


class Deep(nn.Module):
    """Two convolutions of stride 2 without padding, the second of which asks for 7 pixels."""

    @nn.compact
    def __call__(self, x):
        for number in (1, 2):
            x = nn.relu(nn.Conv(4, (3, 3), 2, padding="VALID", name=f"conv{number}")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


ASKED = {
    "maps": inspection.feature_maps,
    "census": lambda net, variables, x: inspection.census(net, variables, [x]),
    "proof": lambda net, variables, x: inspection.prove(net, variables, x.shape),
    "saliency": lambda net, variables, x: inspection.saliency(net, variables, x, [0, 0]),
    "what is dead": lambda net, variables, x: prune.prune(net, variables, [x], drop="dead"),
    "proven": lambda net, variables, x: prune.prune(net, variables, [x], drop="proven"),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_maps_without_a_pixel_are_told(asked):
    variables = prunable.random_variables(
        jax.eval_shape(lambda: Deep().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))), 0
    )
    with pytest.raises(UserError, match=r"'conv2' gives maps without a pixel of images \(., 6, 6"):
        asked(Deep(), variables, np.ones((2, 6, 6, 3), np.float32))
