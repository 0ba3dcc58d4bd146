"""Nets with weights: the ones that training starts from, and the ones that a run ended with."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from rice_jax import config as configuration
from rice_jax import files, models, nets, zoo
from rice_jax.bounds import checked
from rice_jax.config import from_json
from rice_jax.errors import UserError
from rice_jax.graph import once
from rice_jax.graph.call import nested
from rice_jax.run import Run
from rice_jax.train import schedule, state
from rice_jax.train.checkpoints import Checkpoint, Checkpoints
from rice_jax.train.feed import data_mesh
from rice_jax.train.state import Params

_LARGEST = 2 << 30
RANDOM = "random"
"""config.model.weights of a net that is to learn from nothing."""


@dataclasses.dataclass
class Trained:
    """A run's net as its best epoch left it."""

    config: ml_collections.ConfigDict
    module: models.Adjustable
    params: Params
    """NumPy's arrays, whole in each process."""
    classes: tuple[str, ...]
    epoch: int
    """Number of the best epoch, from 1; 0 for weights that no epoch has changed yet."""

    @property
    def digest(self) -> str:
        """Of its parameters."""
        return state.digest(self.params)


def build(config: ml_collections.ConfigDict) -> models.Adjustable:
    """The net that a configuration names, with its widths and its type of activations."""
    fields = dict(config.model)
    name = fields.pop("name")
    fields.pop("weights")
    types = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    dtype = configuration.FIELDS["train.dtype"].bounds
    chosen = checked("config.train.dtype", config.train.dtype, dtype)
    return models.build(name, **fields, dtype=types[chosen])


def input_shape(config: ml_collections.ConfigDict) -> tuple[int, int, int, int]:
    """Shape of one image as a net takes it, (1, H, W, 3)."""
    return (1, config.data.image_size, config.data.image_size, 3)


def image_sizes(config: ml_collections.ConfigDict) -> tuple[int, ...]:
    """Height and width of the images that each epoch learns from, as the schedule has it.

    Raises:
        UserError: they are too small for the net.
    """
    return schedule.image_sizes(config.train, build(config), config.data.image_size)


def load(run: Run) -> Trained:
    """The best epoch of a run; where its checkpoint is damaged, the newest whole one, and says so.

    Raises:
        UserError: no run's folder, a damaged one, no checkpoint in it, or one of another net.
    """
    config, best = _restored(run, Checkpoints.best)
    params = jax.tree.map(np.asarray, best.state.params)
    classes = tuple(best.origin["classes"])
    return Trained(config, build(config), params, classes, best.progress.epoch)


def newest(run: Run) -> Checkpoint:
    """Where a run's training stands: its newest whole checkpoint.

    Raises:
        UserError: as `load`.
    """
    return _restored(run, Checkpoints.newest)[1]


def _restored(
    run: Run, choose: Callable[..., Checkpoint | None]
) -> tuple[ml_collections.ConfigDict, Checkpoint]:
    config = from_json(configuration.read(run).config)
    image_size, model, module = config.data.image_size, dict(config.model), build(config)

    def like(origin: dict[str, Any]) -> state.TrainState:
        # Compared before anything is made of them: a damaged file may ask for any size.
        saved = from_json(configuration.completed(origin["config"]))
        if (dict(saved.model), saved.data.image_size) != (model, image_size):
            raise UserError(f"{run}: config.json is not of the net that the checkpoints are of")
        shapes = state.shapes(module, input_shape(config), saved.train.frozen)
        return state.replicated(shapes, data_mesh())

    found = None
    if run.checkpoints.exists():
        with contextlib.closing(Checkpoints(run.checkpoints, read_only=True)) as checkpoints:
            found = choose(checkpoints, like)
    if found is None:
        raise UserError(
            f"{run} has no trained net: rice-jax train trains it, and evaluates weights that "
            "--config.model.weights names as they are"
        )
    return config, found


def initial_params(
    config: ml_collections.ConfigDict,
    module: nn.Module,
    *,
    seed: int | None = None,
    given: Params | None = None,
) -> Params:
    """The parameters that training starts from, as config.model.weights says.

    '' and 'random' are random parameters from `seed` (None for config.seed), drawn as
    config.train.initializer says (a net that the study starts from trained weights has to be asked
    for the latter by name), 'zoo:NAME' is a net that comes with the package, a folder is a run of
    the same net, whose best epoch is taken. Weights of another net serve a net with frozen layers:
    these are taken from it, and the layers that learn start at random. Of a Flax checkpoint
    (.msgpack, .safetensors, Orbax's folder) the layers are taken that fit by name and shape. Any
    other file is Keras's. `given` is what `given_params` returned, where that is known already.

    Raises:
        UserError: weights that are missing, are of another net, or are needed and not named.
    """
    if given is None:
        given = given_params(config, module)
    else:
        require_of_the_net(config, given)
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(given)):
        return given
    shape = input_shape(config)
    # Compiled, since the forward pass is then left out of it.
    seed = config.seed if seed is None else seed
    how = nets.initializer(config.model.name, config.train)
    drawn = once.jit(lambda: state.random_params(module, shape, seed, how))()
    return jax.tree.map(
        lambda leaf, own: own if isinstance(leaf, jax.ShapeDtypeStruct) else leaf, given, drawn
    )


def given_params(config: ml_collections.ConfigDict, module: nn.Module) -> Params:
    """`initial_params` at no compute, with a `jax.ShapeDtypeStruct` for what starts at random.

    Raises:
        UserError: as there; or layers that are frozen would start at random.
    """
    given, source = _given(config, module), config.model.weights
    if source not in ("", RANDOM) and config.train.frozen:
        still = state.partition(given, config.train.frozen)[1]
        if missing := at_random(still):
            raise UserError(
                f"config.model.weights={source!r} has nothing for {_some(missing)}, which "
                "config.train.frozen keeps from learning: freeze what it has, or give other weights"
            )
    return given


def require_of_the_net(config: ml_collections.ConfigDict, params: Params) -> None:
    """UserError where parameters are not in shape and type those of the net that `config` names.

    Once saved, other ones could not be told from a damaged checkpoint.
    """
    shapes = state.shapes(build(config), input_shape(config), ()).params
    wanted, given = (
        {
            path: f"{jax.dtypes.canonicalize_dtype(leaf.dtype)} {leaf.shape}"
            for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()
        }
        for tree in (shapes, params)
    )
    for path in sorted(wanted.keys() | given.keys()):
        here, there = (told.get(path, "not there") for told in (given, wanted))
        if here != there:
            raise UserError(
                f"the parameters are not those of {config.model.name} as it is configured: "
                f"{path} is {here}, and {there} in that net"
            )


def refuse_idle_initializer(
    config: ml_collections.ConfigDict, given: Params | None, asked: Collection[str]
) -> None:
    """UserError where the user has said how kernels are drawn, and all of them are given.

    Args:
        config: the run's.
        given: what `given_params` returned; None for a training that goes on.
        asked: the fields that the user has set.
    """
    open_ = config.train.initializer == configuration.FIELDS["train.initializer"].default
    if given is None or open_ or "train.initializer" not in asked or at_random(given):
        return
    raise UserError(
        "--config.train.initializer changes nothing: "
        f"config.model.weights={config.model.weights!r} has every layer"
    )


def at_random(given: Params) -> list[str]:
    """Paths of the layers that start at random of what `given_params` returned."""
    flat = traverse_util.flatten_dict(given, sep="/")
    shapes = [path for path, leaf in flat.items() if isinstance(leaf, jax.ShapeDtypeStruct)]
    return list(dict.fromkeys(path.rpartition("/")[0] for path in shapes))


def _some(layers: list[str]) -> str:
    return ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")


def _given(config: ml_collections.ConfigDict, module: nn.Module) -> Params:
    path = config.model.weights
    if not path and nets.get(config.model.name).needs_weights:
        raise UserError(nets.weights_wanted(config.model.name))
    params = state.shapes(module, input_shape(config), ()).params
    if path in ("", RANDOM):
        return params
    if path.startswith(zoo.PREFIX):
        found = zoo.load(path.removeprefix(zoo.PREFIX))
        return _fitted(found.variables["params"], found.card.data.classes, config, params)
    source = files.reached(path)
    if not source.exists():
        hint = f"; {nets.weights_wanted(config.model.name)}" if "vgg16" in source.name else ""
        raise UserError(f"config.model.weights={path!r}: there is no such file or folder{hint}")
    files.require_content(source, _LARGEST)
    from rice_jax.models import flax_checkpoint

    if not Run(source).has("config.json") and flax_checkpoint.is_one(source):
        return flax_checkpoint.load(source, params)
    if not source.is_dir():
        if files.is_remote(source):
            raise UserError(
                f"config.model.weights={path!r}: Keras's files are read of this machine "
                "alone, copy it here"
            )
        from rice_jax.models import keras_h5

        return keras_h5.load_h5(os.fspath(source), module, params, input_shape(config))
    trained = load(Run(source))
    return _fitted(trained.params, trained.classes, config, params)


def _fitted(
    given: Params, classes: Sequence[str], config: ml_collections.ConfigDict, params: Params
) -> Params:
    """The parameters given, where they are of the same net as `params`, or what is of use of them.

    Args:
        given: those of a net that tells `classes`.
        classes: their names.
        config: which layers do not learn.
        params: shapes of the net that is wanted.

    Raises:
        UserError: they are of another net.
    """
    source = config.model.weights
    theirs = traverse_util.flatten_dict(given, sep="/")
    ours = traverse_util.flatten_dict(params, sep="/")
    differing = _differences(ours, theirs)
    if not differing and ours.keys() == theirs.keys():
        return given
    frozen = traverse_util.flatten_dict(state.partition(params, config.train.frozen)[1], sep="/")
    if not frozen:
        differing += [f"{name} is not in {config.model.name}" for name in theirs.keys() - ours]
    else:
        differing = _differences(frozen, theirs)
    if differing:
        if not frozen and (other := _other_layers(ours, theirs, len(classes))):
            raise UserError(
                f"config.model.weights={source!r} is a net of {len(classes)} classes, and there "
                f"are {config.model.classes} here: --config.train.frozen={','.join(other)} trains "
                f"a new head on its other layers, --config.model.weights={RANDOM} all anew"
            )
        meant = f"; --config={source} is that net" if source.startswith(zoo.PREFIX) else ""
        raise UserError(
            f"config.model.weights={source!r} is of another net: "
            f"{'; '.join(differing[:3])}{'; ...' if len(differing) > 3 else ''}{meant}"
        )
    layers = ", ".join(dict.fromkeys(name.rpartition("/")[0] for name in frozen))
    print(f"{source} is of another net: {layers} are taken from it, the rest starts at random")
    return nested({**ours, **{name: theirs[name] for name in frozen}}, params)


def _other_layers(ours: dict[str, Any], theirs: dict[str, Any], classes: int) -> list[str]:
    """The outermost modules without the head, where another number of classes is all that differs.

    Args:
        ours: by path the arrays that are wanted.
        theirs: those of a net of so many classes.
    """
    heads = {name for name in ours if name in theirs and theirs[name].shape != ours[name].shape}
    if ours.keys() != theirs.keys() or any(
        theirs[name].shape != (*ours[name].shape[:-1], classes) for name in heads
    ):
        return []
    outermost = dict.fromkeys(name.partition("/")[0] for name in ours)
    head = {name.partition("/")[0] for name in heads}
    return [name for name in outermost if name not in head]


def _differences(wanted: dict[str, Any], given: dict[str, Any]) -> list[str]:
    missing = [f"it has no {name}" for name in wanted if name not in given]
    return missing + [
        f"{name} is {given[name].shape} there and {array.shape} here"
        for name, array in wanted.items()
        if name in given and given[name].shape != array.shape
    ]
