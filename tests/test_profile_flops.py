"""FLOPs of small modules: XLA's own count, and rules worked out by hand."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from xla_count import lowered

from rice_jax import models, profile
from rice_jax.errors import UserError


class Layers(nn.Module):
    """What it is given, one after another."""

    steps: tuple

    @nn.compact
    def __call__(self, x):
        for step in self.steps:
            x = step(x)
        return x


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Conv(6, (3, 3), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
        y = nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3))(y))
        return nn.relu(y + nn.Conv(6, (1, 1))(x))


class SqueezeExcite(nn.Module):
    @nn.compact
    def __call__(self, x):
        scale = nn.Dense(2)(x.mean((1, 2), keepdims=True))
        return x * nn.sigmoid(nn.Dense(x.shape[-1])(nn.silu(scale)))


def average_without_padding(x):
    return nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        return nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(x, x)


def masked_attention(x):
    mask = nn.make_causal_mask(x[..., 0])
    return jax.nn.dot_product_attention(x[:, :, None], x[:, :, None], x[:, :, None], mask=mask > 0)


def with_ramp(x):
    # Of floats: whether the cast of a constant is counted depends on the version of XLA.
    ramp = jnp.linspace(0, 1, x.shape[1]) / jnp.arange(1.0, 1.0 + x.shape[1])
    return jnp.concatenate([x, jnp.broadcast_to(ramp[:, None, None], (*x.shape[:3], 1))], -1)


def both_ways(x):
    """Whole functions that JAX wraps: a jit, a vmap over columns, a checkpoint."""
    x = jax.jit(lambda x: jnp.sin(x) * 2.0)(x)
    x = jax.vmap(lambda column: column @ jnp.ones((4, 4)), 2, 2)(x)
    return jax.checkpoint(lambda x: nn.relu(x) * x)(x)


def dearest(x):
    return lax.cond(x[0, 0, 0, 0] > 0, jnp.sin, lambda x: (x * 2.0 + 1.0) @ jnp.ones((4, 4)), x)


ZOO = {
    "attention": Attention(),
    "masked attention": Layers((lambda x: x.reshape(2, -1, 4), masked_attention)),
    "jit, vmap, remat": both_ways,
    "a branch": dearest,
    "sort": lax.sort,
    "running sum": lambda x: lax.cumsum(x, axis=1),
    "take": lambda x: jnp.take(x, jnp.arange(2), axis=1),
    "first of the largest": lambda x: x.at[..., 0].add(x.argmax(-1)),
    "a ramp beside the channels": with_ramp,
    "strided": nn.Conv(5, (3, 3), strides=2),
    "strided, odd kernel, valid": nn.Conv(5, (4, 5), strides=(2, 3), padding="VALID"),
    "dilated": nn.Conv(5, (3, 3), kernel_dilation=2),
    "grouped": nn.Conv(8, (3, 3), feature_group_count=4),
    "depthwise": nn.Conv(8, (5, 5), feature_group_count=4, use_bias=False),
    "transposed": nn.ConvTranspose(5, (3, 3), strides=(2, 2)),
    "transposed, valid": nn.ConvTranspose(5, (4, 2), strides=(2, 3), padding="VALID"),
    "transposed, stride 1": nn.ConvTranspose(5, (3, 3)),
    "circular": nn.Conv(5, (3, 3), padding="CIRCULAR"),
    "bfloat16": Layers((nn.Conv(5, (3, 3), dtype=jnp.bfloat16), nn.gelu)),
    "dense on maps": nn.Dense(7),
    "LayerNorm": nn.LayerNorm(),
    "BatchNorm": nn.BatchNorm(use_running_average=True),
    "GroupNorm": nn.GroupNorm(num_groups=2),
    "WeightNorm": nn.WeightNorm(nn.Conv(5, (3, 3))),
    "max pool": lambda x: nn.max_pool(x, (3, 3), (2, 2), "SAME"),
    "min pool": lambda x: nn.pool(x, jnp.inf, lax.min, (2, 2), (2, 2), "VALID"),
    "average pool": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME"),
    "average pool, padding left out": average_without_padding,
    "global max": lambda x: x.max((1, 2)),
    "variance": lambda x: x.var((1, 2)),
    "gelu": nn.gelu,
    "exact gelu": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
    "relu6": nn.relu6,
    "hard swish": nn.hard_swish,
    "leaky relu": nn.leaky_relu,
    "PReLU": nn.PReLU(),
    "elu": nn.elu,
    "plus nothing": lambda x: (x + 0.0) * 1.0 + jnp.sin(x),
    "true and nothing": lambda x: jnp.where(((x > 0) & True) | False, jnp.sin(x), x),
    "powers": lambda x: x**7 + x**-3 + x**2.5 + jnp.exp2(x),
    "softmax": lambda x: nn.softmax(x.reshape(x.shape[0], -1)),
    "log softmax": nn.log_softmax,
    "standardised input": lambda x: (x - 0.5) / 0.25,
    "crop and pad": lambda x: jnp.pad(x[:, 1:-1, ::2], ((0, 0), (1, 1), (0, 0), (0, 0))) * 2.0,
    "tile": lambda x: jnp.tile(x, (1, 2, 1, 3)),
    "work thrown away": lambda x: (jnp.sin(x) * 3.0, x + 1.0)[1],
    "residual": Residual(),
    "squeeze and excite": SqueezeExcite(),
}

if hasattr(lax, "polynomial"):  # newer JAX's own, as its log2
    ZOO |= {"polynomial": lambda x: lax.polynomial(x, (1.0, 2.0, 3.0)), "log2": jnp.log2}

if jax.__version_info__ >= (0, 10):  # JAX 0.7 does not drop the x - 0 in these
    ZOO |= {"softplus": nn.softplus, "RMSNorm": nn.RMSNorm()}


@pytest.mark.parametrize("name", ZOO)
def test_xla_equals_xlas_own_count_on_small_modules(name):
    step = ZOO[name]
    module = step if isinstance(step, nn.Module) else Layers((step, nn.Dense(3)))
    counted = profile.count(module, (2, 13, 11, 4))
    assert counted.uncounted == ()
    assert counted.flops.xla == pytest.approx(lowered(module, (2, 13, 11, 4)), rel=1e-6)


@settings(max_examples=40)
@given(data=st.data())
def test_any_convolution_counts_the_taps_inside_the_image(data):
    def draw(name, low, high):
        return data.draw(st.integers(low, high), name)

    size, kernel = draw("size", 3, 12), draw("kernel", 1, 5)
    stride, dilation, base = draw("stride", 1, 3), draw("dilation", 1, 3), draw("base", 1, 3)
    low, high, groups = draw("low", -1, 4), draw("high", 6, 8), draw("groups", 1, 3)
    cin, cout = groups * draw("in", 1, 2), groups * draw("out", 1, 2)

    class Convolution(nn.Module):
        @nn.compact
        def __call__(self, x):
            weights = self.param("kernel", nn.initializers.ones, (kernel, 1, cin // groups, cout))
            return lax.conv_general_dilated(
                x,
                weights,
                (stride, 1),
                ((low, high), (0, 0)),
                (base, 1),
                (dilation, 1),
                ("NHWC", "HWIO", "NHWC"),
                groups,
            )

    dilated = (size - 1) * base + 1
    outputs = (dilated + low + high - (kernel - 1) * dilation - 1) // stride + 1
    inside = [
        (place, tap)
        for place in range(outputs)
        for tap in range(kernel)
        if place * stride - low + tap * dilation in range(0, dilated, base)
    ]
    if not inside:
        return
    flops = profile.count(Convolution(), (1, size, 3, cin)).flops
    assert flops.xla == 2 * len(inside) * 3 * cin // groups * cout
    assert flops.xla == lowered(Convolution(), (1, size, 3, cin))
    positions = outputs if base == 1 else size
    assert flops.formula == 2 * kernel * positions * 3 * cin // groups * cout


@pytest.mark.parametrize(
    ("module", "study"),
    [
        # Conv2D 2 x 9 x 4 x 5 an output position, BiasAdd 1 an output
        (nn.Conv(5, (3, 3)), 48 * (2 * 9 * 4 * 5 + 5)),
        # DepthwiseConv2dNative 2 x 9 an output
        (nn.Conv(4, (3, 3), feature_group_count=4, use_bias=False), 48 * 4 * 18),
        # Conv2DBackpropInput: output positions over the strides
        (nn.ConvTranspose(5, (3, 3), strides=(2, 2), use_bias=False), 4 * 48 * 2 * 9 * 4 * 5 // 4),
        # MaxPool and AvgPool K^2 an output, Mean its input's size
        (Layers((lambda x: nn.max_pool(x, (2, 2), (2, 2)),)), 4 * 48),
        (Layers((lambda x: nn.avg_pool(x, (2, 2), (2, 2)),)), 4 * 48),
        # Square and Sum, Rsqrt 2, Mul; ReLU, Exp and Cast are not registered
        (Layers((jnp.square,)), 192),
        (Layers((lambda x: lax.rsqrt(x) * 3.0,)), 3 * 192),
        (Layers((lambda x: nn.relu(jnp.exp(x)).astype(jnp.bfloat16),)), 0),
        (Layers((lambda x: x.mean((1, 2)),)), 192 + 5 * 4),
    ],
)
def test_tensorflows_registry_by_hand(module, study):
    assert profile.count(module, (6, 8, 4)).flops.study == study


def loop(x):
    return lax.while_loop(lambda x: x.sum() < 9, lambda x: x * 2, x)


def call_back(x):
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@pytest.mark.parametrize(("step", "operation"), [(loop, "while"), (call_back, "pure_callback")])
def test_what_cannot_be_known_is_named_and_marks_every_total(step, operation):
    counted = profile.count(Layers((step, nn.Dense(3, name="head"))), (4, 6, 4))
    (uncounted,) = counted.uncounted
    assert uncounted.operation == operation
    assert (1, 4, 6, 4) in uncounted.input_shapes
    assert uncounted.output_shapes
    assert not counted.complete
    assert counted.to_json()["totals"]["complete"] is False
    table = profile.summary(counted)
    assert f"Not counted: {operation}" in table
    assert all(f"{c} ≥ {getattr(counted.flops, c):,}" in table for c in profile.CONVENTIONS)


def test_an_operation_without_a_rule_is_asked_of_xla():
    """XLA takes n x log2 n for a sort of n = 20 numbers, rounded up; others have nothing."""
    counted = profile.count(Layers((lax.sort, nn.Dense(3, name="head"))), (5, 4))
    (row,) = [row for row in counted.rows if row.type == "sort"]
    assert row.flops == profile.Flops(xla=5 * 4 * 5)
    assert counted.complete
    # ArgMax is registered with TensorFlow as a reduction of 4 numbers to 1.
    (row, *_) = profile.count(Layers((lambda x: x.argmax(-1),)), (5, 4)).rows
    assert row.flops.study == 5 * 3


@pytest.mark.parametrize("step", [lambda x: x.reshape(x.shape[0], -1), call_back])
def test_a_count_that_xla_does_not_have_is_refused(step):
    with pytest.raises(UserError, match=r"XLA counts .* FLOPs in Layers"):
        profile.count(Layers((step,)), (4, 4, 2), softmax=False, measure_xla=True)
    assert profile.count(Layers((step,)), (4, 4, 2), softmax=False).xla_measured is None


def test_xlas_own_operation_is_counted_where_platforms_have_different_ones():
    def slices(x):
        rows = jnp.maximum(x[:, ::2], x[:, 1::2])
        return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])

    def pool(x):
        windows = (2, 2), (2, 2)
        return lax.platform_dependent(x, cpu=slices, default=lambda x: nn.max_pool(x, *windows))

    counted = profile.count(Layers((pool, nn.Dense(2))), (8, 8, 3))
    assert [row.type for row in counted.rows] == ["max_pool", "Dense"]
    assert counted.rows[0].flops == profile.Flops(study=4 * 48, xla=3 * 48)


def test_a_softmax_counts_five_a_class_and_is_not_added_twice():
    logits, ended = Layers((nn.Dense(7),)), Layers((nn.Dense(7), nn.softmax))
    with_softmax = profile.count(logits, (3, 11))
    without = profile.count(logits, (3, 11), softmax=False)
    assert with_softmax.flops.study == without.flops.study + 5 * 7 * 3
    assert with_softmax.flops.xla == without.flops.xla
    assert profile.count(ended, (3, 11)).flops.study == with_softmax.flops.study
    assert profile.count(ended, (3, 11)).flops.xla == without.flops.xla + 3 * (4 * 7 - 1)
    assert [row.path for row in profile.count(ended, (3, 11)).rows][-1] == "softmax"


def test_a_softmax_of_numbers_in_the_code_is_one_too():
    def weighed(x):
        return x * nn.softmax(jnp.array([0.0, 1.0, 2.0, 4.0]))

    counted = profile.count(Layers((weighed, nn.Dense(7))), (3, 4))
    assert counted.flops.study == 5 * 4 + 3 * 4 + 3 * (2 * 4 * 7 + 7) + 5 * 7 * 3


RAGGED = {
    # name: numbers of the axes, shape of the rows, shape of the weights, 2 x the multiply-adds
    "experts": ((((1,), (1,)), ((), ())), (0,), (0,), (8, 4), (3, 4, 5), 2 * 8 * 4 * 5),
    "turned": ((((1,), (2,)), ((), ())), (0,), (1,), (8, 4), (5, 3, 4), 2 * 8 * 4 * 5),
    "two shared axes": ((((1, 2), (1, 2)), ((), ())), (0,), (0,), (8, 4, 2), (3, 4, 2, 5), 2 * 320),
    "gradient": ((((0,), (0,)), ((), ())), (0,), (), (8, 4), (8, 5), 2 * 8 * 4 * 5),
}


@pytest.mark.parametrize("name", RAGGED)
def test_a_product_of_ragged_groups_counts_each_row_once(name):
    numbers, ragged, groups, rows, weights, expected = RAGGED[name]
    numbers = lax.RaggedDotDimensionNumbers(numbers, ragged, groups)

    def net(params, x):
        sizes = jnp.array([2, 5, 1])
        return lax.ragged_dot_general(x, params["kernel"], sizes, numbers)

    kernel = {"kernel": jax.ShapeDtypeStruct(weights, jnp.float32)}
    counted = profile.count(net, kernel, rows, batched=True, softmax=False)
    assert counted.complete
    assert counted.flops.formula == counted.flops.study == expected
    assert counted.training_flops == 2 * expected  # no gradient by the images
    assert counted.flops.xla >= expected  # on a CPU every row meets every group, masked


def test_a_rule_from_outside_counts_in_a_training_step_too():
    def half(equation):
        return profile.Flops(formula=equation.outputs[0].size)

    counted = profile.count(nn.Dense(7), (1, 9), rules={"dot_general": half}, batched=True)
    assert (counted.flops.formula, counted.training_flops) == (7, 14)


def test_a_batch_costs_as_many_times_an_image():
    module = models.build("final")
    one, four = (profile.count(module, (n, 32, 32, 3)).flops for n in (1, 4))
    assert four.formula == 4 * one.formula
    assert four.study == 4 * one.study
    assert math.isclose(four.xla, 4 * one.xla)


def test_attentions_two_products_are_counted():
    """Scores and their sum of values: 12 places by 12 of 2 heads of 4, twice the multiply-adds."""
    counted = profile.count(Attention(), (3, 4, 8))
    products = [row for row in counted.rows if row.type == "dot"]
    assert [row.flops.formula for row in products] == [2 * 2 * 12 * 12 * 4] * 2
    assert [row.path for row in products] == ["attention/dot", "attention/dot_2"]
    assert counted.flops.formula == 4 * 2 * 12 * 8 * 8 + 2 * (2 * 2 * 12 * 12 * 4)


def with_a_batching_of_its_own(kernel, x):
    function = jax.custom_batching.custom_vmap(lambda x, kernel: x @ kernel)
    function.def_vmap(lambda size, batched, x, kernel: (x @ kernel, True))
    return function(x, kernel)


def with_a_transpose_of_its_own(kernel, x):
    call = jax.custom_derivatives.linear_call
    return call(lambda kernel, x: x @ kernel, lambda kernel, y: y @ kernel.T, kernel, x)


def with_a_derivative_of_its_own(kernel, x):
    function = jax.custom_jvp(lambda x, kernel: x @ kernel)
    function.defjvp(lambda primals, tangents: (primals[0] @ primals[1], tangents[0]))
    return function(x, kernel)


@pytest.mark.parametrize(
    "product",
    [with_a_batching_of_its_own, with_a_transpose_of_its_own, with_a_derivative_of_its_own],
)
def test_a_product_counts_in_a_function_with_rules_of_its_own(product):
    counted = profile.count(product, jnp.zeros((5, 5)), (3, 5), softmax=False)
    assert counted.flops == profile.Flops(2 * 75, 2 * 75, 2 * 75)


def test_a_conversion_is_no_convolution():
    counted = profile.count(Layers((lambda x: lax.bitcast_convert_type(x, jnp.int32),)), (3, 5))
    assert counted.complete
    assert counted.flops.xla == 15
