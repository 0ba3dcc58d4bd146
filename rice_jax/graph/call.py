"""What goes in and out of a net's call, by name: its variables, and the output that counts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from rice_jax.errors import UserError
from rice_jax.graph.boxes import unboxed

Output = str | int | Callable[[Any], Any] | None
"""Which of a module's outputs are the logits: a key, attribute or index, or a function of all."""


def chosen(result: Any, output: Output) -> Any:
    """The one of a module's outputs that `output` names; without a name the only one.

    Raises:
        UserError: several outputs and no name, or a name that none has.
    """
    if callable(output):
        return output(result)
    arrays = outputs(result)
    if output is None:
        if len(arrays) == 1:
            return next(iter(arrays.values()))
        raise unnamed(arrays)
    try:
        found = _member(result, output)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(f"no output is {output!r}: the net gives {_listed(arrays)}") from error
    if not _is_array(found):
        raise UserError(f"output {output!r} is no array: the net gives {_listed(arrays)}")
    return found


def unnamed(arrays: Mapping[str, Any]) -> UserError:
    """What to say where a net returns several of these arrays and none is named."""
    return UserError(
        f"the net gives {_listed(arrays)}: say which are the logits with output=, "
        "a key, an attribute, an index, or a function of them all"
    )


def outputs(result: Any) -> dict[str, Any]:
    """The arrays that a module returns, by key, attribute or index ('' for a lone one)."""
    found: dict[str, Any] = {}

    def collect(value: Any, path: str) -> None:
        if _is_array(value):
            found[path] = value
            return
        for name, member in _members(value):
            collect(member, f"{path}/{name}" if path else str(name))

    collect(result, "")
    return found


def _members(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    leaves = jax.tree.leaves(value)
    return [] if len(leaves) == 1 and leaves[0] is value else list(enumerate(leaves))


def _member(result: Any, name: str | int) -> Any:
    if isinstance(result, Mapping) and name in result:
        return result[name]
    return getattr(result, name) if isinstance(name, str) else result[name]


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | jax.ShapeDtypeStruct)


def _listed(arrays: Mapping[str, Any]) -> str:
    if not arrays:
        return "no array"
    return ", ".join(f"{name or 'one array'} {array.shape}" for name, array in arrays.items())


def by_path(variables: Any) -> dict[str, Any]:
    """The arrays by path with their collection first, 'params/conv1/kernel', without boxes."""
    return {"/".join(place): leaf for place, leaf in placed(variables)}


def placed(variables: Any) -> list[tuple[tuple[str, ...], Any]]:
    """The arrays in the order of `by_path`, each after its collection and the names to it."""
    leaves = jax.tree_util.tree_flatten_with_path(unboxed(variables))[0]
    return [(tuple(map(key_name, keys)), leaf) for keys, leaf in leaves]


def nested(arrays: Mapping[str, Any], like: Any) -> Any:
    """The arrays by path, nested as `like` is: a name may have '/' in it (`nn.WeightNorm`)."""

    def leaf(keys: Any, _: Any) -> Any:
        return arrays["/".join(map(key_name, keys))]

    return jax.tree_util.tree_map_with_path(leaf, like)


def key_name(key: Any) -> str:
    """One step of a path in a tree of JAX's, as its key, index or attribute is called."""
    return str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)))
