"""Nets with random variables; the whole net with filters at zero, a smaller one's oracle."""

import jax
import numpy as np
import prunable
from flax import traverse_util

from rice_jax import prune
from rice_jax.graph.call import by_path, chosen


def initialised(module, call, x, seed=0):
    """Random variables as `init` puts them together; they are NumPy's, where init compiles long."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(seed), x, **call))
    return prunable.random_variables(shapes, seed)


def some_filters(graph, seed):
    """Random filters by layer that leave each group one at least."""
    draw = np.random.default_rng(seed)
    removed = draw.random(graph.channels) < 0.4
    removed[:1] = True
    for group in range(graph.groups):
        inside = np.flatnonzero(graph.group == group)
        removed[draw.choice(inside)] = False
    return graph.by_layer(removed)


def masked(module, variables, removed, x, output=None, **call):
    """The whole net with the removed filters at zero: their weights are."""
    flat = by_path(variables)
    for path, filters in removed.items():
        for name in ("kernel", "bias"):
            key = f"params/{path}/{name}"
            flat[key] = np.array(flat[key])
            flat[key][..., filters] = 0
    for key in flat:
        if key.endswith(("bn/scale", "bn/bias")):  # the units of fc are its channels by turns
            flat[key] = np.array(flat[key])
            flat[key][[unit % flat[key].size for unit in removed.get("fc", ())]] = 0
    return logits(module, traverse_util.unflatten_dict(flat, sep="/"), x, output, **call)


def logits(module, variables, x, output=None, **call):
    run = prunable.compiled(lambda v, x: chosen(module.apply(v, x, **call), output), variables, x)
    return run(variables, x)


def check_pruned(module, variables, x, seed, **call):
    """Remove random filters and hold the smaller net against the masked one; what came out."""
    graph = prune.dependencies(module, x.shape, batched=True, dtype=x.dtype, **call)
    pruned = prune.prune(module, variables, [x], filters=some_filters(graph, seed), **call)
    output = call.pop("output", None)
    got = logits(pruned.module, pruned.variables, x, output, **call)
    wanted = masked(module, variables, pruned.removed, x, output, **call)
    scale = float(np.max(np.abs(wanted)))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * scale)
    assert sum(map(len, pruned.removed.values())) > 0
    assert pruned.after["params"] < pruned.before["params"]
    return pruned
