"""Parameters out of public Flax checkpoints: msgpack, safetensors, Orbax, as people publish them.

Layers are taken that fit by name and shape, wherever in the checkpoint they are.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
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

_NO_NAMES = ("params", "batch_stats")
"""Steps of a path that say what an array is, not where: Linen's collections."""
_IN_NNX = "value"
"""Last step of a path to an array of NNX's; before the last it is a layer, as in attention."""
_OPTIMISER = re.compile(r"opt(im(i[sz]er)?)?(_states?)?|moments")
"""A step of the path to an optimiser's arrays, which have the names and shapes of parameters."""
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
        UserError: it cannot be read, no layer of it fits, layers fit as well in several places
            with other numbers, or numbers are not finite.
    """
    ours = _by_layer(traverse_util.flatten_dict(dict(params)))
    theirs = _layers(source, _read(source, {np.shape(leaf) for leaf in jax.tree.leaves(params)}))
    prefix, taken = _chosen(source, ours, theirs)
    there = f" (in {prefix.rstrip('/')})" if prefix else ""
    print(f"{source}{there}: {len(taken)} of {len(ours)} layers are taken, {_listed(taken)}")
    if anew := [
        f"{path} ({_why(ours[path], theirs.get(prefix + path))})" for path in ours.keys() - taken
    ]:
        print(f"{len(anew)} begin at random: {_listed(sorted(anew))}")
    flat = {
        (*path.split("/"), name) if path else (name,): (
            _finite(source, f"{path}/{name}", _there(theirs[prefix + path])[name], own.dtype)
            if path in taken
            else own
        )
        for path, arrays in ours.items()
        for name, own in arrays.items()
    }
    return traverse_util.unflatten_dict(flat)


def _chosen(source: epath.Path, ours: Layers, theirs: Layers) -> tuple[str, list[str]]:
    """What comes before the layers' paths where most of them fit, and which do.

    UserError where none do, or as many elsewhere: a pupil and its teacher, copies that moved on.
    Of a place and others within it, as 'params' and 'ema_params', the outer one is meant.
    """
    fitting = {each: _fitting(ours, theirs, each) for each in _prefixes(theirs)}
    most = max(map(len, fitting.values()))
    if not most:
        raise UserError(
            f"config.model.weights={str(source)!r}: none of its layers ({_listed(theirs)}) fits "
            f"one of the net's ({_listed(ours)}) by name and shape"
        )
    best = [each for each, taken in fitting.items() if len(taken) == most]
    first, *others = sorted(best, key=len)
    for other in others:
        if not other.startswith(first) and not _same(theirs, fitting, first, other):
            raise UserError(
                f"config.model.weights={str(source)!r}: {most} of the net's {len(ours)} layers fit "
                f"in {first.rstrip('/')} as well as in {other.rstrip('/')}, with other numbers: "
                "save the ones that are meant alone"
            )
    return first, fitting[first]


def _same(theirs: Layers, fitting: Mapping[str, list[str]], one: str, other: str) -> bool:
    """Whether the same layers fit in two places, and have the same numbers there."""
    return fitting[one] == fitting[other] and all(
        np.array_equal(array, theirs[other + path][name])
        for path in fitting[one]
        for name, array in theirs[one + path].items()
    )


def _finite(source: epath.Path, path: str, array: Any, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = np.asarray(array, dtype)
    if not np.isfinite(converted).all():
        raise UserError(f"{source} is damaged: {path!r} holds numbers that are not finite")
    return converted


def _read(source: epath.Path, shapes: Collection[tuple[int, ...]]) -> Any:
    """The checkpoint's tree of arrays; of Orbax's the arrays of other shapes stay where they are.

    Of these there are the shapes alone.
    """
    try:
        if source.is_dir():
            return _read_orbax(source, shapes)
        if source.suffix == ".safetensors":
            flat = dict(_safetensors(source.read_bytes()))
            return {tuple(re.split(r"[./]", name)): array for name, array in flat.items()}
        return serialization.msgpack_restore(source.read_bytes())
    except Exception as error:  # of three libraries, none of which says what it raises
        why = reason(error).partition(" [tensorstore_spec")[0]
        raise UserError(f"{source} cannot be read as Flax's weights: {why}") from error


def _safetensors(content: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays by name; `safetensors.numpy` lacks bfloat16 in memory, which JAX has."""
    for name, told in safetensors.deserialize(content):
        dtype = _DTYPES.get(told["dtype"])
        if dtype is not None:
            yield name, np.frombuffer(told["data"], dtype).reshape(told["shape"])


def _orbax_item(folder: epath.Path) -> epath.Path | None:
    """Where in a folder Orbax has a tree; of a manager's steps the newest is meant.

    An item of another name than the usual ones is meant where it is the only one.
    """
    steps = [each for each in folder.iterdir() if each.name.isdecimal() and each.is_dir()]
    newest = [max(steps, key=lambda step: int(step.name))] if steps else []
    for outer in (folder, *newest):
        usual = [outer / item if item else outer for item in _ITEMS]
        others = [each for each in outer.iterdir() if each not in (*usual, *steps)]
        has, have = (
            [each for each in places if (each / "_METADATA").exists()] for places in (usual, others)
        )
        if has or len(have) == 1:
            return (has or have)[0]
    return None


def _read_orbax(folder: epath.Path, shapes: Collection[tuple[int, ...]]) -> Any:
    import orbax.checkpoint as ocp

    def wanted(leaf: Any) -> Any:
        # What is not ours may be of any size, a text, or an optimiser's.
        if not _is_number(leaf) or tuple(leaf.shape) not in shapes:
            return ocp.PLACEHOLDER
        piece = getattr(getattr(leaf, "storage", None), "chunk_shape", None) or leaf.shape
        if any(part > max(1, whole) for part, whole in zip(piece, leaf.shape, strict=True)):
            raise ValueError(f"a piece {tuple(piece)} of an array {tuple(leaf.shape)}")
        return leaf

    item = _orbax_item(folder)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        known = checkpointer.metadata(item)
        tree = getattr(getattr(known, "item_metadata", known), "tree", known)
        asked = jax.tree.map(wanted, tree)
        # As NumPy's, so that it does not matter on which devices it was saved.
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        found = checkpointer.restore(item, ocp.args.PyTreeRestore(item=asked, restore_args=how))
        return jax.tree.map(lambda t, own: t if own is ocp.PLACEHOLDER else own, tree, found)


def _layers(source: epath.Path, tree: Any) -> Layers:
    """The floating-point arrays of a checkpoint but for an optimiser's, by layer."""
    flat: dict[tuple[str, ...], Any] = {}
    for keys, array in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = [name for key in keys for name in _names(key)]
        if any(map(_OPTIMISER.fullmatch, path)) or not _is_number(array):
            continue
        if path[-1:] == [_IN_NNX]:
            path.pop()
        place = tuple(name for name in path if name not in _NO_NAMES)
        if place in flat and not np.array_equal(flat[place], array):
            raise UserError(
                f"config.model.weights={str(source)!r} has {'/'.join(place)} twice, with other "
                "numbers: save the one that is meant alone"
            )
        flat[place] = array
    return _by_layer(flat)


def _names(key: Any) -> Iterable[str]:
    """The steps of a path in one key, which for safetensors is the whole path."""
    inside = getattr(key, "key", None)
    return inside if isinstance(inside, tuple) else (key_name(key),)


def _is_number(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, np.floating)


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
