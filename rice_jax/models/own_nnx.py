"""A net of the user's own NNX class, called as the package's nets are."""

import contextvars
import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from flax.core import FrozenDict

from rice_jax import ops
from rice_jax.errors import UserError
from rice_jax.graph.call import Output
from rice_jax.graph.fronts.nnx import NNXNet, become, called, modules, subclass
from rice_jax.graph.marks import calling
from rice_jax.graph.narrowed import Bridged
from rice_jax.graph.narrowed_nnx import fit
from rice_jax.graph.scopes import is_under
from rice_jax.models.layers import dropped, shrunk
from rice_jax.models.own import as_logits, what_is_left, with_classes
from rice_jax.models.statistics import (
    AFFINE,
    COLLECTION,
    STATISTICS,
    Norm,
    require_last_axis,
)
from rice_jax.models.traced import Traced
from rice_jax.nets import RNGS, classes_field, told

_OF_NNX = ("mean", "var")
"""What NNX calls a norm's statistics; training's names are `STATISTICS`."""
_OF_JAX = jax.lax.conv_general_dilated
_GROUPS = ("feature_group_count", "num_groups")
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Made:
    """An NNX class and the fields that it is made with."""

    cls: type
    fields: Mapping[str, Any]

    def __call__(self, key: jax.Array) -> nnx.Module:
        """A new module, random from `key`."""
        return self.cls(**self.fields, rngs=nnx.Rngs(key))


class OwnNNX(Traced, Bridged):
    """Any NNX class with the fields that training and export set, and narrower where pruned.

    The parameters are the class's own by the paths of its modules; the statistics of
    `nnx.BatchNorm` are among them by the names that Linen nets have here. Each call makes a copy
    of the module, whose `nnx.Dropout` and `nnx.BatchNorm` go by the global batch, as in `Own`.
    """

    made: Made | None = None

    @classmethod
    def of(
        cls,
        module: type[nnx.Module],
        output: Output = None,
        /,
        *,
        dtype: Any = jnp.float32,
        **fields: Any,
    ) -> "OwnNNX":
        """The net of a class, one of whose outputs, if it has several, are the logits.

        `grid` and `narrowed`, what pruning left of it, are among the fields.

        Raises:
            UserError: activations of another type than float32, which the class cannot set, or
                a text that does not tell widths.
        """
        text, grid = fields.pop("narrowed", ""), fields.pop("grid", 0)
        smaller = what_is_left(text)
        takes = inspect.signature(module.__init__).parameters
        if dtype != jnp.float32 and "dtype" not in takes:
            raise UserError(
                f"config.train.dtype: {module.__name__} takes no dtype= for its activations"
            )
        given = {"dtype": dtype} if "dtype" in takes else {}
        made = Made(module, FrozenDict({**with_classes(takes, fields), **given}))
        return cls(**smaller, made=made, dtype=dtype, grid=grid, output=output)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits (N, classes) of images x (N, H, W, 3) in [0, 1]."""
        assert self.made is not None
        net = _whole(self.made)
        params = self._params(net)
        key = self.make_rng("dropout") if train and self.has_rng("dropout") else None
        module: Any = net.with_variables(self._as_nnx_has_it(net, params), key)
        self._prepare(module, train=train)
        call: Any = self.made.cls.__call__
        takes = inspect.signature(call).parameters
        options = told(takes, train) | self._to_draw_from(takes, train)
        x = shrunk(x, self.grid)
        before = _CALLED.set(self)
        try:
            result = self._call(module, x, **options)
        finally:
            _CALLED.reset(before)
        self._leave(module, train=train)
        classes = self.made.fields.get(classes_field(self.made.fields) or "")
        return as_logits(result, self.output, x, self.made.cls, classes)

    def _to_draw_from(self, takes: Mapping[str, inspect.Parameter], train: bool) -> dict[str, Any]:
        """The `rngs` of a call that takes such: None where nothing is to be drawn.

        As a key where the class says that it takes an array.
        """
        if RNGS not in takes:
            return {}
        if not train:
            return {RNGS: None} if takes[RNGS].default is inspect.Parameter.empty else {}
        key = self.make_rng("dropout") if self.has_rng("dropout") else jax.random.key(0)
        is_key = "Array" in str(takes[RNGS].annotation)
        return {RNGS: key if is_key else nnx.Rngs(key)}

    @nn.nowrap
    def _prepare(self, module: Any, *, train: bool) -> None:
        """Layers that do otherwise than NNX's, of the sizes that are left, learning or not."""
        flags = {"deterministic": not train, "use_running_average": not train}
        module.set_attributes(**flags, raise_if_not_found=False)
        for path, layer in list(modules(module)):
            for kind, instead in _INSTEAD.items():
                if isinstance(layer, kind):
                    become(layer, _otherwise(type(layer), instead), _own_path=path)
            if isinstance(layer, nnx.Conv):
                _make_fast(layer)
            if "strides" in self.widths.get(path, {}):
                setattr(layer, "strides", self.widths[path]["strides"])  # noqa: B010
            if path in self.dropped:
                become(layer, _otherwise(type(layer), _pass))
        if self.widths:
            groups = {
                path: {name: at[name] for name in _GROUPS if name in at}
                for path, at in self.widths.items()
            }
            fit(module, groups, self.reads, self.writes)

    def _call(self, module: Any, x: jax.Array, **options: Any) -> Any:
        assert self.scope is not None
        if not self.scope.is_mutable_collection("intermediates"):
            return called(module, x, **options)
        maps: list[tuple[Any, Any]] = []

        def noted(path: str, cls: type, call: Any, args: Any, kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if isinstance(output, jax.Array):
                maps.append((output.shape, output.dtype))
            return output

        with calling(noted):
            result = called(module, x, **options)
        # Their sizes alone are asked for, and an array from within a loop could not leave it.
        self.scope.put_variable("intermediates", "layers", tuple(jnp.zeros(*m) for m in maps))
        return result

    def _leave(self, module: Any, *, train: bool) -> None:
        """Put what training and export ask for of the norms where `normalised` does."""
        assert self.scope is not None
        collection = COLLECTION if train else AFFINE
        if self.is_initializing() or not self.scope.is_mutable_collection(collection):
            return
        left: dict[Path, jax.Array] = {}
        for path, layer in _norms(module):
            if path not in self.folded:
                norm = _norm(layer)
                names = STATISTICS if train else ("factor", "offset")
                values = (norm.mean, norm.var) if train else norm.affine()
                keys = ((*path.split("/"), name) for name in names)
                left |= dict(zip(keys, values, strict=True))
        for name, inner in traverse_util.unflatten_dict(left).items():
            self.scope.put_variable(collection, name, inner)

    def _params(self, net: NNXNet) -> dict[Path, Any]:
        """The parameters by path, made where the module is initialising."""
        wanted = dict(self._shapes(net))
        values = {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in wanted.items()}
        if self.is_initializing():
            assert self.made is not None
            drawn = _as_training_has_it(net.variables_of(self.made(self.make_rng("params"))))
            values = {path: _cut(path, drawn[path], leaf) for path, leaf in wanted.items()}
        nested = traverse_util.unflatten_dict(values)
        given = {name: self.param(name, lambda _, at=at: at) for name, at in nested.items()}
        return traverse_util.flatten_dict(_plain(given))

    @nn.nowrap
    def _shapes(self, net: NNXNet) -> Iterator[tuple[Path, jax.ShapeDtypeStruct]]:
        """What parameters there are, and their shapes."""
        for path, leaf in _as_training_has_it(net.variables).items():
            layer = "/".join(path[:-1])
            if is_under(layer, self.dropped):
                continue
            if layer in self.folded and not (path[-1] == "bias" and self.folded[layer]):
                continue
            shape = self.widths.get(layer, {}).get(path[-1], leaf.shape)
            yield path, jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)

    @nn.nowrap
    def _as_nnx_has_it(self, net: NNXNet, params: Mapping[Path, Any]) -> Any:
        """Variables as the module holds them; zeros for those that nothing reads any more."""
        whole = traverse_util.flatten_dict(net.variables)
        names = {(*path[1:-1], _renamed(path)): path for path in whole}
        flat = {names[path]: array for path, array in params.items()}
        for path, leaf in whole.items():
            flat.setdefault(path, jnp.zeros(leaf.shape, leaf.dtype))
        return traverse_util.unflatten_dict(flat)


_CALLED: contextvars.ContextVar[OwnNNX] = contextvars.ContextVar("called")
"""The net whose module is being called."""


@functools.cache
def _whole(made: Made) -> NNXNet:
    """The net as wide as its class makes it, of shapes alone.

    Raises:
        UserError: it has variables of other kinds than parameters and the norms' statistics.
    """
    with jax.ensure_compile_time_eval():
        module = nnx.eval_shape(made, jax.random.key(0))
        net = NNXNet(module)
    flat = traverse_util.flatten_dict(net.variables)
    norms = {(*path.split("/"), name) for path, _ in _norms(module) for name in _OF_NNX}
    others = {
        path[0]
        for path in flat
        if path[0] != "params" and not (path[0] == "batch_stats" and path[1:] in norms)
    }
    if others:
        raise UserError(
            f"the net has variables that training does not carry, {', '.join(sorted(others))}: it "
            "carries nnx.Param, and the statistics of nnx.BatchNorm"
        )
    return net


def _renamed(path: Path) -> str:
    """Training's name of a variable of NNX's."""
    name = path[-1]
    return dict(zip(_OF_NNX, STATISTICS, strict=True))[name] if path[0] == "batch_stats" else name


def _as_training_has_it(variables: Any) -> dict[Path, Any]:
    """All variables as parameters by path, in one tree."""
    flat = traverse_util.flatten_dict(variables)
    return {(*path[1:-1], _renamed(path)): leaf for path, leaf in flat.items()}


def _cut(path: Path, drawn: jax.Array, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    """Random numbers of a narrower layer, out of those that the class draws for its whole one.

    Kernels are as much larger as Flax's own initialisers make them for fewer inputs.
    """
    if drawn.shape == wanted.shape:
        return drawn
    fewer = math.prod(drawn.shape[:-1]) / math.prod(wanted.shape[:-1])
    cut = drawn[tuple(map(slice, wanted.shape))]
    return cut * math.sqrt(fewer) if path[-1] == "kernel" else cut


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _plain(inner) for name, inner in tree.items()}
    return tree


def _norms(module: nnx.Module) -> Iterator[tuple[str, Any]]:
    return ((path, each) for path, each in modules(module) if isinstance(each, nnx.BatchNorm))


def _norm(layer: Any) -> Norm:
    """A norm's numbers as they are now."""
    scale, bias = (each if each is None else each[...] for each in (layer.scale, layer.bias))
    return Norm(layer.mean[...], layer.var[...], scale, bias, layer.momentum, layer.epsilon)


def _make_fast(layer: Any) -> None:
    """Let a convolution be the package's where XLA is slow, and it has no way of its own."""
    if layer.conv_general_dilated is _OF_JAX:
        layer.conv_general_dilated = ops.conv_where_slow


def _pass(layer: Any, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    del layer, args, kwargs
    return x


def _drop(layer: Any, x: jax.Array, *, deterministic: Any = None, rngs: Any = None) -> jax.Array:
    still = layer.deterministic if deterministic is None else deterministic
    if still or layer.rate == 0:
        return x
    source = layer.rngs if rngs is None else rngs
    if source is None:
        raise UserError(f"{layer._own_path}: nnx.Dropout is made without rngs=: it draws from them")
    if isinstance(source, nnx.Rngs):
        source = source[layer.rng_collection]
    key = source() if callable(source) else source
    return dropped(x, layer.rate, key, _CALLED.get().first_image, layer.broadcast_dims)


def _normalise(
    layer: Any, x: jax.Array, use_running_average: Any = None, *, mask: Any = None
) -> jax.Array:
    net, path = _CALLED.get(), layer._own_path
    require_last_axis(layer, path)
    if mask is not None:
        raise UserError(f"{path}: a batch norm is trained without mask=")
    if path in net.folded:
        return (x + layer.bias[...] if net.folded[path] else x).astype(layer.dtype or x.dtype)
    running = layer.use_running_average if use_running_average is None else use_running_average
    running = running or path in net.still
    result, kept = _norm(layer)(x, running=running, rows=net.rows)
    if not running:
        for variable, value in zip((layer.mean, layer.var), kept, strict=True):
            _set(variable, value)
    return result.astype(layer.dtype or x.dtype)


def _set(variable: Any, value: jax.Array) -> None:
    if hasattr(variable, "set_value"):
        variable.set_value(value)
    else:  # older versions of Flax
        variable.value = value


_INSTEAD: Mapping[type, Any] = {nnx.Dropout: _drop, nnx.BatchNorm: _normalise}


@functools.cache  # JAX and NNX keep each class of modules that they met, so it is made once
def _otherwise(cls: type, instead: Any) -> type:
    """A class as `cls`, called as `instead` has it."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return instead(self, *args, **kwargs)

    return subclass(cls, {"__call__": call})
