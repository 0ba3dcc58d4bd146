"""A net of the user's own class, called as the package's nets are."""

import dataclasses
import inspect
from collections.abc import Container, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from rice_jax import ops
from rice_jax.errors import UserError
from rice_jax.graph import narrowed
from rice_jax.graph.call import Output, chosen
from rice_jax.graph.narrowed import Held, Narrowed
from rice_jax.models.layers import dropped, shrunk
from rice_jax.models.statistics import added, normalised
from rice_jax.models.traced import Traced
from rice_jax.nets import SUPPLIED, classes_field, told


class Own(Traced, Narrowed):
    """Any Linen module with the fields that training and export set, and narrower where pruned.

    Its `nn.Dropout` draws by an image's index in the global batch, as ours does: a result depends
    neither on the number of devices nor on the parts that a device computes a batch in. So does its
    `nn.BatchNorm`, whose statistics are the global batch's (`statistics`).
    """

    @classmethod
    def of(
        cls,
        module: type[nn.Module],
        output: Output = None,
        /,
        *,
        dtype: Any = jnp.float32,
        **fields: Any,
    ) -> "Own":
        """The net of a class, one of whose outputs, if it has several, are the logits.

        `grid` and `narrowed`, what pruning left of it, are among the fields.

        Raises:
            UserError: activations of another type than float32, which the class cannot set, or
                a text that does not tell widths.
        """
        text, grid = fields.pop("narrowed", ""), fields.pop("grid", 0)
        smaller = what_is_left(text)
        if dtype != jnp.float32 and "dtype" not in _fields(module):
            raise UserError(
                f"config.train.dtype: {module.__name__} has no field dtype for its activations"
            )
        own: dict[str, Any] = {"widths": FrozenDict(), **smaller}
        still = told(_modes(module), train=False)
        fields = with_classes(_fields(module), fields)
        return cls(Held(module(**still, **fields)), **own, dtype=dtype, grid=grid, output=output)

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits (N, classes) of images x (N, H, W, 3) in [0, 1]."""
        module = self.whole.module
        given = {name: getattr(self, name) for name in SUPPLIED if name in _fields(type(module))}
        given |= told(_modes(type(module)), train)
        called = told(inspect.signature(type(module).__call__).parameters, train)
        x = shrunk(x, self.grid)
        with nn.intercept_methods(self._instead):
            result = self.run(module.clone(parent=self.scope, **given), x, **called)
        classes = getattr(module, classes_field(_fields(type(module))) or "", None)
        return as_logits(result, self.output, x, type(module), classes)

    @nn.nowrap
    def _instead(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """What layers do otherwise here than in Flax."""
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, nn.Dropout):
            return self._drop(layer, *args, **kwargs)
        if context.method_name == "__call__" and isinstance(layer, nn.BatchNorm):
            return self._normalise(layer, *args, **kwargs)
        if context.method_name == "__call__" and isinstance(layer, nn.Conv):
            return _convolved(layer, call, *args, **kwargs)
        return call(*args, **kwargs)

    @nn.nowrap
    def _drop(
        self, layer: nn.Dropout, x: jax.Array, deterministic: bool | None = None, rng: Any = None
    ) -> jax.Array:
        still = nn.merge_param("deterministic", layer.deterministic, deterministic)
        if still or layer.rate == 0:
            return x
        key = layer.make_rng(layer.rng_collection) if rng is None else rng
        return dropped(x, layer.rate, key, self.first_image, layer.broadcast_dims)

    @nn.nowrap
    def _normalise(
        self,
        layer: nn.BatchNorm,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: Any = None,
    ) -> jax.Array:
        running = nn.merge_param(
            "use_running_average", layer.use_running_average, use_running_average
        )
        path = "/".join(layer.path[len(self.path) :])
        if mask is not None:
            raise UserError(f"{path}: a batch norm is trained without mask=")
        if path not in self.folded:
            running = bool(running) or path in self.still
            return normalised(layer, x, running=running, rows=self.rows)
        return added(layer, x) if self.folded[path] else x


def _convolved(layer: nn.Conv, call: Any, *args: Any, **kwargs: Any) -> jax.Array:
    """What a convolution computes, as the package does where XLA is slow."""
    given = layer.conv_general_dilated is not None or layer.conv_general_dilated_cls is not None
    if given:
        return call(*args, **kwargs)
    object.__setattr__(layer, "conv_general_dilated", ops.conv_where_slow)
    try:
        return call(*args, **kwargs)
    finally:
        object.__setattr__(layer, "conv_general_dilated", None)


def _fields(module: type[nn.Module]) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(module))  # type: ignore[arg-type]


def _modes(module: type[nn.Module]) -> frozenset[str]:
    """The fields that may tell a net whether it learns: of two ways that Flax has, it takes one."""
    return _fields(module) - inspect.signature(module.__call__).parameters.keys()  # type: ignore[operator]


def with_classes(names: Container[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a net, the number of its classes by the name that it has for it."""
    own = classes_field(names) or "classes"
    return {own if name == "classes" else name: value for name, value in fields.items()}


def as_logits(
    given: Any, output: Output, x: jax.Array, net: type, classes: int | None
) -> jax.Array:
    """The logits, in float32, out of what a net gives of images x (N, H, W, C).

    `output` says which they are of several; an array alone is they, but for a function of it: of
    many nets only training has other outputs.

    Raises:
        UserError: several outputs and none is named, or something else than logits (N, classes).
    """
    if callable(output) or not hasattr(given, "shape"):
        try:
            given = chosen(given, output)
        except UserError as error:
            raise UserError(f"own_net.configuration({net.__name__}): {error}") from error
    shape: Any = getattr(given, "shape", ())
    images = x.shape[0]
    symbolic = not isinstance(images, int)  # export's, whose batches are of any size
    if len(shape) != 2 or shape[1] != (classes or shape[1]) or not (symbolic or shape[0] == images):
        told = f"an array {shape}" if hasattr(given, "shape") else f"a {type(given).__name__}"
        raise UserError(
            f"{net.__name__} gives {told} of {images} images, no logits ({images}, {classes})"
        )
    return jnp.asarray(given, jnp.float32)


def what_is_left(text: str) -> dict[str, Any]:
    """The fields of a narrowed net that config.model.narrowed tells; UserError where it cannot."""
    try:
        return dict(narrowed.fields(text))
    except ValueError as error:
        raise UserError(f"config.model.narrowed: {error}") from error
