"""Whatever a net is written in, the tools say the same of it, and leave it as it was."""

import functools

import jax
import nets_in_both
import numpy as np
import prunable
import pytest
from flax import nnx
from nets_in_both import linen_path

from rice_jax import inspection, profile
from rice_jax.graph.fronts import front
from rice_jax.graph.trace import trace
from rice_jax.prune import prune

SHAPE = nets_in_both.SHAPE
IMAGE = SHAPE[1:]
built = functools.cache(nets_in_both.built)
NETS = pytest.mark.parametrize("name", nets_in_both.NETS)
NORMED = ("batch norm", "group and layer norm", "groups of tokens")
"""Flax writes the norms otherwise in NNX: these nets are compared by numbers."""


def written_out(traced):
    """Each operation with its layer and, by numbers, what it reads and makes; what is returned."""
    numbers = {
        value: linen_path(path.replace("layers/", "layers_"))
        for path, value in traced.variables.items()
    }

    def told(values):
        constants = [None if v.constant is None else v.constant.tolist() for v in values]
        named = [numbers.setdefault(v, len(numbers)) if v.constant is None else "" for v in values]
        return [(n, c, v.shape) for n, c, v in zip(named, constants, values, strict=True)]

    equations = traced.needed(traced.outputs)  # keys that nothing draws from are no part of it
    return [
        (each.name, linen_path(each.layer), str(each.params), told(each.inputs), told(each.outputs))
        for each in equations
    ], told(traced.outputs)


def rows(counted):
    """What is counted of each layer, without the classes' names: Dense is Linear in NNX."""
    return {
        linen_path(row.path): {
            key: value for key, value in row.to_json().items() if key not in ("type", "path")
        }
        for row in counted.rows
    }


@NETS
@pytest.mark.one_in(4)
def test_the_same_net_in_linen_and_nnx_computes_and_costs_the_same(name):
    """The same operations in the same layers, so that whatever reads a trace says the same."""
    linen, module, _ = built(name)
    one, other = trace(linen, (1, *IMAGE)), trace(module, (1, *IMAGE))
    assert name in NORMED or written_out(one) == written_out(other)
    assert sorted(one.layers) == sorted(map(linen_path, other.layers))
    one, other = profile.of_trace(one), profile.of_trace(other)
    assert rows(one) == rows(other)
    assert one.flops.formula > 0
    assert one.flops == other.flops
    assert one.params == other.params
    assert other.complete


@pytest.mark.parametrize("name", NORMED)
def test_the_same_net_in_linen_and_nnx_has_the_same_maps(name):
    linen, module, variables = built(name)
    x = nets_in_both.images()
    one, other = inspection.feature_maps(linen, variables, x), inspection.feature_maps(module, x)
    assert list(one) == list(other)
    for path, maps in other.items():
        np.testing.assert_allclose(maps, one[path], atol=1e-6)


def test_the_same_net_in_linen_and_nnx_has_the_same_dead_filters_and_bounds():
    linen, module, variables = built("batch norm")
    x = nets_in_both.images()
    census = inspection.census(linen, variables, [x])
    dead = {path: layer.dead for path, layer in census.layers.items()}
    found = inspection.census(module, [x]).layers
    assert {path: layer.dead for path, layer in found.items()} == dead
    assert dead["conv1"]
    bounds, _ = inspection.map_bounds(linen, variables, SHAPE)
    for path, ends in inspection.map_bounds(module, SHAPE)[0].items():
        np.testing.assert_allclose(ends, bounds[path], atol=1e-5)
    cut = prune(module, [x], drop="proven")
    assert cut.certificate.proven
    assert cut.removed["conv1"] == dead["conv1"]


NORMS = {
    "batch norm": {"conv1": "norm1", "conv2": "norm2"},
    "group and layer norm": {"conv1": "groups"},
    "groups of tokens": {"conv1": "groups"},
}


def silenced(name, module, removed):
    """The whole net with what makes the removed channels at zero, the norms after it too."""
    net = front(module)
    variables = jax.tree.map(np.array, net.variables)
    for path, filters in removed.items():
        for layer in filter(None, (path, NORMS.get(name, {}).get(path))):
            own = functools.reduce(
                lambda tree, key: tree[key], layer.split("/"), variables["params"]
            )
            for array in own.values():
                array[..., filters] = 0
    return net.given(variables)[0]


@NETS
@pytest.mark.one_in(5)
def test_half_an_nnx_net_equals_the_whole_one_with_those_filters_silent(name):
    _, module, _ = built(name)
    before, sizes = jax.tree.map(np.array, front(module).variables), nnx.graphdef(module)
    x = nets_in_both.images()
    half = profile.count(module, IMAGE).flops.formula // 2
    cut = prune(module, [x], budgets={"formula": half}, criterion="l1", on_unknown="keep")
    assert half * 0.6 < cut.after["formula"] <= half
    assert cut.variables is None
    whole = silenced(name, module, cut.removed)
    wanted, got = prunable.compiled(lambda x: (whole(x), cut.module(x)), x)(x)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    for _, layer in nnx.iter_graph(cut.module):
        agrees(layer)
    jax.tree.map(np.testing.assert_array_equal, front(module).variables, before)
    assert nnx.graphdef(module) == sizes


def agrees(layer):
    """What a layer notes of its sizes is what a new one of these sizes would have."""
    if isinstance(layer, nnx.Conv):
        again = nnx.Conv(
            layer.in_features,
            layer.out_features,
            layer.kernel_size,
            feature_group_count=layer.feature_group_count,
            rngs=nnx.Rngs(0),
        )
        assert layer.kernel.shape == layer.kernel_shape == again.kernel_shape
    elif isinstance(layer, nnx.Linear):
        assert layer.kernel.shape == (layer.in_features, layer.out_features)
    elif isinstance(layer, nnx.BatchNorm):
        assert layer.mean.shape == layer.scale.shape == (layer.num_features,)
    elif isinstance(layer, nnx.GroupNorm):
        assert layer.scale.shape == (layer.num_groups * layer.group_size,)
