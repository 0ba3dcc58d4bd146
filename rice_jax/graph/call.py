"""A module called as its user calls it: its random streams, its boxes, the output that counts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import errors, traverse_util
from flax.core import meta

from rice_jax.errors import UserError

Output = str | int | Callable[[Any], Any] | None
"""Which of a module's outputs are the logits: a key, attribute or index, or a function of all."""


def check_linen(module: Any) -> None:
    """UserError for what is no Linen module."""
    if isinstance(module, nn.Module):
        return
    kind = module.__name__ if isinstance(module, type) else type(module).__name__
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise UserError(f"{kind} is a class: give an instance of it, {kind}(...)")
    raise UserError(
        f"{kind} is no flax.linen module: an NNX module has to be bridged "
        "(flax.nnx.bridge.to_linen), anything else wrapped in a Linen module"
    )


def run(module: nn.Module, variables: Any, x: Any, *, rngs: Any = None, **kwargs: Any) -> Any:
    """`module.apply`; UserError for a random stream that has no key."""
    check_linen(module)
    try:
        return module.apply(variables, x, rngs=streams(rngs), **kwargs)
    except errors.InvalidRngError as error:
        stream = str(error).partition('PRNG for "')[2].partition('"')[0]
        raise UserError(
            f"the net draws random numbers from the stream {stream!r}: give it a key, "
            f"rngs={{{stream!r}: jax.random.key(0)}}, or call it so that it draws none"
        ) from error


def streams(rngs: Any) -> dict[str, Any]:
    """Keys by stream; a key alone is that of 'params', as Flax has it."""
    if rngs is None:
        return {}
    return dict(rngs) if isinstance(rngs, Mapping) else {"params": rngs}


def any_stream(rngs: Any) -> dict[str, Any]:
    """The keys, and a fixed one for every other stream: Flax draws those from 'params'."""
    return {"params": jax.random.key(0)} | streams(rngs)


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


def unboxed(variables: Any) -> Any:
    """The variables as plain nested dictionaries, without Flax's boxes (`nn.Partitioned`)."""
    return jax.tree.map(_content, variables, is_leaf=_is_box)


def boxed_as(variables: Any, boxes: Any) -> Any:
    """Plain variables in the boxes that `boxes` has at the same places."""
    flat = traverse_util.flatten_dict(variables)
    for path, box in traverse_util.flatten_dict(boxes).items():
        if _is_box(box) and path in flat:
            flat[path] = box.replace_boxed(flat[path])
    return traverse_util.unflatten_dict(flat)


def by_path(variables: Any) -> dict[str, Any]:
    """The arrays by path with their collection first, 'params/conv1/kernel', without boxes."""
    leaves = jax.tree_util.tree_flatten_with_path(unboxed(variables))[0]
    return {"/".join(map(_name, keys)): leaf for keys, leaf in leaves}


def _name(key: Any) -> str:
    return str(next(getattr(key, kind) for kind in ("key", "idx", "name") if hasattr(key, kind)))


def _is_box(value: Any) -> bool:
    return isinstance(value, meta.AxisMetadata)


def _content(box: Any) -> Any:
    # `unbox` of a Partitioned would also lay its array out on the mesh at hand.
    return box.value if isinstance(box, nn.Partitioned) else meta.unbox(box)
