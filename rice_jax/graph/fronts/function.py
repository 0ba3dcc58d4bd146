"""Plain functions f(params, x), whose layers are the named scopes that they are written with."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from rice_jax.graph import scopes
from rice_jax.graph.call import key_name
from rice_jax.graph.fronts.protocol import PureNet


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionNet(PureNet):
    """A function of params, a tree of arrays, and an array of images."""

    function: Callable[..., Any]
    params: Any
    """Of any structure; arrays or their shapes."""

    scoped = True

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def variables(self) -> Any:
        """The params by the names of their places, as the one collection 'params'."""
        flat = {
            names: leaf if hasattr(leaf, "shape") else np.asarray(leaf)
            for names, leaf in _places(self.params)
        }
        return {"params": traverse_util.unflatten_dict(flat)}

    def shapes(self, x: Any, rngs: Any = None, **kwargs: Any) -> Any:
        """Shapes of the params."""
        del x, rngs, kwargs
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), self.variables)

    def apply(self, variables: Any, x: Any, **options: Any) -> Any:
        """What the function returns."""
        return self.function(self.given(variables)[1], x, **options)

    def given(self, variables: Any) -> tuple[Callable[..., Any], Any]:
        """The function, and params in the structure that they came in."""
        given = variables["params"]
        leaves = [
            functools.reduce(operator.getitem, names, given) for names, _ in _places(self.params)
        ]
        return self.function, jax.tree.unflatten(jax.tree.structure(self.params), leaves)

    def like(self, module: Any, variables: Any) -> "FunctionNet":
        """The net of another function with params in the same structure."""
        return FunctionNet(module, self.given(variables)[1])

    def layer_of(self, eqn: Any, outer: str) -> str:
        """The named scopes that the equation is in."""
        return scopes.path(eqn, outer)


def _places(params: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Each leaf of a tree with the names that lead to it."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return [(tuple(map(key_name, keys)) or ("value",), leaf) for keys, leaf in leaves]
