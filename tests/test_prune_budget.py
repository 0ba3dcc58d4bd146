"""Costs as a function of what is left, and budgets met to less than one filter."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax import models, prune
from rice_jax.errors import UserError
from rice_jax.prune.budget import to_budget
from rice_jax.prune.cost import cost
from rice_jax.prune.narrow import narrow

MEASURES = ("formula", "study", "xla", "params", "filters")


@pytest.mark.parametrize("name", prunable.NETS)
@pytest.mark.one_in(2)
def test_the_cost_is_what_the_profiler_counts_on_the_smaller_net(name):
    module = prunable.NETS[name]()
    graph = prune.dependencies(module, prunable.SHAPE)
    whole = prune.totals(module, prunable.SHAPE)
    costs = {measure: cost(graph, measure, whole[measure]) for measure in MEASURES}
    rng = np.random.default_rng(0)
    removed = rng.random(graph.channels) < 0.5
    for group in np.flatnonzero(graph.sizes(removed) == 0):
        removed[np.flatnonzero(graph.group == group)[0]] = False
    left = prune.totals(narrow(module, graph, removed), prunable.SHAPE)
    found = {measure: of(graph.sizes(removed)) for measure, of in costs.items()}
    assert found | {"uncounted": 0} == left


GRAPH = prune.dependencies(models.build("final"), (1, 224, 224, 3))
WHOLE = prune.totals(models.build("final"), (1, 224, 224, 3))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_transposed_convolution_has_a_cost_though_it_is_no_whole_number_a_channel(measure):
    """Three by three places to seven by seven with a stride of two: of 49 a quarter in `study`."""

    class Up(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(6, (3, 3), strides=2, padding="VALID", name="down")(x))
            x = nn.ConvTranspose(5, (3, 3), (2, 2), "VALID", name="up")(x)
            return nn.Dense(3, name="head")(nn.relu(x).mean((1, 2)))

    shape = (1, 8, 8, 3)
    graph, whole = prune.dependencies(Up(), shape), prune.totals(Up(), shape)
    of = cost(graph, measure, whole[measure])
    assert of(graph.sizes()) == whole[measure]
    for down, up in ((1, 1), (2, 3), (5, 4)):
        left = {"down": down, "up": up}
        removed = graph.select({path: range(left[path], n) for path, n in (("down", 6), ("up", 5))})
        counted = prune.totals(narrow(Up(), graph, removed), shape)[measure]
        assert of(graph.sizes(removed)) == counted
        fewer = of(graph.sizes(removed)) - of.of_one(graph.sizes(removed))[0]
        again = removed | graph.select({"down": [0]})
        assert abs(fewer - of(graph.sizes(again))) < 1


def test_one_channel_less_saves_what_the_difference_of_costs_says():
    of = cost(GRAPH, "study", WHOLE["study"])
    sizes = np.array([5, 9, 13, 16, 300])
    differences = [of(sizes) - of(sizes - one) for one in np.eye(5, dtype=int)]
    np.testing.assert_array_equal(of.of_one(sizes), differences)


def test_the_cost_of_final_by_hand():
    """conv1 at 224 x 224, three at 112 x 112, dense after an average over 56 x 56."""
    a, b, c, d, e = 2, 3, 4, 5, 6
    formula = 2 * 9 * (3 * a * 224**2 + (a * b + b * c + c * d) * 112**2) + 2 * (d * e + e * 5)
    of = cost(GRAPH, "formula", WHOLE["formula"])
    assert of(np.array([a, b, c, d, e])) == formula
    params = 9 * (3 * a + a * b + b * c + c * d) + d * e + e * 5 + a + b + c + d + e + 5
    assert cost(GRAPH, "params", WHOLE["params"])(np.array([a, b, c, d, e])) == params


@settings(max_examples=50)
@given(st.sampled_from(MEASURES), st.floats(0.06, 1), st.integers(0, 2**16))
def test_a_budget_is_undershot_by_less_than_any_removed_filter(measure, share, seed):
    scores = np.random.default_rng(seed).random(GRAPH.channels)
    of = cost(GRAPH, measure, WHOLE[measure])
    least = of(np.ones(GRAPH.groups, int))
    budget = max(least, int(share * WHOLE[measure]))
    removed = to_budget(GRAPH, scores, of, budget)
    sizes = GRAPH.sizes(removed)
    assert sizes.min() >= 1
    assert of(sizes) <= budget
    for group in np.unique(GRAPH.group[removed]):
        one_more = sizes + np.eye(GRAPH.groups, dtype=int)[group]
        assert of(one_more) > budget


def test_the_least_important_goes_first():
    of = cost(GRAPH, "filters", WHOLE["filters"])
    scores = np.ones(GRAPH.channels)
    first, third = (np.flatnonzero(GRAPH.group == group) for group in (0, 2))
    scores[first[[2, 5]]], scores[third[7]] = 0.1, 0.2
    removed = to_budget(GRAPH, scores, of, WHOLE["filters"] - 3)
    assert GRAPH.by_layer(removed) == {"conv1": [2, 5], "conv3": [7]}


def test_no_layer_collapses_though_its_filters_score_nothing():
    """Narrowed alike all keep half, so half of that stays, but four of conv1, which has eight."""
    widths = np.bincount(GRAPH.group)
    assert list(widths[:4]) == [8, 16, 16, 16]
    of = cost(GRAPH, "filters", WHOLE["filters"])
    for group in range(4):
        scores = np.where(GRAPH.group == group, 0.0, 1.0)
        sizes = GRAPH.sizes(to_budget(GRAPH, scores, of, WHOLE["filters"] // 2))
        assert sizes[group] == 4
        assert of(sizes) == WHOLE["filters"] // 2


def test_what_is_gone_already_counts_and_stays_gone():
    of = cost(GRAPH, "filters", WHOLE["filters"])
    gone = GRAPH.select({"conv2": [1, 2, 3]})
    removed = to_budget(GRAPH, np.ones(GRAPH.channels), of, WHOLE["filters"] - 2, removed=gone)
    np.testing.assert_array_equal(removed, gone)


def test_a_budget_above_the_cost_removes_nothing():
    of = cost(GRAPH, "params", WHOLE["params"])
    assert not to_budget(GRAPH, np.ones(GRAPH.channels), of, WHOLE["params"]).any()


def test_a_budget_of_nothing_and_one_that_cannot_be_met_are_refused():
    of = cost(GRAPH, "filters", WHOLE["filters"])
    with pytest.raises(UserError, match="a budget of 0 leaves nothing"):
        to_budget(GRAPH, np.ones(GRAPH.channels), of, 0)
    with pytest.raises(UserError, match="with one filter in each layer the net still costs 4"):
        to_budget(GRAPH, np.ones(GRAPH.channels), of, 3)


@pytest.mark.parametrize(("layers", "stay"), [(1, "1 layer stays"), (2, "2 layers stay")])
def test_a_budget_that_cannot_be_met_tells_what_stays_whole(layers, stay):
    class Sorted(nn.Module):
        @nn.compact
        def __call__(self, x):
            for number in range(layers):
                x = jnp.sort(nn.Conv(4, (3, 3), name=f"whole{number}")(x), axis=-1)
            return nn.Conv(2, (3, 3), name="cut")(x).mean((1, 2))

    graph = prune.dependencies(Sorted(), (1, 8, 8, 3), on_unknown="keep")
    of = cost(graph, "filters", 4 * layers + 2)
    message = (
        f"^a budget of 2 cannot be met: with one filter in each layer that can be cut the net "
        rf"still costs {4 * layers + 2}; {stay} whole \(whole0: sort in .* is not seen through\)$"
    )
    with pytest.raises(UserError, match=message):
        to_budget(graph, np.ones(graph.channels), of, 2)


def test_totals_say_what_they_lack():
    class Until(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3))(x)
            return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x * 2, x).mean((1, 2))

    assert prune.totals(Until(), (1, 8, 8, 3))["uncounted"] == 1
    assert WHOLE["uncounted"] == 0


def test_a_budget_of_what_is_not_counted_is_named():
    module = models.build("final", stages=((2,),), dense=2)
    images = np.zeros((1, 8, 8, 3), np.float32)
    variables = module.init(jax.random.key(0), images)
    with pytest.raises(UserError, match="budgets of 'flops': there are formula, study, xla, param"):
        prune.prune(module, variables, [images], budgets={"flops": 100}, criterion="l1")
