"""Values and gradients are XLA's own, whatever the size, stride, padding and type."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from precision import double_precision

from rice_jax import ops
from rice_jax.graph.trace import trace

as_users_get_it = pytest.mark.usefixtures("compiled_well")
"""Compiled with all of XLA's optimisations, and so are all tests after the first of these."""


def draw(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def value_and_gradients(function, *operands):
    out, pull = jax.vjp(function, *operands)
    return out, *pull(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))


def same(got, expected, **tolerance):
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(
            np.asarray(one, np.float64), np.asarray(other, np.float64), **tolerance
        )


def xla_pool(window, strides, padding):
    return lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), padding
    )


sides = st.integers(1, 9)
small = st.integers(1, 3)


@settings(max_examples=8)
@given(
    sides, sides, small, small, st.integers(1, 4),
    st.sampled_from(["SAME", "VALID", ((4, 0), (1, 5))]), small, st.booleans(),
)  # fmt: skip
def test_convolution_in_float64(
    height, width, channels, filters, kernel, padding, stride, depthwise
):
    if padding == "VALID":
        height, width = max(height, kernel), max(width, kernel)
    groups = channels if depthwise else 1
    with double_precision():
        x = draw(2, height, width, channels)
        w = draw(kernel, kernel, channels // groups, channels if depthwise else filters, seed=1)
        how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}

        def run(convolve):
            return jax.jit(
                lambda x, w: value_and_gradients(
                    lambda x, w: convolve(x, w, (stride, 1), padding, **how), x, w
                )
            )(x, w)

        same(run(ops.conv_general_dilated), run(lax.conv_general_dilated), rtol=1e-12, atol=1e-12)


@settings(max_examples=8)
@given(
    sides, sides, st.tuples(small, small), st.tuples(small, small),
    st.sampled_from(["SAME", "VALID"]), st.booleans(),
)  # fmt: skip
def test_max_pooling_in_float64_with_ties(height, width, window, strides, padding, ties):
    height, width = max(height, window[0]), max(width, window[1])
    with double_precision():
        x = draw(2, height, width, 2)
        x = np.round(x) if ties else x

        def run(pool):
            return jax.jit(lambda x: value_and_gradients(pool, x))(x)

        got = run(lambda x: ops.max_pool(x, window, strides, padding))
        same(got, run(xla_pool(window, strides, padding)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("side", [(1, 1), (1, 5), (5, 2), (0, 4)])
@pytest.mark.parametrize("traced", [contextlib.nullcontext, ops.inference, ops.plain])
def test_where_no_window_fits_the_map_vanishes_as_by_xla(side, traced):
    x = jnp.zeros((2, *side, 3))
    with traced():
        got = jax.eval_shape(lambda x: ops.max_pool(x, (3, 3), (2, 2), "VALID"), x)
    assert got.shape == jax.eval_shape(xla_pool((3, 3), (2, 2), "VALID"), x).shape
    assert got.size == 0


@pytest.mark.parametrize(
    ("image", "kernel", "groups"),
    [
        ((0, 7, 7, 3), (4, 4, 3, 2), 1),
        ((2, 0, 7, 3), (4, 4, 3, 2), 1),
        ((2, 3, 7, 3), (4, 4, 3, 2), 1),  # no window fits
        ((2, 3, 7, 3), (4, 4, 1, 3), 3),
        ((2, 3, 7, 0), (4, 4, 0, 2), 1),
        ((2, 7, 7, 3), (4, 4, 3, 0), 1),
    ],
)
@pytest.mark.parametrize("convolve", [ops.conv_general_dilated, ops.conv_where_slow])
def test_where_there_is_nothing_to_compute_all_is_as_by_xla(convolve, image, kernel, groups):
    def run(function, *operands):
        return jax.eval_shape(functools.partial(value_and_gradients, function), *operands)

    x, w = jnp.zeros(image), jnp.zeros(kernel)
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
    ours, xlas = (
        run(lambda x, w, f=each: f(x, w, (2, 1), "VALID", **how), x, w)
        for each in (convolve, lax.conv_general_dilated)
    )
    assert ours == xlas
    pooled = run(lambda x: ops.max_pool(x, (4, 4), (2, 1), "VALID"), x)
    assert pooled == run(xla_pool((4, 4), (2, 1), "VALID"), x)


def convolved(convolve, x, w, stride, padding):
    numbers = ("NHWC", "HWIO", "NHWC")

    def run(x, w):
        return convolve(x, w, (stride, stride), padding, dimension_numbers=numbers)

    return jax.jit(lambda x, w: value_and_gradients(run, x, w))(x, w)


@pytest.mark.parametrize(
    ("image", "channels", "filters", "kernel", "stride", "padding"),
    [
        ((300, 96), 3, 8, 3, 1, "SAME"),  # rows of one channel, in several chunks
        ((301, 95), 3, 4, 7, 2, "SAME"),  # and a last chunk that is not whole
        ((83, 90), 8, 16, 3, 1, "SAME"),  # pixels of many channels, in several chunks
        ((97, 40), 16, 5, 5, 2, ((3, 0), (1, 4))),
        ((40, 33), 2, 16, 3, 2, ((0, 2), (5, 1))),
        ((9, 7), 24, 32, 1, 1, "VALID"),
    ],
)
@pytest.mark.one_in(2)
@as_users_get_it
def test_convolution_of_images_larger_than_a_chunk(
    image, channels, filters, kernel, stride, padding
):
    with double_precision():
        x, w = draw(2, *image, channels), draw(kernel, kernel, channels, filters, seed=1)
        ours, xlas = (
            convolved(convolve, x, w, stride, padding)
            for convolve in (ops.conv_general_dilated, lax.conv_general_dilated)
        )
        same(ours, xlas, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("image", "kernel", "stride", "padding"),
    [
        ((2, 2), (3, 3), 1, "SAME"),
        ((4, 4), (3, 3), 2, "SAME"),  # fewer windows than taps, but no fewer pixels
        ((1, 3), (5, 2), 1, "SAME"),
        ((3, 3), (3, 3), 1, "VALID"),
        ((2, 1), (3, 3), 2, ((4, 3), (0, 5))),  # some windows see nothing but padding
        ((6, 6), (7, 7), 1, "SAME"),
    ],
)
@pytest.mark.parametrize("convolve", [ops.conv_general_dilated, ops.conv_where_slow])
@pytest.mark.one_in(2)
@as_users_get_it
def test_convolution_of_maps_with_few_windows(convolve, image, kernel, stride, padding):
    with double_precision():
        x, w = draw(3, *image, 4), draw(*kernel, 4, 5, seed=1)
        expected = convolved(lax.conv_general_dilated, x, w, stride, padding)
        same(convolved(convolve, x, w, stride, padding), expected, rtol=1e-11, atol=1e-11)
        with ops.inference():
            got = convolved(convolve, x, w, stride, padding)
        same(got, expected, rtol=1e-11, atol=1e-11)


@as_users_get_it
@pytest.mark.parametrize("traced", [contextlib.nullcontext, ops.inference])
def test_few_windows_in_bfloat16_and_without_images(traced):
    x, w = draw(2, 2, 2, 8).astype(jnp.bfloat16), draw(3, 3, 8, 8, seed=1).astype(jnp.bfloat16)
    for images in (x, x[:0]):
        with traced():
            got = convolved(ops.conv_general_dilated, images, w, 1, "SAME")
        expected = convolved(lax.conv_general_dilated, images, w, 1, "SAME")
        same(got, expected, rtol=0.02, atol=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"feature_group_count": 3},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1)},
        {"precision": lax.Precision.HIGHEST},
        {"dimension_numbers": ("NHWC", "OIHW", "NHWC")},
    ],
)
def test_what_has_no_fast_way_is_left_to_xla(options):
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    groups = options.get("feature_group_count", 1)
    x, w = draw(2, 8, 8, 6, dtype=np.float32), draw(3, 3, 6 // groups, 3, dtype=np.float32)
    if options["dimension_numbers"][1] == "OIHW":
        w = w.transpose(3, 2, 0, 1)

    def run(convolve):
        return value_and_gradients(
            lambda x, w: convolve(x, w, (1, 1), ((1, 1), (1, 1)), **options), x, w
        )

    same(run(ops.conv_general_dilated), run(lax.conv_general_dilated), rtol=1e-6)


class Net(nn.Module):
    fast: bool
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x):
        convolve = ops.conv_general_dilated if self.fast else lax.conv_general_dilated
        conv = functools.partial(nn.Conv, conv_general_dilated=convolve, dtype=self.dtype)
        x = nn.relu(conv(4, (3, 3))(x))
        x = nn.relu(conv(4, (3, 3), feature_group_count=4)(x))
        pool = ops.max_pool if self.fast else nn.max_pool
        return jnp.sum(pool(x, (3, 3), (2, 2), "SAME").astype(jnp.float32) ** 2)


def gradients(net, x):
    params = net.init(jax.random.key(0), x)
    return jax.jit(jax.grad(lambda p, x: net.apply(p, x), argnums=(0, 1)))(params, x)


@as_users_get_it
@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.03)])
@pytest.mark.one_in(2)
def test_within_flax_layers(dtype, rtol):
    x = jax.random.uniform(jax.random.key(1), (2, 9, 9, 3))
    got, expected = (jax.tree.leaves(gradients(Net(f, dtype), x)) for f in (True, False))
    scale = max(float(jnp.abs(leaf).max()) for leaf in expected)
    same(got, expected, rtol=rtol, atol=rtol * scale)


@pytest.mark.thorough
def test_under_vmap_remat_and_a_second_derivative():
    x = jax.random.uniform(jax.random.key(1), (3, 1, 6, 6, 3))
    params = Net(True).init(jax.random.key(0), x[0])

    def slope(fast):
        loss = jax.checkpoint(lambda p, x: Net(fast).apply(p, x))
        first = jax.vmap(jax.grad(loss), (None, 0))
        return jax.jit(jax.grad(lambda p: sum(jnp.sum(g) for g in jax.tree.leaves(first(p, x)))))

    same(*(jax.tree.leaves(slope(f)(params)) for f in (True, False)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 4, 3), (3, 7)])
def test_relu(shape):
    x = np.round(draw(*shape), 1)
    x[0, 0] = 0
    with double_precision():
        same(value_and_gradients(ops.relu, x), value_and_gradients(jax.nn.relu, x), rtol=0)


@as_users_get_it
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.one_in(2)
def test_split_over_devices(check):
    """The gradient of a mean over the devices' shares is that over the whole batch."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.random.uniform(jax.random.key(1), (4 * mesh.size, 8, 8, 3))
    net = Net(True)
    params = net.init(jax.random.key(0), x)

    def loss(params, x):
        return lax.psum(net.apply(params, x), "data")

    spec = jax.sharding.PartitionSpec
    split = jax.shard_map(
        loss, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec(), check_vma=check
    )
    got = jax.jit(jax.value_and_grad(split))(params, x)
    expected = jax.jit(jax.value_and_grad(Net(False).apply))(params, x)
    same(jax.tree.leaves(got), jax.tree.leaves(expected), rtol=1e-5, atol=1e-4)


def test_plain_leaves_all_to_xla():
    def jaxpr(fast):
        x = jnp.zeros((1, 8, 8, 3))
        return str(jax.make_jaxpr(lambda x: Net(fast).init_with_output(jax.random.key(0), x)[0])(x))

    assert "custom_vjp" in jaxpr(True)
    with ops.plain():
        assert "custom_vjp" not in jaxpr(True)
        relu = jax.make_jaxpr(ops.relu)(1.0)
    assert str(relu) == str(jax.make_jaxpr(jax.nn.relu)(1.0))


@pytest.mark.usefixtures("on_the_cpu")
def test_inference_has_slices_for_large_windows_and_counting_has_not():
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))

    def pool(x):
        return ops.max_pool(x, (3, 3), (2, 2), "SAME")

    def fast(x):
        with ops.inference():
            return pool(x)

    def uses_windows(function):
        return "reduce_window" in jax.jit(function).lower(x).as_text()

    assert [uses_windows(f) for f in (pool, fast, pool)] == [True, False, True]
    same(jax.jit(fast)(x), jax.jit(pool)(x), rtol=0, atol=0)
    gradient = jax.grad(lambda x: fast(x).sum())(x)
    same(gradient, jax.grad(lambda x: pool(x).sum())(x), rtol=0, atol=0)


def test_the_trace_sees_xlas_own_operations():
    names = [e.name for e in trace(Net(True), (1, 8, 8, 3)).equations]
    assert names[:4] == ["conv_general_dilated", "reshape", "add", "relu"]
    assert names[4:9] == [*names[:4], "reduce_window_max"]


@pytest.mark.parametrize("traced", [contextlib.nullcontext, ops.inference])
def test_the_trace_sees_the_convolution_of_a_map_with_few_windows(traced):
    net = nn.Conv(4, (3, 3), conv_general_dilated=ops.conv_general_dilated)
    with traced():
        names = [e.name for e in trace(net, (1, 2, 2, 3)).equations]
    assert names.count("conv_general_dilated") == 1
