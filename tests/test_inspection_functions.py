"""Bounds hold for each operation that has a rule, and nothing is known where none can."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from inspected import IDENTITY, Function, assert_contained, images, resized
from jax import lax

from rice_jax import inspection


def polynomial(x, *coefficients):
    """The constant's coefficient first: a primitive of its own in newer JAX, as log2 is."""
    if hasattr(lax, "polynomial"):
        return lax.polynomial(x, coefficients)
    value = jnp.broadcast_to(jnp.asarray(coefficients[-1], x.dtype), x.shape)
    for each in coefficients[-2::-1]:
        value = value * x + each
    return value


def nearest(x, rows, columns):
    return resized(x, "nearest", rows, columns)


FUNCTIONS = {
    "polynomial": lambda x: polynomial(x - 0.5, 1.0, -2.0, x[:, :1], 0.5),
    "polynomial of many terms": lambda x: polynomial(x - 0.5, *range(12)),
    "a constant": lambda x: polynomial(x, 0.25),
    "log2": lambda x: jnp.log2(x + 0.5),
    "put on a device": lambda x: sum(jax.device_put((x, x[..., :1]))),
    "nearest pixels, four for each": lambda x: nearest(x, 6, 6),
    "nearest pixels, many for each": lambda x: nearest(x, 12, 15),
    "nearest pixel, one of nine": lambda x: nearest(x, 1, 1),
    "nearest pixels, half way": lambda x: nearest(x[:, jnp.array([2, 0, 1, 2])], 2, 3),
    "from the brightest on": lambda x: lax.dynamic_slice_in_dim(x, jnp.argmax(x[0, :, 0, 0]), 2, 1),
    "the brightest of each": lambda x: jnp.take_along_axis(
        x - 0.5, jnp.argmax(x, 1, keepdims=True), 1, mode="clip"
    ),
    "whole numbers of fractions": lambda x: x * jnp.array([1.7, 2.2, -3.1]).astype(jnp.int32),
    "exp": lambda x: jnp.exp(x) - 1,
    "exp2": lambda x: jnp.exp2(-x),
    "log": lambda x: jnp.log(x + 0.5),
    "log1p": lambda x: jnp.log1p(x),
    "expm1": lambda x: jnp.expm1(x),
    "tanh": lambda x: jnp.tanh(2 * x - 1),
    "sigmoid": lambda x: nn.sigmoid(4 * x - 2),
    "erf": lambda x: lax.erf(2 * x - 1),
    "sqrt": lambda x: jnp.sqrt(x),
    "rsqrt": lambda x: lax.rsqrt(x + 0.1),
    "sinh": lambda x: jnp.sinh(2 * x - 1),
    "inverse of sinh": lambda x: jnp.arcsinh(4 * x - 2),
    "arc tangent": lambda x: jnp.arctan(4 * x - 2),
    "cube root": lambda x: jnp.cbrt(x - 0.5),
    "sign": lambda x: jnp.sign(x - 0.5) * x,
    "snake": lambda x: x + jnp.sin(5 * x) ** 2,
    "cosine of several turns": lambda x: jnp.cos(20 * x),
    "power": lambda x: jnp.power(x, 1.7),
    "inverse power": lambda x: jnp.power(x + 0.1, -0.75),
    "power by the image": lambda x: jnp.power(x + 0.5, 2 * x[:, ::-1] - 1),
    "great power": lambda x: jnp.power(x + 1, 30.5),
    "power of few bits": lambda x: jnp.power(x.astype(jnp.bfloat16), 3.3).astype(jnp.float32),
    "response norm": lambda x: x / (1 + (x * x).sum(-1, keepdims=True)) ** 0.75,
    "generalised mean": lambda x: (
        jnp.mean(jnp.maximum(x, 1e-6) ** jnp.array([3.0, 1.0, 2.5]), (1, 2), keepdims=True) ** 0.3
    ),
    "cube": lambda x: (x - 0.5) ** 3,
    "square": lambda x: jnp.square(x - 0.5),
    "product": lambda x: (x - 0.5) * (x - 0.5),
    "inverse square": lambda x: (x + 0.5) ** -2,
    "quotient": lambda x: (x - 0.5) / (x - 2),
    "abs": lambda x: jnp.abs(x - 0.5),
    "clip": lambda x: jnp.clip(x, 0.2, 0.7),
    "minimum": lambda x: -jnp.minimum(x, 0.5),
    "where": lambda x: jnp.where(x > 0.5, x, -x),
    "less": lambda x: jnp.where(x < 0.5, -x, lax.neg(x)),
    "cast": lambda x: x - lax.convert_element_type(lax.convert_element_type(x, bool), x.dtype),
    "reduced precision": lambda x: lax.reduce_precision(x, 8, 7),
    "mask": lambda x: x * (x > 0.5),
    "truth": lambda x: x + (x - 0.5).astype(bool),
    "both": lambda x: jnp.where((x > -1) & (x < 0.7), x, -x),
    "either": lambda x: jnp.where((x < 0.3) | (x != x[:, ::-1]), x, -x),
    "equal": lambda x: jnp.where(jnp.maximum(x, 0.5) == 0.5, x, -x),
    "not": lambda x: jnp.where(~(x > 0.5), x, -x),
    "known mask": lambda x: jnp.where(jnp.arange(3) == 1, x, 0.25),
    "floor": lambda x: jnp.floor(3 * x),
    "round": lambda x: jnp.round(3 * x),
    "maximum over rows": lambda x: x.max(axis=1, keepdims=True) + 0 * x,
    "minimum over rows": lambda x: x.min(axis=1, keepdims=True) + 0 * x,
    "pad and slice": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1],
    "flip and turn": lambda x: jnp.flip(x, 1).swapaxes(1, 2),
    "gather": lambda x: x[:, jnp.array([2, 0, 1])],
    "tile": lambda x: jnp.tile(x - 0.5, (1, 2, 1, 1)),
    "split": lambda x: jnp.concatenate(jnp.split(x, 3, axis=2)[::-1], axis=2),
    "stack": lambda x: jnp.stack(jnp.unstack(x, axis=2)[::-1], axis=1),
    "half precision": lambda x: (x.astype(jnp.bfloat16) * 3).astype(jnp.float32),
    "dot": lambda x: jnp.einsum("nhwc,nhvc->nhwv", x, x),
    "softmax": lambda x: nn.softmax(x),
    "softplus": lambda x: nn.softplus(x),
    "elu": lambda x: nn.elu(x - 0.5),
    "group norm": lambda x: (
        (x - x.mean((1, 2, 3), keepdims=True)) * lax.rsqrt(x.var((1, 2, 3), keepdims=True) + 1e-3)
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.one_in(4)
def test_bounds_contain_functions(name):
    module, shape = Function(FUNCTIONS[name]), (3, 3, 3)
    bounds, unbounded = inspection.map_bounds(module, IDENTITY, shape)
    lo, hi = bounds["conv"]
    assert unbounded == ()
    assert np.isfinite(lo).all()
    assert np.isfinite(hi).all()
    assert_contained(bounds, inspection.feature_maps(module, IDENTITY, images(8, shape)))


NOWHERE = {
    "power of what may be negative": lambda x: jnp.power(x - 0.5, jnp.full_like(x, 2)),
    "inverse power of what may be 0": lambda x: jnp.power(x, -0.5),
    "0 to what may be negative": lambda x: jnp.power(0 * x, x - 0.5),
    "1 to what nothing is known of": lambda x: jnp.power(jnp.ones_like(x), jnp.tan(x)),
    "what nothing is known of to 0": lambda x: jnp.power(jnp.abs(jnp.tan(x)), jnp.zeros_like(x)),
    "sine of what nothing is known of": lambda x: jnp.sin(jnp.tan(x)),
    "sign of what nothing is known of": lambda x: jnp.sign(jnp.tan(x)),
}


@pytest.mark.parametrize("name", NOWHERE)
@pytest.mark.one_in(4)
def test_nothing_is_known_of_what_may_be_no_number(name):
    bounds, unbounded = inspection.map_bounds(Function(NOWHERE[name]), IDENTITY, (3, 3, 3))
    lo, hi = bounds["conv"]
    assert unbounded
    assert np.isneginf(lo).all()
    assert np.isposinf(hi).all()


FRACTIONS = {
    "of an image": lambda x: x * (x[0, 0, 0, 0] * jnp.arange(3.0)).astype(jnp.int32),
    "near to a whole number": lambda x: (
        x * (jnp.arange(1.0, 4.0) * jnp.float32(1 / 3)).astype(jnp.int32)
    ),
    "below the least number": lambda x: x * (jnp.arange(3.0) - 2.5).astype(jnp.uint8),
    "above the largest number": lambda x: x * (jnp.arange(3.0) * 2.5e9).astype(jnp.int32),
    "as wide as none": lambda x: x * (jnp.arange(3.0) / jnp.float32(0)).astype(jnp.int32),
}


@pytest.mark.parametrize("name", FRACTIONS)
def test_bounds_contain_what_fractions_are_cut_to(name):
    """Also where rounding decides to which number, and where there is none such."""
    module, shape = Function(FRACTIONS[name]), (3, 3, 3)
    bounds, _ = inspection.map_bounds(module, IDENTITY, shape)
    assert_contained(bounds, inspection.feature_maps(module, IDENTITY, images(8, shape)))
