"""A run made out of another: its configuration, on the same splits, and its first checkpoint."""

import dataclasses
from typing import Any

import ml_collections

from rice_jax import config as configuration
from rice_jax import data, identity, records, train
from rice_jax.bar import Bar
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.records import ConfigFile
from rice_jax.run import Run, where_moved
from rice_jax.train.norms import Norms, images_looked_at, learning


def for_the_net_of(parent: Run, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The configuration on the splits of `parent`; UserError where it is of another net.

    Or where that does not take images of the size that it asks for.
    """
    theirs = configuration.from_json(configuration.read(parent).config)
    if dict(theirs.model) != dict(config.model):
        raise UserError("--config.model fields are the run's own: pruning decides the new widths")
    own = configuration.split_seed(theirs)
    if config.data.split_seed not in (theirs.data.split_seed, own):
        raise UserError("--config.data.split_seed is the run's own: its test images stay apart")
    _require_size(theirs, config)
    config = configuration.from_json(configuration.to_json(config))
    with config.unlocked():
        config.data.split_seed = own
    return config


def if_moved(field: str, parent: str) -> str:
    """What helps where a folder tells another `parent` than is given, which is there no more."""
    if field != "parent" or Run(parent).path.exists():
        return ""
    return f"; {where_moved(parent)}"


def _require_size(theirs: ml_collections.ConfigDict, config: ml_collections.ConfigDict) -> None:
    """UserError for images of another size that the run's net cannot take as it was trained."""
    side, own = config.data.image_size, theirs.data.image_size
    if side == own:
        return
    net = train.build(config)
    params = variable_shapes(net, train.input_shape(theirs))["params"]
    if not train.fits(net, params, side):
        raise UserError(
            f"--config.data.image_size={side}: the run was trained on images of {own} x {own} "
            "pixels, and its layers fit no net of such: leave it out"
        )


def settled(config: ml_collections.ConfigDict, params: Any, dataset: data.Dataset) -> Any:
    """The parameters of a net that was cut, with batch norms that know what is left of it.

    Of a net without batch norms that learn they are the same.
    """
    if not learning(config, params):
        return params
    source = dataset.splits["train"]
    with Bar("measuring norms", images_looked_at(config, source)) as bar:
        return Norms(config, train.build(config))(params, source, on_batch=bar.advance)


def begun(run: Run) -> bool:
    """Whether `begin` came to its end, and what was begun with is still there."""
    return run.has(ConfigFile.FILE) and train.has_checkpoints(run)


def require_its_weights(out: Run, told: str | None, parent: Run, net: train.Trained) -> None:
    """UserError where what `out` holds was made of other weights than the run has now.

    Args:
        out: a folder with what was made of the run.
        told: the digest that it has of the run's weights; None in files of older versions.
        parent: the run.
        net: what the run holds now.
    """
    if told not in (None, net.digest):
        raise UserError(
            f"{out} was begun when {parent} had other weights, and the two would be mixed: give "
            "another --out"
        )


def begin(
    run: Run,
    parent: Run,
    config: ml_collections.ConfigDict,
    params: Any,
    dataset: data.Dataset,
) -> None:
    """Make a run that begins with these parameters, on the images of the run in `parent`.

    config.json comes last: with it the run is whole.
    """
    run.create()
    content = configuration.read(parent)
    train.begin(config, run, dataset, params)
    plain = configuration.to_json(config)
    made_by = identity.versions()
    records.write(
        run, dataclasses.replace(content, config=plain, seed=config.seed, versions=made_by)
    )
