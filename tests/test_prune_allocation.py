"""A budget shared out in several ways, in multiples, and around layers that are to stay."""

import numpy as np
import prunable
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax import models, prune
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.prune.allocation import ALLOCATIONS, classes, held
from rice_jax.prune.budget import to_budget
from rice_jax.prune.cost import cost

MODULE = models.build("final", dense=48)
GRAPH = prune.dependencies(MODULE, (1, 64, 64, 3))
WHOLE = prune.totals(MODULE, (1, 64, 64, 3))
LAYERS = ("conv1", "conv2", "conv3", "conv4", "dense")
SIZES = np.array([8, 16, 16, 16, 48])


def random_scores(seed=0):
    return np.random.default_rng(seed).random(GRAPH.channels)


@settings(max_examples=60)
@given(
    st.sampled_from(ALLOCATIONS),
    st.sampled_from((1, 2, 4, 8, 24)),
    st.sets(st.sampled_from(LAYERS), max_size=4),
    st.floats(0.02, 1),
    st.integers(0, 2**16),
)
def test_a_budget_is_met_in_multiples_and_what_is_to_stay_stays(
    allocation, round_to, skip, share, seed
):
    of, budget = cost(GRAPH, "study", WHOLE["study"]), int(share * WHOLE["study"])
    stay = held(GRAPH, (), skip)
    least = np.where([path in skip for path in LAYERS], SIZES, np.minimum(SIZES, round_to))
    ways = {"held": stay, "round_to": round_to, "allocation": allocation}
    if of(least) > budget:
        with pytest.raises(UserError, match="cannot be met"):
            to_budget(GRAPH, random_scores(seed), of, budget, **ways)
        return
    removed = to_budget(GRAPH, random_scores(seed), of, budget, **ways)
    sizes = GRAPH.sizes(removed)
    assert of(sizes) <= budget
    assert not (removed & stay).any()
    assert all(
        size == whole or size % round_to == 0 for size, whole in zip(sizes, SIZES, strict=True)
    )
    assert sizes.min() >= 1


def test_uniform_takes_the_same_share_of_each_layer_and_its_least_important():
    scores = random_scores()
    of = cost(GRAPH, "params", WHOLE["params"])
    halved = of(SIZES // 2)
    removed = to_budget(GRAPH, scores, of, halved, allocation="uniform")
    np.testing.assert_array_equal(GRAPH.sizes(removed), SIZES // 2)
    for group in range(GRAPH.groups):
        inside = GRAPH.group == group
        assert scores[inside & removed].max() < scores[inside & ~removed].min()


def test_isomorphic_ranks_layers_of_one_shape_together_and_no_others():
    """conv1 to conv3 are read by 3x3 kernels, conv4 by dense rows, the dense layer by the head."""
    assert classes(GRAPH, "isomorphic").tolist() == [0, 0, 0, 1, 2]
    scores = 1 + random_scores()
    scores[GRAPH.group == 1] -= 1  # conv2 is worth less than its likes
    scores[GRAPH.group == 4] *= 100
    of = cost(GRAPH, "filters", WHOLE["filters"])
    removed = to_budget(GRAPH, scores, of, 56 - 14, allocation="isomorphic")
    assert [size.tolist() for size in GRAPH.sizes(removed)[:3]] == [8, 6, 16]
    assert 16 - GRAPH.sizes(removed)[3] == 4  # a quarter, as of the 40 before it


def test_groups_of_one_shape_are_found_wherever_they_stand():
    module = models.build("googlenet", **prunable.WIDTHS["googlenet"])
    graph = prune.dependencies(module, prunable.SHAPE)
    found = dict(
        zip(
            map(tuple, map(graph.layers, range(graph.groups))),
            classes(graph, "isomorphic"),
            strict=True,
        )
    )
    same = {found[(f"inception{block}/branch2/reduce",)] for block in ("3a", "4a", "4b", "5a")}
    other = {found[(f"inception{block}/branch3/reduce",)] for block in ("3a", "4a", "4b", "5a")}
    assert len(same) == len(other) == 1
    assert same != other  # read by 3x3 kernels and by 5x5


def test_a_path_stands_for_all_below_it_and_an_unknown_one_is_named():
    module = models.build("googlenet", **prunable.WIDTHS["googlenet"])
    graph = prune.dependencies(module, prunable.SHAPE)
    one = held(graph, (), ["inception4a"])
    assert {path.partition("/")[0] for path in graph.by_layer(one)} == {"inception4a"}
    np.testing.assert_array_equal(held(graph, ["inception4a"], ()), ~one)
    with pytest.raises(UserError, match="skip=inception9: there is no such layer"):
        held(graph, (), ["inception9"])


def test_channels_of_a_sum_stay_where_one_of_their_layers_does():
    graph = prune.dependencies(prunable.Residual(), prunable.SHAPE)
    stay = held(graph, (), ["a_out"])
    assert set(graph.by_layer(stay)) == {"stem", "a_out", "b_out"}


def test_the_pruner_takes_all_of_it():
    module = models.build("final", stages=((8,), (16,)), dense=16)
    shape = (2, 16, 16, 3)
    images = prunable.images(0, shape)
    variables = prunable.random_variables(variable_shapes(module, shape), 0)
    asked = {"criterion": "l2", "allocation": "uniform", "skip": ["dense"], "round_to": 4}
    cut = prune.prune(module, variables, [images], budgets={"filters": 12}, **asked)
    assert {path: len(kept) for path, kept in cut.kept.items()} == {
        "conv1": 4,
        "conv2": 8,
        "dense": 16,
        "head": 5,
    }
    with pytest.raises(UserError, match="there are global, uniform, isomorphic"):
        prune.prune(module, variables, [images], budgets={"filters": 9}, allocation="fair")
