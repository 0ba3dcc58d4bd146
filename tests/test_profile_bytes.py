"""Bytes, what bounds a layer and FLOPs of training: worked out by hand on small nets."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_nets import Small, counted
from jax import lax
from xla_count import flops_by_xla

from rice_jax import models, profile
from rice_jax.errors import UserError


def test_each_layer_reads_what_comes_in_once_and_writes_what_goes_out_once():
    rows, result = counted(Small())
    image, maps1, pooled, maps2 = 8 * 8 * 3, 8 * 8 * 4, 4 * 4 * 4, 4 * 4 * 6
    expected = {
        "conv1": (image + 9 * 3 * 4 + 4, maps1),
        "max_pool": (maps1, pooled),
        "conv2": (pooled + 9 * 4 * 6 + 6, maps2),
        "mean": (maps2, 6),
        "head": (6 + 6 * 5 + 5, 5),
    }
    for path, (read, written) in expected.items():
        assert rows[path].traffic == profile.Traffic(4 * read, 4 * written)
    assert result.traffic.read == 4 * sum(read for read, _ in expected.values())
    conv = rows["conv1"]
    assert conv.intensity == pytest.approx(conv.flops.xla / (4 * (image + 112 + maps1)))
    assert rows["softmax"].intensity is None


def test_bytes_are_those_of_the_precision():
    rows, counts = counted(Small(jnp.bfloat16))
    # Weights are float32 and cast in the layer; maps have two bytes, in the mean's float32 sum too.
    assert rows["conv2"].traffic == profile.Traffic(
        2 * 4 * 4 * 4 + 4 * (9 * 4 * 6 + 6), 2 * 4 * 4 * 6
    )
    assert rows["mean"].traffic.read == 2 * 4 * 4 * 6
    # What is in part cast and in part not is no measure of another precision's bytes.
    whole = counted(Small())[1]
    for precision in profile.PRECISIONS.values():
        assert "bytes" not in counts.at(precision)
        assert whole.at(precision)["bytes"] == whole.traffic.total * precision.activations // 32


def test_a_batch_moves_more_activations_and_as_many_weights():
    _, one = counted(Small())
    _, four = counted(Small(), (4, 8, 8, 3))
    weights = 4 * one.params
    assert four.traffic.read - weights == 4 * (one.traffic.read - weights)
    assert four.traffic.written == 4 * one.traffic.written


def test_what_only_moves_data_costs_nothing():
    class Moved(nn.Module):
        @nn.compact
        def __call__(self, x):
            a, b = jnp.split(nn.Conv(4, (1, 1), name="conv", use_bias=False)(x), 2, -1)
            y = jnp.concatenate([b, a, jnp.flip(x, 1)], -1).reshape(1, -1, 7)[:, :10]
            return nn.Dense(2, name="head")(y)

    rows, _ = counted(Moved())
    assert rows.keys() == {"conv", "head"}
    assert rows["conv"].traffic == profile.Traffic(4 * (192 + 12), 4 * 256)
    # Ten of the 64 places, four channels of the one's and three of the other's.
    assert rows["head"].traffic.read == pytest.approx(4 * (70 + 14 + 2), abs=8)


def test_a_residual_reads_both_and_attention_reads_what_it_multiplies():
    class Residual(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(3, (1, 1), name="stem")(x)
            x = nn.relu(x + nn.Conv(3, (3, 3), name="conv")(x))
            x = x.reshape(1, 64, 3)
            return x @ x.swapaxes(1, 2)

    rows, _ = counted(Residual())
    assert rows["stem"].traffic.written == 4 * 192
    assert rows["add"].traffic == profile.Traffic(2 * 4 * 192, 4 * 192)
    assert rows["dot"].traffic == profile.Traffic(4 * 192, 4 * 64 * 64)


@pytest.mark.parametrize("layer", [nn.LayerNorm(use_bias=False, use_scale=False), nn.silu])
def test_the_image_is_read_once_by_a_row_as_any_map(layer):
    _, result = counted(layer if isinstance(layer, nn.Module) else nn.Sequential([layer]))
    assert result.traffic == profile.Traffic(4 * 192, 4 * 192)


def test_a_layer_called_twice_reads_its_weights_twice():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.Dense(3, name="dense")
            return layer(nn.relu(layer(x)))

    rows, _ = counted(Twice(), (7, 3))
    assert rows["dense"].traffic.read == 4 * 2 * (9 + 3) + 4 * 7 * 3
    assert rows["dense"].training_flops == 2 * 7 * 9 * (2 + 3)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return jnp.sin(nn.Dense(4, name="dense")(x)), x[:1]


class Looped(nn.Module):
    in_a_loop: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="first")(x)
        if self.in_a_loop:
            loop = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=5)
            x, rest = loop(name="steps")(x, None)
            return nn.Dense(3, name="head")(x), rest
        for number in range(5):
            x, _ = Step(name=f"step{number}")(x, None)
        return nn.Dense(3, name="head")(x)


def test_a_loop_moves_and_trains_as_the_steps_written_out():
    looped, whole = counted(Looped(True), (7, 4))
    steps, unrolled = counted(Looped(False), (7, 4))
    written_out = [row for path, row in steps.items() if path.startswith("step")]
    body = [row for path, row in looped.items() if path.startswith("steps")]
    assert sum(row.traffic.read for row in body) == sum(row.traffic.read for row in written_out)
    assert sum(r.traffic.written for r in body) == sum(r.traffic.written for r in written_out)
    assert whole.training_flops == unrolled.training_flops
    assert looped["steps/dense"].training_flops == 3 * looped["steps/dense"].flops.formula
    assert looped["first"].training_flops == 2 * looped["first"].flops.formula
    # The loop has all its weights at once, and what it stacks.
    assert whole.memory.weights == unrolled.memory.weights


class Plain(nn.Module):
    """Convolutions and dense layers alone, without padding: every convention counts the same."""

    branches: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="VALID", use_bias=False, name="conv1")(x)
        y = nn.Conv(6, (3, 3), (2, 2), padding="VALID", use_bias=False, name="conv2")(x)
        if self.branches:
            z = nn.Conv(6, (3, 3), (2, 2), padding="VALID", use_bias=False, name="other")(x)
            y = jnp.concatenate([y, z], -1)
        y = nn.Dense(9, use_bias=False, name="dense")(y.reshape(y.shape[0], -1))
        return nn.Dense(5, use_bias=False, name="head")(y)


def trained_by_xla(module, shape, frozen=()):
    """XLA's count of value and gradient of a loss, the frozen layers held fixed."""
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.ones(shape))["params"]
    fixed = {name: variables.pop(name) for name in frozen}

    def loss(learned, fixed, x):
        return module.apply({"params": {**learned, **fixed}}, x).sum()

    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return flops_by_xla(jax.value_and_grad(loss), variables, fixed, x)


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize(
    "frozen", [(), ("conv1",), ("conv1", "conv2"), ("dense",), ("conv2", "head")]
)
def test_a_training_step_is_what_xla_counts_of_value_and_gradient(branches, frozen):
    shape, module = (2, 11, 11, 3), Plain(branches)
    ours = profile.count(module, shape, frozen=frozen).training_flops
    # XLA's figure has the sum of the logits and of two branches' gradients beside the products.
    between = 2 * 9 * 9 * 4 if branches and "conv1" not in frozen else 0
    assert ours == pytest.approx(trained_by_xla(module, shape, frozen) - between, abs=12)


def plain_conv(features, size, **kwargs):
    return nn.Conv(features, (size, size), padding="VALID", use_bias=False, **kwargs)


class After(nn.Module):
    """A layer between two that have no padding either."""

    between: object

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, use_bias=False)(self.between(plain_conv(4, 1)(x)))


@pytest.mark.parametrize(
    "between",
    [
        plain_conv(8, 3, feature_group_count=2),
        plain_conv(8, 3, feature_group_count=4),
        plain_conv(8, 3, kernel_dilation=2),
        plain_conv(8, 3, strides=(3, 2)),
        nn.ConvTranspose(6, (3, 3), (2, 2), padding="VALID", use_bias=False),
        lambda x: jnp.einsum("nhwc,nhvd->nwvcd", x, x),
    ],
)
def test_the_gradient_by_each_operand_takes_as_much_as_the_product(between):
    shape, module = (2, 11, 11, 3), After(between)
    counted_by_xla = trained_by_xla(module, shape)
    outputs = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), jnp.ones(shape)))[0]
    ours = profile.count(module, shape).training_flops
    # The loss adds up the outputs, and an activation that is used twice adds two gradients up.
    assert 0 <= counted_by_xla - (outputs.size - 1) - ours <= 2 * 11 * 11 * 4


def test_a_training_step_by_hand():
    """conv1 learns first: no gradient by the image. Others are three times their forward pass."""
    rows, result = counted(Plain(), (2, 11, 11, 3))
    forward = {
        "conv1": 2 * 2 * 9 * 9 * 9 * 3 * 4,
        "conv2": 2 * 2 * 4 * 4 * 9 * 4 * 6,
        "dense": 2 * 2 * 96 * 9,
        "head": 2 * 2 * 9 * 5,
    }
    for path, count in forward.items():
        assert rows[path].training_flops == count * (2 if path == "conv1" else 3)
    assert result.training_flops == sum(row.training_flops for row in rows.values())


def test_frozen_layers_cost_no_gradient_of_theirs_but_may_pass_one_on():
    net = models.NETS["vgg16"]
    rows, _ = counted(models.build("vgg16"), (32, 32, 3), frozen=net.frozen)
    passes = {
        path: row.training_flops / row.flops.formula
        for path, row in rows.items()
        if row.flops.formula
    }
    frozen = {path for path in passes if path in net.frozen}
    assert frozen
    assert all(passes[path] == 1 for path in frozen)  # all are before the first that learns
    learned = [path for path in passes if path not in frozen]
    assert passes[learned[0]] == 2
    assert all(passes[path] == 3 for path in learned[1:])
    between, _ = counted(Plain(), (2, 11, 11, 3), frozen=("dense",))
    assert between["dense"].training_flops == 2 * between["dense"].flops.formula


def test_no_gradient_goes_through_what_stops_it():
    class Stopped(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = lax.stop_gradient(nn.Dense(4, name="before")(x))
            return nn.Dense(4, name="after")(x)

    rows, _ = counted(Stopped(), (3, 4))
    assert rows["after"].training_flops == 2 * rows["after"].flops.formula


@jax.custom_vjp
def straight_through(x):
    return jnp.where(x > 0, 1.0, -1.0)


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, gradient: (gradient,))


@pytest.mark.parametrize(("between", "times"), [(straight_through, 3), (jnp.sign, 1)])
def test_a_gradient_goes_through_what_has_one_of_its_own(between, times):
    class Binary(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, name="first")(x)
            return between(x) @ between(self.param("kernel", nn.initializers.ones, (4, 6)))

    rows, _ = counted(Binary(), (1, 8))
    assert rows[""].training_flops == times * 2 * 4 * 6
    assert rows["first"].training_flops == 2 * 2 * 8 * 4


def test_the_slower_of_arithmetic_and_memory_bounds_a_layer():
    rows, result = counted(Small())
    conv, pool = rows["conv2"], rows["max_pool"]
    # conv2: 2 x 4 x 6 x 10^2 taps, bias and ReLU; 4 x (64 + 216 + 6 + 96) bytes.
    assert (conv.flops.xla, conv.traffic.total) == (4800 + 192, 4 * 382)
    slow_memory = profile.Device(flops_per_second=1e9, bytes_per_second=1e8)
    fast_memory = profile.Device(flops_per_second=1e9, bytes_per_second=1e9)
    assert (slow_memory.ridge, fast_memory.ridge) == (10, 1)
    assert slow_memory.bound(conv) == "memory"
    assert slow_memory.seconds(conv) == pytest.approx(1528 / 1e8)
    assert fast_memory.bound(conv) == "compute"
    assert fast_memory.seconds(conv) == pytest.approx(4992 / 1e9)
    assert fast_memory.bound(pool) == "memory"
    assert fast_memory.bound(rows["softmax"]) is None
    content = json.loads(json.dumps(result.to_json(device=fast_memory), allow_nan=False))
    layers = {layer["path"]: layer for layer in content["layers"]}
    assert layers["conv2"]["bound"] == "compute"
    assert layers["conv2"]["bytes"] == {"read": 4 * 286, "written": 4 * 96}
    assert content["roofline"]["seconds"] == pytest.approx(
        sum(fast_memory.seconds(row) for row in rows.values())
    )
    assert result.to_json()["roofline"] is None


@pytest.mark.parametrize("number", [int, np.float32, np.int64, jnp.float32])
def test_a_device_of_any_kind_of_numbers_is_told_as_json(number):
    _, result = counted(Small())
    told = result.to_json(device=profile.Device(number(2e9), number(1e9)))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["roofline"] == result.to_json(device=profile.Device(2e9, 1e9))["roofline"]


@pytest.mark.parametrize("peaks", [(0, 1e9), (1e9, -1), (float("nan"), 1), ("fast", 1), (1, None)])
def test_a_device_without_a_peak_is_refused(peaks):
    with pytest.raises(UserError, match="must be positive"):
        profile.Device(*peaks)


def test_the_table_tells_bytes_bound_and_time():
    _, result = counted(Small())
    device = profile.Device(1e9, 1e9)
    lines = profile.summary(result, device=device).splitlines()
    assert max(map(len, lines)) == 100
    (conv,) = [line for line in lines if line.startswith("conv2")]
    assert conv.split()[-7:] == ["7,008", "1.53", "k", "3.27", "4.99", "µs", "c"]
    assert any(line.startswith("Time: ") and "1 GFLOP/s and 1 GB/s" in line for line in lines)
    assert f"(forward and backward): formula {result.training_flops:,}" in "\n".join(lines)
