"""NNX modules: split into variables and the rest, merged anew for each call, never changed."""

import contextlib
import functools
import inspect
import itertools
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from rice_jax.graph.call import key_name
from rice_jax.graph.fronts.protocol import PureNet
from rice_jax.graph.keys import carried, is_key
from rice_jax.graph.marks import CALLING, Layer, calling, mark

_CALLS = itertools.count()
"""Numbers that make the modules of each call other ones to JAX: what it keeps as it was traced
(`nnx.jit`, `nnx.remat`, `nnx.scan`) would not call them again, as `CALLING` says or at all."""


class NNXNet(PureNet):
    """An NNX module as a function of its variables; its random streams stay as they are."""

    def __init__(self, module: nnx.Module) -> None:
        self.module = module
        split: Any = nnx.split(module, nnx.RngState, ...)
        self._graphdef, random, self._state = split
        self._random = carried(jax.tree.map(_known, random))
        self._places = _places(self._state)

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self.module).__name__

    @property
    def variables(self) -> Any:
        """The module's own, by Linen's names of their kinds: 'params', 'batch_stats'.

        Arrays that are no `nnx.Variable` are of the collection 'arrays'.
        """
        return self._nested(self._state)

    def variables_of(self, module: nnx.Module) -> Any:
        """The same of another module of the same structure."""
        split: Any = nnx.split(module, nnx.RngState, ...)
        return self._nested(split[2])

    def _nested(self, state: Any) -> Any:
        leaves = jax.tree.leaves(state)
        return traverse_util.unflatten_dict(dict(zip(self._places, leaves, strict=True)))

    def shapes(self, x: Any, rngs: Any = None, **kwargs: Any) -> Any:
        """Shapes of the module's variables."""
        del x, rngs, kwargs
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), self.variables)

    def apply(self, variables: Any, x: Any, **options: Any) -> Any:
        """Call a copy of the module that has these variables."""
        return called(self.with_variables(variables), x, **options)

    def with_variables(self, variables: Any, key: jax.Array | None = None) -> nnx.Module:
        """A new module, as this one but for its variables; its random streams draw from `key`."""
        leaves = [functools.reduce(operator.getitem, names, variables) for names in self._places]
        state = jax.tree.unflatten(jax.tree.structure(self._state), leaves)
        random = self._random() if key is None else _reseeded(self._random(), key)
        return nnx.merge(self._graphdef, random, state)

    def given(self, variables: Any) -> tuple[nnx.Module, None]:
        """A new module with these variables; itself for its own."""
        return self.with_variables(variables), None

    def like(self, module: Any, variables: Any) -> "NNXNet":
        """The net of another NNX module, which has variables of its own."""
        del variables
        return NNXNet(module)

    @contextlib.contextmanager
    def marked(self, layers: dict[str, Layer]) -> Iterator[None]:
        """Marks on each public method of each module."""
        with calling(functools.partial(mark, layers)):
            yield


def called(module: Any, x: Any, **options: Any) -> Any:
    """Call a module of our own copy, and its modules as `CALLING` says."""
    if CALLING.get() is not None:
        number = next(_CALLS)
        # By names as of Flax itself: `nnx.bridge.ToNNX` takes its other attributes for variables.
        for path, each in list(modules(module)):
            cls = _called_otherwise(type(each))
            become(each, cls, _pytree__rice_jax_path=path, _pytree__rice_jax_call=number)
    return module(x, **options)


def modules(module: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """The modules of the tree with their paths, each once, the root's ''."""
    for path, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Module):
            yield "/".join(map(str, path)), node


def subclass(cls: type, methods: dict[str, Any]) -> type:
    """A class as `cls`, of its name, with other methods: for modules of our own copy alone."""
    options = {} if getattr(cls, "_pytree__is_pytree", True) else {"pytree": False}
    own = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return types.new_class(cls.__name__, (cls,), options, lambda body: body.update(own | methods))


def become(module: nnx.Module, cls: type, **attributes: Any) -> None:
    """Make a module of our own copy one of another class, a `subclass` of its own."""
    for name, value in attributes.items():
        setattr(module, name, value)
    object.__setattr__(module, "__class__", cls)


@functools.cache  # JAX and NNX keep each class of modules that they met, so it is made once
def _called_otherwise(cls: type) -> type:
    """A class as `cls` whose methods are called as `CALLING` says."""

    def otherwise(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            how = CALLING.get()
            bound = functools.partial(method, self)
            if how is None:
                return bound(*args, **kwargs)
            return how(self._pytree__rice_jax_path, cls, bound, args, kwargs)

        return call

    return subclass(cls, {name: otherwise(method) for name, method in _methods(cls).items()})


def _methods(cls: type) -> dict[str, Callable[..., Any]]:
    """What can be called of a module, without what every module has."""
    ours = [each for each in cls.__mro__ if each not in nnx.Module.__mro__]
    members = {name: member for each in ours[::-1] for name, member in vars(each).items()}
    return {
        name: member
        for name, member in members.items()
        if (name == "__call__" and callable(member))
        or (inspect.isfunction(member) and not name.startswith("_"))
    }


def _places(state: Any) -> list[tuple[str, ...]]:
    """For each array of a state its collection and the names that lead to it."""
    places: list[tuple[str, ...]] = []
    variables = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_variable)[0]
    for keys, variable in variables:
        path = tuple(map(key_name, keys))
        inside = jax.tree_util.tree_flatten_with_path(variable)[0]
        if len(inside) == 1:
            places.append((_collection(variable), *path))
        else:  # a variable that holds a tree of arrays
            places += [(_collection(variable), *path, *map(key_name, below)) for below, _ in inside]
    return places


def _is_variable(value: Any) -> bool:
    return isinstance(value, nnx.Variable)


def _collection(variable: Any) -> str:
    if not _is_variable(variable):
        return "arrays"
    if isinstance(variable, nnx.Param):
        return "params"
    return nnx.variable_name_from_type(type(variable), allow_register=True)


def _known(leaf: Any) -> Any:
    """A random stream's key or count; a fixed one where a module has shapes alone."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)


def _reseeded(random: Any, key: jax.Array) -> Any:
    """Random streams that draw from `key`, each by its place among them."""
    leaves, structure = jax.tree.flatten(random)
    for place, leaf in enumerate(leaves):
        if is_key(leaf):
            drawn = jax.random.fold_in(key, place)
            leaves[place] = jax.random.split(drawn, leaf.shape) if leaf.shape else drawn
    return jax.tree.unflatten(structure, leaves)
