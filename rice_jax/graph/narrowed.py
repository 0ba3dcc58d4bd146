"""Any Linen module run with fewer filters than its code asks for."""

import dataclasses
import json
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core import FrozenDict
from jax import lax

from rice_jax.graph.interception import intercepted


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the channels that a layer has left stand along an axis that keeps its size."""

    axis: int
    """From the end."""
    size: int
    kept: tuple[int, ...]

    def read(self, array: jax.Array) -> jax.Array:
        """The channels that are left, out of an array that has all places."""
        if array.shape[self.axis] != self.size:
            return array
        return _take(array, self.kept, self.axis)

    def write(self, array: jax.Array) -> jax.Array:
        """All places, with zeros where no channel is left."""
        if array.shape[self.axis] != len(self.kept):
            return array
        zero = [(0, 0, 0)] * array.ndim
        zero[self.axis] = (0, 1, 0)
        source = np.full(self.size, len(self.kept))
        source[list(self.kept)] = np.arange(len(self.kept))
        return _take(lax.pad(array, np.zeros((), array.dtype), zero), source, self.axis)


@dataclasses.dataclass(frozen=True)
class Held:
    """The module that is narrowed, held so that Flax does not make a child with a name of it."""

    module: nn.Module


class Narrowed(nn.Module):
    """A module whose layers have other widths; it initialises, trains and traces as any other.

    The variables keep the paths that they have in the module itself. Where the module's code parts
    or picks channels by their place (a split, a reshape to written sizes), their axis keeps its
    size between layers, with zeros for channels that are gone; the layers are narrow all the same.
    """

    whole: Held
    widths: Mapping[str, Mapping[str, Any]]
    """By layer path: the layer's fields ('features', 'feature_group_count', 'strides') and their
    values."""
    reads: Mapping[str, Places] = FrozenDict()
    """By layer path: what the layer takes of its input."""
    writes: Mapping[str, Places] = FrozenDict()
    """By layer path: where the layer's output goes."""
    dropped: tuple[str, ...] = ()
    """Paths of layers that give what they take."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module; its layers read their widths from `self.widths`."""
        # In this very scope: its variables are this module's own, whatever its layers are called.
        return self.run(self.whole.module.clone(parent=self.scope), *args, **kwargs)

    def run(self, net: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Call the whole module, bound to this one's scope, with its layers narrow."""
        depth = len(self.path)

        def narrow(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            path = "/".join(context.module.path[depth:])
            if path in self.dropped and context.method_name == "__call__":
                return args[0]
            if path in self.reads and args and context.method_name == "__call__":
                args = (self.reads[path].read(args[0]), *args[1:])
            widths = self.widths.get(path, {})
            # Modules are frozen once made: the fields are set for this one call and put back.
            before = {name: getattr(context.module, name) for name in widths}
            for name, value in widths.items():
                set_to = value if name == "strides" else _as_wide(before[name], value)
                object.__setattr__(context.module, name, set_to)
            try:
                result = call(*args, **kwargs)
            finally:
                for name, value in before.items():
                    object.__setattr__(context.module, name, value)
            if path in self.writes and context.method_name == "__call__":
                return self.writes[path].write(result)
            return result

        with intercepted(narrow):
            return net(*args, **kwargs)  # type: ignore[operator]


class Bridged(nn.Module):
    """A Linen module around a class of NNX, whose layers are as wide as their variables are."""

    widths: Mapping[str, Mapping[str, Any]] = FrozenDict()
    """By layer path: shapes of its variables by name, counts of groups ('feature_group_count',
    'num_groups') and 'strides', where not as the class makes them."""
    reads: Mapping[str, Places] = FrozenDict()
    """As a narrowed module's."""
    writes: Mapping[str, Places] = FrozenDict()
    dropped: tuple[str, ...] = ()


def to_text(module: Narrowed | Bridged) -> str:
    """What makes a module narrower, as JSON; '' for one that is as wide as its code asks for."""
    content = {
        "widths": {path: dict(fields) for path, fields in module.widths.items()},
        "reads": {path: dataclasses.astuple(each) for path, each in module.reads.items()},
        "writes": {path: dataclasses.astuple(each) for path, each in module.writes.items()},
        "dropped": list(module.dropped),
    }
    return json.dumps(content, sort_keys=True) if any(content.values()) else ""


def fields(text: str) -> dict[str, Any]:
    """The fields of a module that `to_text` wrote; ValueError for another text."""
    if not text:
        return {}
    try:
        content = {"widths": {}, "reads": {}, "writes": {}, "dropped": []} | json.loads(text)
        widths: Any = {
            path: FrozenDict({name: _hashable(size) for name, size in sizes.items()})
            for path, sizes in content["widths"].items()
        }
        places: Any = {
            name: FrozenDict(
                {
                    path: Places(axis, size, tuple(kept))
                    for path, (axis, size, kept) in content[name].items()
                }
            )
            for name in ("reads", "writes")
        }
        dropped = tuple(map(str, content["dropped"]))
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{text!r} does not tell widths") from error
    return {"widths": FrozenDict(widths), **places, "dropped": dropped}


def _as_wide(width: Any, left: int) -> Any:
    """A layer's width with so many filters; as it is where it is not told, or by several numbers
    (DenseGeneral's), none of which filters are taken from."""
    if isinstance(width, numbers.Integral):
        return left
    return (left,) if isinstance(width, Sequence) and len(width) == 1 else width


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _take(array: jax.Array, places: Any, axis: int) -> jax.Array:
    """Some places of one axis, counted from the end."""
    axis += array.ndim
    which = lax.GatherDimensionNumbers(
        offset_dims=tuple(other for other in range(array.ndim) if other != axis),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
    )
    sizes = [1 if other == axis else size for other, size in enumerate(array.shape)]
    indices = np.asarray(places, np.int32)[:, None]
    inside = lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return lax.gather(array, indices, which, sizes, mode=inside)
