"""Parameters out of public Flax checkpoints: msgpack, safetensors, Orbax, as people publish them.

Layers are taken that fit by name and shape, wherever in the checkpoint they are.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath
from flax import serialization, traverse_util

from rice_jax.errors import UserError, reason
from rice_jax.graph.call import key_name
from rice_jax.models.statistics import STATISTICS

_NO_NAMES = ("params", "batch_stats", "value")
"""Steps of a path that say what an array is, not where: collections, and the inside of NNX's."""
_ITEMS = ("", "default", "params", "state")
"""Where in an Orbax checkpoint of several items the net may be."""
_FEW = 8
_DTYPES: Mapping[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
}

Layers = dict[str, dict[str, Any]]
"""Arrays by path of the layer and their own name."""


def is_one(source: epath.Path) -> bool:
    """Whether a file or folder has the name or the look of such a checkpoint."""
    if source.is_dir():
        return _orbax_item(source) is not None
    named = re.fullmatch(r"checkpoint(_\d+)?", source.name)  # of flax.training.checkpoints
    return source.suffix in (".msgpack", ".safetensors") or named is not None


def load(source: epath.Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, those of each layer taken from a checkpoint where they fit.

    A layer fits that has the same arrays of the same shapes by the same names; its path may have
    others before it there ('backbone/'), the same for all layers. Batch norms' `mean` and `var`
    are the layers' running statistics. What was taken, and what was not, is printed.

    Args:
        source: a file of `flax.serialization` or safetensors, or an Orbax checkpoint's folder.
        params: the net's own, random ones or `jax.ShapeDtypeStruct`s, as they are given back.

    Raises:
        UserError: it cannot be read, or no layer of it fits.
    """
    theirs, ours = _layers(_read(source)), _by_layer(traverse_util.flatten_dict(dict(params)))
    prefix = max(
        _prefixes(theirs), key=lambda each: (len(_fitting(ours, theirs, each)), -len(each))
    )
    taken = _fitting(ours, theirs, prefix)
    if not taken:
        raise UserError(
            f"config.model.weights={str(source)!r}: none of its layers ({_listed(theirs)}) fits "
            f"one of the net's ({_listed(ours)}) by name and shape"
        )
    there = f" (in {prefix.rstrip('/')})" if prefix else ""
    print(f"{source}{there}: {len(taken)} of {len(ours)} layers are taken, {_listed(taken)}")
    if anew := [
        f"{path} ({_why(ours[path], theirs.get(prefix + path))})" for path in ours.keys() - taken
    ]:
        print(f"{len(anew)} begin at random: {_listed(sorted(anew))}")
    flat = {
        (*path.split("/"), name) if path else (name,): (
            np.asarray(_there(theirs[prefix + path])[name], own.dtype) if path in taken else own
        )
        for path, arrays in ours.items()
        for name, own in arrays.items()
    }
    return traverse_util.unflatten_dict(flat)


def _read(source: epath.Path) -> Any:
    """The checkpoint's tree of arrays."""
    try:
        if source.is_dir():
            return _read_orbax(source)
        if source.suffix == ".safetensors":
            flat = dict(_safetensors(source.read_bytes()))
            return {tuple(re.split(r"[./]", name)): array for name, array in flat.items()}
        return serialization.msgpack_restore(source.read_bytes())
    except Exception as error:  # of three libraries, none of which says what it raises
        raise UserError(f"{source} cannot be read as Flax's weights: {reason(error)}") from error


def _safetensors(content: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays by name; `safetensors.numpy` lacks bfloat16 in memory, which JAX has."""
    for name, told in safetensors.deserialize(content):
        dtype = _DTYPES.get(told["dtype"])
        if dtype is not None:
            yield name, np.frombuffer(told["data"], dtype).reshape(told["shape"])


def _orbax_item(folder: epath.Path) -> epath.Path | None:
    """Where in a folder Orbax has a tree; of a manager's steps the newest is meant."""
    steps = [each for each in folder.iterdir() if each.name.isdecimal() and each.is_dir()]
    newest = [max(steps, key=lambda step: int(step.name))] if steps else []
    places = [outer / item if item else outer for outer in (folder, *newest) for item in _ITEMS]
    return next((place for place in places if (place / "_METADATA").exists()), None)


def _read_orbax(folder: epath.Path) -> Any:
    import orbax.checkpoint as ocp

    item = _orbax_item(folder)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        known = checkpointer.metadata(item)
        tree = getattr(getattr(known, "item_metadata", known), "tree", known)
        # As NumPy's, so that it does not matter on which devices it was saved.
        whole = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(item, ocp.args.PyTreeRestore(restore_args=whole))


def _layers(tree: Any) -> Layers:
    """The floating-point arrays of a checkpoint but for an optimiser's, by layer."""
    flat: dict[tuple[str, ...], Any] = {}
    for keys, array in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = [name for key in keys for name in _names(key)]
        if "opt_state" not in path and _is_number(array):
            flat[tuple(name for name in path if name not in _NO_NAMES)] = array
    return _by_layer(flat)


def _names(key: Any) -> Iterable[str]:
    """The steps of a path in one key, which for safetensors is the whole path."""
    inside = getattr(key, "key", None)
    return inside if isinstance(inside, tuple) else (key_name(key),)


def _is_number(array: Any) -> bool:
    return hasattr(array, "shape") and jax.dtypes.issubdtype(array.dtype, np.floating)


def _by_layer(flat: Mapping[tuple[str, ...], Any]) -> Layers:
    layers: Layers = {}
    for path, array in flat.items():
        if path:
            layers.setdefault("/".join(path[:-1]), {})[path[-1]] = array
    return layers


def _prefixes(theirs: Layers) -> list[str]:
    """What may come before a layer's path: nothing, or a path in the checkpoint and a '/'."""
    steps = (path.split("/") for path in theirs)
    inner = {"/".join(each[:end]) + "/" for each in steps for end in range(1, len(each))}
    return ["", *sorted(inner)]


def _fitting(ours: Layers, theirs: Layers, prefix: str) -> list[str]:
    """The layers of ours that are in a checkpoint, of the same shapes."""
    shapes = {
        path: {name: np.shape(each) for name, each in at.items()} for path, at in ours.items()
    }
    return [
        path
        for path, wanted in shapes.items()
        if (there := theirs.get(prefix + path)) is not None
        and {name: np.shape(each) for name, each in _there(there).items()} == wanted
    ]


def _there(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's arrays by the names that they have here: statistics by those of running ones."""
    if not {"mean", "var"} <= arrays.keys():
        return dict(arrays)
    names = dict(zip(("mean", "var"), STATISTICS, strict=True))
    return {names.get(name, name): array for name, array in arrays.items()}


def _why(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> str:
    """Why a layer does not fit."""
    if theirs is None:
        return "not there"
    there = _there(theirs)
    for name, array in ours.items():
        if name not in there:
            return f"no {name} there"
        if np.shape(there[name]) != np.shape(array):
            return f"{name} is {np.shape(there[name])} there, {np.shape(array)} here"
    return f"{', '.join(sorted(there.keys() - ours.keys()))} there alone"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    rest = f" and {len(every) - _FEW} more" if len(every) > _FEW else ""
    return f"{', '.join(every[:_FEW])}{rest}"
