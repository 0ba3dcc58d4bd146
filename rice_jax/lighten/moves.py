"""What can be taken from a net in one step: channels, a layer, resolution, the stem's places."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rice_jax import models, train
from rice_jax.errors import UserError
from rice_jax.lighten import smaller
from rice_jax.prune.pruner import prune
from rice_jax.prune.tally import totals
from rice_jax.records import Taken
from rice_jax.train import schedule
from rice_jax.train.prepared import Images


@dataclasses.dataclass(frozen=True)
class Lighter:
    """A net with something taken from it, before it learns again."""

    config: ml_collections.ConfigDict
    params: Any
    removed: Taken
    """What is gone."""
    why: str
    """Why this and nothing else of its kind."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """What a step looks at."""

    images: Images
    """Of the training split."""
    share: float
    """Of the cost that is to be left where channels go."""
    measure: str
    """That cost: 'study' (FLOPs) or 'params'."""
    criterion: str
    round_to: int = 1
    """Layers that lose channels keep a multiple of so many."""


Move = Callable[[train.Trained, Judge], Lighter | str]
"""A lighter net out of a trained one; in a line why not, where there is nothing to take."""


def channels(net: train.Trained, judge: Judge) -> Lighter | str:
    """The least important filters and units, down to a share of the cost."""
    config, before = net.config, _totals(net.config)
    try:
        cut = prune(
            net.module,
            {"params": net.params},
            judge.images,
            budgets={judge.measure: int(judge.share * before[judge.measure])},  # type: ignore[dict-item]
            criterion=judge.criterion,
            round_to=judge.round_to,
            seed=config.seed,
            rebuild=net.module.with_widths,
            optional=net.module.optional(),
        )
    except UserError as error:
        if "cannot be met" not in str(error):
            raise
        return str(error)
    removed = {path: len(filters) for path, filters in cut.removed.items()}
    return Lighter(
        smaller.configured(config, cut.module),
        cut.variables["params"],
        Taken(filters=removed),
        f"least by {judge.criterion} for what they cost",
    )


def layer(net: train.Trained, judge: Judge) -> Lighter | str:
    """The block without which the net loses the fewest images for what it saves."""
    config, before = net.config, _totals(net.config)[judge.measure]
    blocks = net.module.blocks(train.input_shape(config))
    if len(blocks) <= net.module.least_blocks:
        kept = "one block has to stay"
        return kept if blocks else "no layer's input and output are maps of one shape"
    whole = _right(net.module, net.params, judge.images)
    best: tuple[float, Lighter] | None = None
    for path in blocks:
        made, params, anew, _ = smaller.without(config, net.params, [path])
        saved = 1 - _totals(made)[judge.measure] / before
        if saved <= 0:
            continue
        right = _right(train.build(made), params, judge.images)
        lost = max(whole - right, 1e-3)
        why = (
            f"without it {right:.4f} instead of {whole:.4f} are right, for {100 * saved:.0f}% less"
        )
        removed = Taken(layer=path, started_anew=anew)
        if best is None or lost / saved < best[0]:
            best = lost / saved, Lighter(made, params, removed, why)
    return best[1] if best else "without any of its blocks it costs as much"


def resolution(net: train.Trained, judge: Judge) -> Lighter | str:
    """Half the height and width: the image is averaged to them before anything else."""
    del judge
    side = smaller.looks_at(net.config)
    halved = net.module.clone(grid=side // 2)
    return _coarser(net, halved, Taken(resolution=(side, side // 2)))


def stem(net: train.Trained, judge: Judge) -> Lighter | str:
    """Twice the stride of the first convolution."""
    del judge
    found = net.module.with_stem_stride(2, train.input_shape(net.config))
    if isinstance(found, str):
        return found
    longer, before, after = found
    return _coarser(net, longer, Taken(stem_stride=(before, after)))


def longer(net: train.Trained) -> Lighter:
    """Nothing: the net as it is, to learn more."""
    return Lighter(net.config, net.params, Taken(), "near to what is wanted")


MOVES: Mapping[str, Move] = {
    "channels": channels,
    "layer": layer,
    "resolution": resolution,
    "stem": stem,
}


def _coarser(net: train.Trained, coarser: models.Adjustable, removed: Taken) -> Lighter | str:
    """The same layers on smaller maps."""
    shape = train.input_shape(net.config)
    if schedule.vanishes(coarser, shape[1]):
        return "a map would vanish on the way"
    params = net.module.on_smaller_maps(net.params, coarser, shape)
    if not schedule.fits(coarser, params, shape[1]):
        return "its layers do not fit smaller maps: a flattened map has another size"
    config = smaller.configured(net.config, coarser)
    return Lighter(config, params, removed, "the only step of this kind")


def _totals(config: ml_collections.ConfigDict) -> dict[str, int]:
    return totals(train.build(config), train.input_shape(config))


def _right(module: nn.Module, params: Any, images: Images) -> float:
    """Share of the images that a net has right as it is."""

    @jax.jit
    def hits(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.argmax(jnp.asarray(module.apply({"params": params}, x)), -1) == labels

    found = [np.asarray(hits(params, x, labels)) for x, labels in images]
    return float(np.concatenate(found).mean())
