"""The configuration and the parameters of a smaller net, out of those of a trained one."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from rice_jax import nets, train
from rice_jax.errors import UserError
from rice_jax.graph.call import nested
from rice_jax.graph.scopes import is_under
from rice_jax.graph.trace import variable_shapes
from rice_jax.models import Adjustable
from rice_jax.prune.pruner import Pruned, prune
from rice_jax.records import PruneRequest


def configured(config: ml_collections.ConfigDict, net: Any) -> ml_collections.ConfigDict:
    """The configuration of another net of the same class, begun from no file."""
    made = ml_collections.ConfigDict(config.to_dict()).unlock()
    made.model.update({**net.settings(), "weights": ""})
    return made.lock()


def cut(
    request: PruneRequest, module: Adjustable, variables: Any, images: Any, *, seed: int, **how: Any
) -> Pruned:
    """What is left of a net by a request's criterion, in the layers that it allows.

    Args:
        request: of which neither the budgets nor what is dropped is looked at.
        module: the net.
        variables: its variables.
        images: as `prune` takes them.
        seed: of what is drawn at random.
        **how: what goes, and else what `prune` takes.

    Raises:
        UserError: as `prune`.
    """
    return prune(  # type: ignore[call-overload]
        module,
        variables,
        images,
        criterion=request.criterion,
        allocation=request.allocation,
        only=request.only,
        skip=request.skip,
        round_to=request.round_to,
        seed=seed,
        on_unknown=request.on_unknown,
        rebuild=module.with_widths,
        optional=module.optional(),
        **how,
    )


def looks_at(config: ml_collections.ConfigDict) -> int:
    """Height and width of what the net's first convolution sees of the image."""
    return nets.averaged(config.data.image_size, config.model.get("grid", 0))


def without(
    config: ml_collections.ConfigDict, params: Any, paths: Collection[str]
) -> tuple[ml_collections.ConfigDict, Any, list[str], dict[str, str]]:
    """A net without some of its blocks.

    A layer whose kernel no longer fits what it reads starts at random.

    Args:
        config: of the whole net.
        params: its parameters.
        paths: of the net's `blocks`.

    Returns:
        The configuration, the parameters, the paths of the layers that start at random, and by
        path in the smaller net that of each of its layers in the whole one.

    Raises:
        UserError: for a path that is no block's, or nothing left.
    """
    whole = train.build(config)
    known = whole.blocks(train.input_shape(config))
    for path in paths:
        if path not in known:
            none = "none: no layer's input and output are maps of one shape"
            raise UserError(
                f"--drop_layers={path}: {config.model.name} can drop {', '.join(known) or none}"
            )
    if len(known) - len(set(paths)) < whole.least_blocks:
        raise UserError("--drop_layers names every block: keep at least one")
    net, names = whole.without(paths)
    smaller = configured(config, net)
    with smaller.unlocked():
        smaller.train.frozen = frozen_without(config, paths)
    kept = {
        path: array
        for path, array in traverse_util.flatten_dict(params, sep="/").items()
        if not is_under(path, paths)
    }
    origin = {_renamed(path, names).rpartition("/")[0]: path.rpartition("/")[0] for path in kept}
    given = {_renamed(path, names): array for path, array in kept.items()}
    return smaller, *_fitted(smaller, net, given), origin


def frozen_without(config: ml_collections.ConfigDict, paths: Collection[str]) -> tuple[str, ...]:
    """What does not learn of a net `without` some of its blocks, by the paths that are left."""
    _, names = train.build(config).without(paths)
    return tuple(_renamed(path, names) for path in config.train.frozen if not is_under(path, paths))


def _renamed(path: str, names: Mapping[str, str]) -> str:
    """A path where blocks have other names."""
    block = next((block for block in names if is_under(path, [block])), None)
    return path if block is None else names[block] + path[len(block) :]


def _fitted(
    config: ml_collections.ConfigDict, net: Adjustable, given: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """The net's parameters, as far as they are `given`, and the layers that start at random."""
    shapes = variable_shapes(net, train.input_shape(config))["params"]
    wanted = traverse_util.flatten_dict(shapes, sep="/")
    unfit = {
        path.rpartition("/")[0]
        for path, leaf in wanted.items()
        if path not in given or given[path].shape != leaf.shape
    }
    every = {**given, **_fresh(config, net, unfit)}
    return nested(every, shapes), sorted(unfit)


def _fresh(
    config: ml_collections.ConfigDict, net: Adjustable, layers: Collection[str]
) -> dict[str, Any]:
    """Random parameters of these layers alone, by path."""

    @jax.jit
    def draw(key: jax.Array) -> dict[str, jax.Array]:
        params = net.init(key, np.zeros(train.input_shape(config), np.float32))["params"]
        flat = traverse_util.flatten_dict(params, sep="/")
        return {path: leaf for path, leaf in flat.items() if path.rpartition("/")[0] in layers}

    return draw(jax.random.key(config.seed)) if layers else {}
