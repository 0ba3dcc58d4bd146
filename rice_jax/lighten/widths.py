"""The nets' configurations with other widths, or fewer layers."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from rice_jax import models, nets, train
from rice_jax.errors import UserError
from rice_jax.graph import narrowed
from rice_jax.graph.trace import variable_shapes
from rice_jax.lighten import own
from rice_jax.nets import OWN
from rice_jax.profile import count
from rice_jax.prune.pruner import Pruned

_PARTS = (
    "branch1/conv",
    "branch2/reduce",
    "branch2/conv",
    "branch3/reduce",
    "branch3/conv",
    "branch4/conv",
)
"""Of an inception, in the order of its widths."""


def is_own(config: ml_collections.ConfigDict) -> bool:
    """Whether the net is of the user's own."""
    return models.get(config.model.name).kind == OWN


def with_widths(
    config: ml_collections.ConfigDict, widths: Mapping[str, int]
) -> ml_collections.ConfigDict:
    """The configuration of a net with `widths`, the filters of each layer by its path."""
    fields: dict[str, Any] = {}
    if _is_googlenet(config):
        fields["stem"] = tuple(widths[f"conv{number}"] for number in (1, 2, 3))
        fields["inceptions"] = tuple(
            tuple(tuple(widths.get(f"{path}/{part}", 0) for part in _PARTS) for path in stage)
            for stage in _inceptions(config)
        )
    else:
        filters = [[widths[path] for path in stage] for stage in _convolutions(config)]
        fields = _filters(config, filters) | {"dense": widths["dense"]}
    return changed(config, fields)


def rebuild(config: ml_collections.ConfigDict) -> Callable[[Mapping[str, int]], Any] | None:
    """From the filters left by layer path to a module; None where its own code runs narrower."""
    if is_own(config):
        return None
    return lambda left: train.build(with_widths(config, left))


def left_by(config: ml_collections.ConfigDict, cut: Pruned) -> ml_collections.ConfigDict:
    """The configuration of what pruning left of the net that `config` is of."""
    if is_own(config):
        return changed(config, {"narrowed": narrowed.to_text(cut.module)})
    return with_widths(config, {path: len(kept) for path, kept in cut.kept.items()})


def optional(config: ml_collections.ConfigDict) -> list[str]:
    """The layers that a net leaves out where they have no filter: all but an inception's first."""
    if not _is_googlenet(config):
        return []
    paths = (path for stage in _inceptions(config) for path in stage)
    return [f"{path}/{part}" for path in paths for part in (_PARTS[2], *_PARTS[4:])]


def changed(
    config: ml_collections.ConfigDict, fields: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """The configuration of a net with other fields of `config.model`, begun from no file."""
    made = ml_collections.ConfigDict(config.to_dict()).unlock()
    made.model.update({**fields, "weights": ""})
    return made.lock()


def looks_at(config: ml_collections.ConfigDict) -> int:
    """Height and width of what the net's first convolution sees of the image."""
    return nets.averaged(config.data.image_size, config.model.get("grid", 0))


def stem_stride(config: ml_collections.ConfigDict) -> int:
    """Stride of the first convolution of a net that has it as a field."""
    return config.model.stem_stride or config.model.strides


def on_smaller_maps(
    config: ml_collections.ConfigDict, smaller: ml_collections.ConfigDict, params: Any
) -> Any:
    """Parameters for a net of the same layers whose maps are smaller.

    Those of convolutions and of what reads an average are the same. A dense layer that reads each
    place of a map reads the place in the smaller one that covers it: rows of its kernel (H, W, C)
    add up, which gives the output that the smaller map, enlarged by repetition, would have given.
    """
    if is_own(config) or config.model.get("pooling") != "flatten":
        return params
    (h, w, c), (lower, narrower, _) = (_last_map(each) for each in (config, smaller))
    kernel = np.asarray(params["dense"]["kernel"]).reshape(h, w, c, -1)
    rows, columns = np.arange(h) * lower // h, np.arange(w) * narrower // w
    summed = np.zeros((lower, narrower, c, kernel.shape[-1]), kernel.dtype)
    np.add.at(summed, (rows[:, None], columns[None]), kernel)
    dense = {**params["dense"], "kernel": summed.reshape(-1, kernel.shape[-1])}
    return {**params, "dense": dense}


def _last_map(config: ml_collections.ConfigDict) -> tuple[int, int, int]:
    """Height, width and channels of the map that a dense layer reads."""
    side = config.data.image_size
    shapes = {
        row.path: row.output_shape for row in count(train.build(config), (side, side, 3)).rows
    }
    _, h, w, c = shapes[f"pool{len(config.model.stages)}"] or ()
    return h, w, c


def blocks(config: ml_collections.ConfigDict) -> list[str]:
    """Paths of what `without` can drop, in order: convolutions, inceptions, of one's own any."""
    if is_own(config):
        return own.blocks(config)
    found = _inceptions(config) if _is_googlenet(config) else _convolutions(config)
    return [path for stage in found for path in stage]


def without(
    config: ml_collections.ConfigDict, params: Any, paths: Collection[str]
) -> tuple[ml_collections.ConfigDict, Any, list[str], dict[str, str]]:
    """A net without some of its blocks.

    The blocks that follow move up, in number and in name. A layer whose kernel no longer fits
    what it reads starts at random.

    Args:
        config: of the whole net.
        params: its parameters.
        paths: of `blocks(config)`.

    Returns:
        The configuration, the parameters, the paths of the layers that start at random, and for
        each block that remains its new path.

    Raises:
        UserError: for a path that is no block's, or nothing left.
    """
    known = blocks(config)
    for path in paths:
        if path not in known:
            none = "none: no layer's input and output are maps of one shape"
            raise UserError(
                f"--drop_layers={path}: {config.model.name} can drop {', '.join(known) or none}"
            )
    if is_own(config):
        return *own.without(config, params, paths), [], {}
    if len(set(paths)) == len(known):
        raise UserError("--drop_layers names every block: keep at least one")
    googlenet = _is_googlenet(config)
    stages = _inceptions(config) if googlenet else _convolutions(config)
    kept = [
        [(path, width) for path, width in zip(stage, widths, strict=True) if path not in paths]
        for stage, widths in zip(stages, _stages(config), strict=True)
    ]
    while not googlenet and not kept[-1]:  # an empty last stage would pool for nothing
        kept.pop()
    smaller = changed(config, _filters(config, [[width for _, width in s] for s in kept]))
    old = [path for stage in kept for path, _ in stage]
    names = dict(zip(old, blocks(smaller), strict=True))
    frozen = [names.get(path, path) for path in config.train.frozen if path not in paths]
    with smaller.unlocked():
        smaller.train.frozen = tuple(frozen)
    return smaller, *_moved(smaller, params, names, paths), names


def _moved(
    config: ml_collections.ConfigDict, params: Any, names: Mapping[str, str], gone: Collection[str]
) -> tuple[Any, list[str]]:
    """Parameters of the smaller net, and the layers that start at random."""
    given = {}
    for path, array in traverse_util.flatten_dict(params, sep="/").items():
        block = next((p for p in (*names, *gone) if path.startswith(f"{p}/")), None)
        if block not in gone:
            given[path if block is None else names[block] + path[len(block) :]] = array
    module = train.build(config)
    side = config.data.image_size
    shapes = variable_shapes(module, (1, side, side, 3))["params"]
    wanted = traverse_util.flatten_dict(shapes, sep="/")
    unfit = {
        path.rpartition("/")[0]
        for path, leaf in wanted.items()
        if path not in given or given[path].shape != leaf.shape
    }
    given |= _fresh(config, module, unfit)
    result = {path: given[path] for path in wanted}
    return traverse_util.unflatten_dict(result, sep="/"), sorted(unfit)


def _fresh(config: ml_collections.ConfigDict, module: Any, layers: Collection[str]) -> Any:
    """Random parameters of these layers alone, by path."""
    side = config.data.image_size

    @jax.jit
    def draw(key: jax.Array) -> dict[str, jax.Array]:
        params = module.init(key, np.zeros((1, side, side, 3), np.float32))["params"]
        flat = traverse_util.flatten_dict(params, sep="/")
        return {path: leaf for path, leaf in flat.items() if path.rpartition("/")[0] in layers}

    return draw(jax.random.key(config.seed)) if layers else {}


def _is_googlenet(config: ml_collections.ConfigDict) -> bool:
    return models.get(config.model.name).kind == "googlenet"


def _stages(config: ml_collections.ConfigDict) -> Sequence[Sequence[Any]]:
    """Widths of convolutions or inceptions by stage; a net without stages has one."""
    if "convolutions" in config.model:
        return (config.model.convolutions,)
    return config.model.inceptions if _is_googlenet(config) else config.model.stages


def _filters(config: ml_collections.ConfigDict, stages: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The field of the configuration that holds `stages`, and its value."""
    widths = tuple(map(tuple, stages))
    if "convolutions" in config.model:
        return {"convolutions": widths[0]}
    return {"inceptions" if _is_googlenet(config) else "stages": widths}


def _convolutions(config: ml_collections.ConfigDict) -> list[list[str]]:
    numbers = itertools.count(1)
    return [[f"conv{next(numbers)}" for _ in stage] for stage in _stages(config)]


def _inceptions(config: ml_collections.ConfigDict) -> list[list[str]]:
    return [
        [f"inception{number}{letter}" for letter, _ in zip("abcdefgh", stage, strict=False)]
        for number, stage in enumerate(config.model.inceptions, 3)
    ]
