"""Rows, totals, JSON, the printed table, and time."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from rice_jax import models, profile
from rice_jax.errors import UserError


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))
        y = nn.Conv(4, (3, 3), name="conv2")(y)
        scale = self.param("scale", nn.initializers.ones, (4,))
        return nn.relu(x + y * scale)


class Functional(nn.Module):
    """Pools, means and additions as plain functions, a block called twice, a layer never called."""

    @nn.compact
    def __call__(self, x):
        x = x / 255.0 - 0.5
        x = nn.gelu(nn.Conv(4, (3, 3), name="stem")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        block = Block(name="block")
        x = block(block(x))
        x = nn.avg_pool(nn.max_pool(x, (2, 2), (2, 2)), (2, 2), (2, 2))
        features = x.reshape(x.shape[0], -1, 4).mean(1)
        if self.is_initializing():
            nn.Dense(2, name="auxiliary")(features)
        return nn.Dense(3, name="head")(nn.relu(features)).astype(jnp.float16)


@pytest.fixture(scope="module")
def counted():
    return profile.count(Functional(), (16, 16, 3), frozen=("block",), measure_xla=True)


def test_the_study_s_count_of_filters_is_named_where_it_is_another(counted):
    """Of the stem's 4 filters and the block's twice 4 it counts the block's 4 channels once."""
    assert "Filters: 12 (8 by the study's count: " in profile.summary(counted)
    plain = profile.count(models.build("cnn_light"), (224, 224, 3))
    assert f"\nFilters: {plain.filters}\n" in profile.summary(plain)


@pytest.mark.parametrize(
    ("inputs", "units", "whole", "in_int8"),
    [
        (1, 1, "8 B", "5 B"),  # a weight and a bias, which int8 keeps in 32 bits
        (40, 24, "3.94 kB", "1.06 kB"),  # 984 numbers
        (1000, 600, "2.4 MB", "602 kB"),
    ],
)
def test_sizes_are_told_in_a_unit_that_fits(inputs, units, whole, in_int8):
    counted = profile.count(nn.Dense(units), (inputs,), batched=False)
    told = " ".join(profile.summary(counted).split())
    assert f"Parameters: {units * (inputs + 1):,} ({whole}), " in told
    assert f"({whole} of parameters), int8 " in told
    assert f"({in_int8} of parameters)" in told
    assert f"weights {whole}, activations " in told


def test_every_layer_and_every_free_operation_has_one_row(counted):
    assert [(row.path, row.type, row.output_shape) for row in counted.rows] == [
        ("div", "div", (1, 16, 16, 3)),
        ("stem", "Conv", (1, 16, 16, 4)),
        ("max_pool", "max_pool", (1, 8, 8, 4)),
        ("block/conv1", "Conv", (1, 8, 8, 4)),
        ("block/conv2", "Conv", (1, 8, 8, 4)),
        ("block", "Block", (1, 8, 8, 4)),
        ("block/add", "add", (1, 8, 8, 4)),
        ("block/add_2", "add", (1, 8, 8, 4)),
        ("max_pool_2", "max_pool", (1, 4, 4, 4)),
        ("avg_pool", "avg_pool", (1, 2, 2, 4)),
        ("mean", "mean", (1, 4)),
        ("head", "Dense", (1, 3)),
        ("auxiliary", "not called", None),
        ("softmax", "softmax", (1, 3)),
    ]


def test_activations_belong_to_the_row_that_they_act_on(counted):
    flops = {row.path: row.flops.xla for row in counted.rows}
    # Both calls of the block: bias and ReLU after 2 x 4 x 4 (3 x 8 - 2)^2 of the convolution.
    assert flops["block/conv1"] == 2 * (2 * 16 * 22 * 22 + 2 * 64 * 4)
    assert flops["block"] == 2 * 64 * 4  # y * scale
    assert flops["block/add"] == flops["block/add_2"] == 2 * 64 * 4  # x + y, ReLU
    assert flops["mean"] == 3 * 4 + 4 + 4  # sum of 4 places, division, ReLU
    assert flops["head"] == 2 * 4 * 3 + 3 + 3  # product, bias, cast
    assert flops["div"] == 2 * 16 * 16 * 3
    assert sum(flops.values()) == pytest.approx(counted.xla_measured, rel=1e-6)


def test_parameters_and_filters(counted):
    params = {row.path: row.params for row in counted.rows if row.params}
    block = {"block/conv1": 148, "block/conv2": 148, "block": 4}
    assert params == {"stem": 112, **block, "head": 15, "auxiliary": 10}
    assert counted.params == sum(params.values())
    assert counted.trainable_params == counted.params - sum(block.values())
    assert counted.param_bytes == 4 * counted.params
    assert counted.not_called == ("auxiliary",)
    assert counted.filters == 4 + 4 + 4  # a block called twice has its filters once
    assert counted.study_filters == 4 + 4  # the stem's, and what leaves the block


def test_frozen_names_whole_paths():
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="dense10")(nn.Dense(2, name="dense1")(x))

    counted = profile.count(Pair(), (1, 2), frozen=("dense1",))
    assert (counted.params, counted.trainable_params) == (12, 6)
    with pytest.raises(UserError, match=r"'dense2'.*dense1, dense10"):
        profile.count(Pair(), (1, 2), frozen=("dense2",))


def test_a_net_of_one_layer():
    counted = profile.count(nn.Conv(4, (3, 3)), (8, 8, 3))
    (row,) = counted.rows
    assert (row.path, row.type, row.filters) == ("", "Conv", 4)
    assert counted.study_filters == 4
    assert "(the net) (Conv)" in profile.summary(counted)


def test_what_takes_no_part_in_the_result_is_not_counted():
    class Wasteful(nn.Module):
        @nn.compact
        def __call__(self, x):
            nn.Conv(8, (3, 3), name="unused")(x)
            return nn.Dense(2, name="head")(x)

    counted = profile.count(Wasteful(), (4, 4, 3), measure_xla=True)
    rows = {row.path: row for row in counted.rows}
    assert rows["unused"].flops == profile.Flops()
    assert rows["unused"].params == 224
    assert counted.flops.xla == counted.xla_measured


def test_attention_has_a_softmax_row_and_calls_take_keywords():
    class Classifier(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
            x = nn.Dropout(0.5, deterministic=not train)(x)
            return nn.MultiHeadDotProductAttention(2, name="attention")(x, x)

    counted = profile.count(Classifier(), (1, 5, 8), train=False)
    (softmax,) = [row for row in counted.rows if row.type == "softmax"]
    assert softmax.path == "attention/softmax"
    assert softmax.flops.study == 5 * (2 * 5 * 5)
    assert counted.params == 16 + 4 * 72  # moving statistics are no parameters


@pytest.mark.parametrize("shape", [(), (0, 4, 3), (4, -4, 3), (4.5, 4, 3)])
def test_a_shape_that_is_none_is_refused(shape):
    with pytest.raises(UserError, match="input shape"):
        profile.count(nn.Dense(2), shape)


def test_json_holds_the_contract_and_the_studys_figures():
    net = models.get("final")
    counted = profile.count(
        models.build("final"), (224, 224, 3), frozen=net.frozen, measure_xla=True
    )
    content = json.loads(json.dumps(counted.to_json("final"), allow_nan=False))
    maps = 224 * 224 * 8
    assert (
        content["layers"][0].items()
        >= {
            "path": "conv1",
            "type": "Conv",
            "output_shape": [1, 224, 224, 8],
            "params": 224,
            "filters": 8,
            "flops": {
                "formula": 2 * 3 * 9 * maps,
                "study": 2 * 3 * 9 * maps + maps,  # the bias
                "xla": 2 * 3 * 8 * (3 * 224 - 2) ** 2 + 2 * maps,  # the bias, the ReLU
            },
            "times": 1,
            "complete": True,
        }.items()
    )
    assert content["totals"]["flops"]["study"] == content["reported"]["flops"] == 167860766
    assert content["totals"]["xla_measured"] > 0
    assert content["reported"]["macro"]["f1"] == 0.95
    assert content["errata"] == content["uncounted"] == content["not_called"] == []
    assert counted.to_json()["reported"] is None


@pytest.mark.parametrize(
    ("name", "fields", "size", "errata"),
    [
        ("vgg_custom", {}, 224, 1),
        ("vgg_custom", {"dense": 8}, 224, None),
        ("vgg_custom", {}, 32, None),
        ("mine", {}, 224, None),
    ],
)
def test_reported_figures_are_for_the_studys_own_net_alone(name, fields, size, errata):
    module = models.build("vgg_custom", **fields)
    content = profile.count(module, (size, size, 3)).to_json(name)
    assert (content["reported"] is None) == (errata is None)
    assert len(content["errata"]) == (errata or 0)


def test_a_rule_from_outside_counts_an_operation():
    """A sort of n numbers by n log2 n comparisons, which no convention of ours tells."""

    class Sorted(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="head")(jnp.sort(x, axis=-1))

    def sort(equation):
        (x,) = equation.inputs
        length = x.shape[equation.params["dimension"]]
        return profile.Flops(xla=x.size * (length.bit_length() - 1))

    without = profile.count(Sorted(), (3, 8), softmax=False)
    found = profile.count(Sorted(), (3, 8), softmax=False, rules={"sort": sort})
    rows = {row.path: row.flops for row in found.rows}
    assert rows["sort"] == profile.Flops(xla=3 * 8 * 3)
    assert found.uncounted == ()
    assert {row.path: row.flops for row in without.rows}["head"] == rows["head"]
    unknown = profile.count(Sorted(), (3, 8), rules={"dot_general": lambda equation: None})
    assert [each.operation for each in unknown.uncounted if each.layer == "head"] == ["dot_general"]


def test_uncounted_and_uncalled_are_in_the_json():
    class Called(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
            return nn.Dense(2, name="head")(x)

    content = profile.count(Called(), (1, 7)).to_json()
    assert content["totals"]["complete"] is False
    assert content["uncounted"] == [
        {
            "layer": "",
            "operation": "pure_callback",
            "input_shapes": [[1, 7]],
            "output_shapes": [[1, 7]],
        }
    ]


class Reads(nn.Module):
    """Reads the parameters of one layer that it does not call, and none of another."""

    def setup(self):
        self.table, self.idle = nn.Embed(6, 4), nn.Embed(2, 2)

    def __call__(self, x):
        if self.is_initializing():
            self.idle(jnp.zeros(1, int))
        return x @ self.table.embedding.T


def test_only_what_no_one_reads_takes_no_part():
    assert profile.count(Reads(), (7, 4)).not_called == ("idle",)

    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.WeightNorm(nn.Conv(5, (3, 3), name="conv"), name="norm")(x)

    found = profile.count(Scaled(), (6, 6, 4))
    assert found.not_called == ()
    assert {row.path: row.params for row in found.rows} == {"norm": 5, "conv": 185}


def test_bit_operations_and_bytes_of_each_precision():
    """A matrix of 12 x 5: 60 multiply-adds, 60 weights; 5 biases, which stay at 32 bits."""
    counted = profile.count(nn.Dense(5, name="head"), (1, 12))
    whole, small = (counted.at(profile.PRECISIONS[name]) for name in ("float32", "int8"))
    assert whole["bit_operations"] == 60 * 32 * 32
    assert small["bit_operations"] == 60 * 8 * 8
    assert counted.at(profile.Precision(4, 8))["bit_operations"] == 60 * 4 * 8
    assert whole["param_bytes"] == 4 * 65 == counted.param_bytes
    assert small["param_bytes"] == 60 + 4 * 5
    assert whole["bytes"] == counted.traffic.total == 4 * small["bytes"]
    assert counted.to_json()["totals"]["precisions"] == {"float32": whole, "int8": small}
    assert "Bit operations: float32 61,440" in profile.summary(counted)


@pytest.mark.parametrize("convention", profile.CONVENTIONS)
def test_the_table_shows_every_row_and_total(counted, convention):
    lines = profile.summary(counted, convention).splitlines()
    assert max(map(len, lines)) <= 100
    assert f"FLOPs ({convention})" in lines[0]
    for row, line in zip(counted.rows, lines[2:], strict=False):
        assert line.startswith(row.path)
        assert f" {getattr(row.flops, convention):,} " in line
    text = "\n".join(lines)
    assert f"{counted.trainable_params:,} trainable, 300 not" in text
    assert f"study {counted.flops.study:,}" in text
    assert f"XLA's own count: {counted.xla_measured:,}" in lines
    assert lines[-1] == "Never called: auxiliary"


def test_the_table_keeps_its_width_with_long_names():
    class AModuleWhoseNameGoesOnAndOn(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="a_layer_whose_name_goes_on_and_on_and_on_to_the_end")(x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = AModuleWhoseNameGoesOnAndOn(name="outer")(x)
            return x * self.param("scale", nn.initializers.ones, (2,))

    text = profile.summary(profile.count(Outer(), (1, 2)))
    assert max(map(len, text.splitlines())) <= 100
    assert any(line[0] == "…" and "on_and_on_to_the_end " in line for line in text.splitlines())


class Wide(nn.Module):
    """A matrix of 1000 x `units`."""

    units: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.units, use_bias=False, name="layer")(x)


@pytest.mark.parametrize(
    ("images", "units", "params", "flops", "at_least"),
    [
        (1, 99_999, "99,999,000", "199,998,000", "≥ 199,998,000"),
        (1, 100_000_000, "100 G", "200,000,000,000", "≥ 200 G"),
        (4_999, 10_000, "10,000,000", "99,980,000,000", "≥ 99,980,000,000"),
        (50_000_000, 10_000, "10,000,000", "1000 T", "≥ 1000 T"),
        (2_000_000, 1_234_567, "1.23 G", "4940 T", "≥ 4940 T"),
    ],
)
def test_the_table_keeps_its_columns_apart_however_large_its_counts(
    images, units, params, flops, at_least
):
    counted = profile.count(Wide(units), (images, 1000), softmax=False)
    (row,) = counted.rows
    lacking = dataclasses.replace(counted, rows=(dataclasses.replace(row, complete=False),))
    for device in (None, profile.Device(1e12, 1e11)):
        for shown, told in ((counted, flops), (lacking, at_least)):
            lines = profile.summary(shown, "formula", device).splitlines()
            assert max(map(len, lines)) <= 100
            assert f" {params} " in lines[2]
            assert f" {told} " in lines[2]


def test_an_unknown_convention_is_refused(counted):
    with pytest.raises(UserError, match="formula, study, xla"):
        profile.summary(counted, "macs")


def test_theoretical_time_is_flops_over_the_devices_rate():
    assert profile.theoretical_seconds(30_713_485_342, 15.3567e12) == pytest.approx(0.002, 1e-4)
    with pytest.raises(UserError, match="must be positive"):
        profile.theoretical_seconds(1, 0)


@pytest.fixture(scope="module")
def small():
    module = models.build("final", stages=((2,),), dense=2)
    return module, jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_latency_is_measured_for_one_image_and_for_a_batch(small):
    measured = profile.latency(*small, (8, 8, 3), repeats=5, warmup=1, train=False)
    assert 0 < measured["p10"] <= measured["median"] <= measured["p90"]
    assert measured["repeats"] == 5
    assert measured["compile_seconds"] > 0
    assert measured["from_host"] > 0
    throughput = measured["throughput"]
    assert throughput["batch_size"] in (1, 2, 4, 8, 16, 32)
    assert throughput["images_per_second"] > 0
    assert json.dumps(measured, allow_nan=False)
    with pytest.raises(UserError, match="1 repeat"):
        profile.latency(*small, (8, 8, 3), repeats=0)


@pytest.mark.parametrize(("largest", "batches"), [(1, {1}), (2, {1, 2}), (7, {1, 2, 4})])
def test_the_batch_that_is_timed_may_be_bounded(small, largest, batches):
    measured = profile.latency(*small, (8, 8, 3), repeats=3, warmup=1, largest_batch=largest)
    assert measured["throughput"]["batch_size"] in batches
    if largest == 1:  # the one image's own figures, with nothing compiled for them again
        assert measured["throughput"]["compile_seconds"] == measured["compile_seconds"]


def test_a_batch_of_no_image_is_not_timed(small):
    with pytest.raises(UserError, match="largest batch of 1 image or more, not 0"):
        profile.latency(*small, (8, 8, 3), largest_batch=0)


def test_latency_of_a_slow_net_takes_a_small_batch_and_few_runs(small):
    measured = profile.latency(*small, (8, 8, 3), seconds=1e-9)
    assert measured["repeats"] == measured["throughput"]["repeats"] == 3
    assert measured["throughput"]["batch_size"] == 1
