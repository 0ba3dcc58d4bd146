"""A Linen module as one flat list of equations, each tagged with the layer it belongs to.

The profiler counts over this list, the inspector captures and bounds values of it, and the
pruner finds channel dependencies in it. Nothing is computed to make it: tracing is abstract.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.ad_checkpoint import checkpoint_name

from rice_jax.graph.equations import Body, Choice, Equation, Value, needed
from rice_jax.graph.inlining import LAYER, OUTPUT, Inliner

__all__ = ["Body", "Choice", "Equation", "Layer", "Trace", "Value", "trace", "variable_shapes"]


@dataclasses.dataclass(eq=False)
class Layer:
    """A module of the tree, as it was called."""

    path: str
    """Names joined by '/': 'inception3a/branch2/reduce'; '' for the root."""
    module: type[nn.Module]
    output: Value | None = None
    """What the last call returned, where that is a single array outside any loop or branch."""
    calls: int = 0
    params: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Shapes of the layer's own parameters ('kernel', 'bias'), without its children's."""


@dataclasses.dataclass(eq=False)
class Trace:
    """What a module computes for one input shape."""

    equations: list[Equation]
    layers: dict[str, Layer]
    """By path, in the order in which they are first called; modules never called are absent."""
    input: Value
    outputs: list[Value]
    variables: dict[str, Value]
    """By path with its collection first: 'params/conv1/kernel', 'batch_stats/bn/mean'."""
    variable_shapes: Any
    """Shapes of the same variables, nested as `module.apply` takes them."""
    owners: dict[Value, str]
    """Path of the module that each variable is of."""
    choices: dict[int, Choice]
    """What `lax.platform_dependent` decides, by the place of its first equation."""

    def producer(self, value: Value) -> Equation | None:
        """The equation that makes `value`, None for inputs, variables and constants."""
        return self._producers.get(value)

    def consumers(self, value: Value) -> list[Equation]:
        """The equations that read `value`."""
        return self._consumers.get(value, [])

    def __post_init__(self) -> None:
        self._producers: dict[Value, Equation] = {}
        self._consumers: dict[Value, list[Equation]] = {}
        for equation in self.equations:
            for value in equation.outputs:
                self._producers[value] = equation
            for value in dict.fromkeys(equation.inputs):
                self._consumers.setdefault(value, []).append(equation)

    def needed(self, wanted: Sequence[Value]) -> list[Equation]:
        """The equations that the `wanted` values depend on, in order of execution."""
        return needed(self.equations, wanted)

    def evaluate(
        self,
        variables: Any,
        x: jax.Array,
        wanted: Sequence[Value],
        edits: Mapping[Value, Callable[[jax.Array], jax.Array]] = MappingProxyType({}),
        *,
        by_platform: bool = False,
    ) -> list[jax.Array]:
        """The arrays of the `wanted` values for `variables` and an input x of the traced shape.

        What an equation gives for a value of `edits` is replaced by that function of it, before
        anything reads it. Pure JAX: jit it, and XLA drops what no wanted value needs.
        `by_platform` runs the operations that the module itself runs on this platform, which are
        faster than the trace's and equal but for rounding; gradients are not theirs to give.
        """
        flat = traverse_util.flatten_dict(variables, sep="/")
        arrays: dict[Value, Any] = {value: flat[path] for path, value in self.variables.items()}
        arrays[self.input] = x

        def read(value: Value) -> Any:
            return arrays[value] if value.constant is None else value.constant

        choices = self._open_choices({*wanted, *edits}) if by_platform else {}
        place = 0
        while place < len(self.equations):
            choice, equation = choices.get(place), self.equations[place]
            if choice is None:
                results = equation.apply(*map(read, equation.inputs))
                place += 1
            else:
                equation = choice.whole
                results = equation.apply(choice.index(), *map(read, equation.inputs))
                place = choice.span.stop
            for value, result in zip(equation.outputs, results, strict=True):
                arrays[value] = edits[value](result) if value in edits else result
        return [read(value) for value in wanted]

    def _open_choices(self, needed: set[Value]) -> dict[int, Choice]:
        """The choices of whose default no value is needed but its results."""

        def hides(choice: Choice) -> bool:
            inside = {value for eqn in self.equations[choice.span] for value in eqn.outputs}
            return not (inside - set(choice.whole.outputs)).isdisjoint(needed)

        return {place: choice for place, choice in self.choices.items() if not hides(choice)}


def trace(
    module: nn.Module, input_shape: Sequence[int], dtype: Any = jnp.float32, **kwargs: Any
) -> Trace:
    """Trace `module.apply(variables, x, **kwargs)` for an x of `input_shape`.

    Args:
        module: any Linen module called with one array.
        input_shape: shape of x with its batch dimension, (N, H, W, C) for images.
        dtype: dtype of x.
        **kwargs: what else the module's call needs, such as train=False.

    Returns:
        The computation, with no weights and no arithmetic needed.
    """
    x = jax.ShapeDtypeStruct(tuple(input_shape), dtype)
    variables = variable_shapes(module, input_shape, dtype, **kwargs)
    layers: dict[str, Layer] = {}

    def apply(variables: Any, x: jax.Array) -> Any:
        with _marked_layers(layers):
            return module.apply(variables, x, **kwargs)

    jaxpr = jax.make_jaxpr(apply)(variables, x)
    # Dictionaries are flattened in sorted order of nested keys, arguments in order.
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    names = [[str(key.key) for key in keys] for keys, _ in leaves]
    shapes = [*(shape for _, shape in leaves), x]
    inputs = [Value(tuple(shape.shape), np.dtype(shape.dtype)) for shape in shapes]
    inliner = Inliner()
    outputs = inliner.inline(jaxpr.jaxpr, jaxpr.consts, inputs, "")
    for called, output in inliner.layer_outputs.items():
        layers[called].output = output
    owners: dict[Value, str] = {}
    for (collection, *path), value in zip(names, inputs, strict=False):
        owners[value] = owner = "/".join(path[:-1])
        if collection == "params" and owner in layers:
            layers[owner].params[path[-1]] = value.shape
    return Trace(
        equations=inliner.equations,
        layers=layers,
        input=inputs[-1],
        outputs=outputs,
        variables=dict(zip(map("/".join, names), inputs, strict=False)),
        variable_shapes=variables,
        owners=owners,
        choices=inliner.choices,
    )


def variable_shapes(
    module: nn.Module, input_shape: Sequence[int], dtype: Any = jnp.float32, **kwargs: Any
) -> Any:
    """Shapes of the variables that `module.init` would make, at no compute."""
    x = jax.ShapeDtypeStruct(tuple(input_shape), dtype)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    return jax.eval_shape(lambda x: module.init(keys, x, **kwargs), x)


@contextlib.contextmanager
def _marked_layers(layers: dict[str, Layer]) -> Iterator[None]:
    """Leave marks in the jaxpr: a scope named after each module's path, a name on its output."""

    def mark(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        if context.method_name == "setup":
            return call(*args, **kwargs)
        path = "/".join(context.module.path)
        layer = layers.setdefault(path, Layer(path, type(context.module)))
        layer.calls += 1
        with jax.named_scope(LAYER + path):
            output = call(*args, **kwargs)
        return checkpoint_name(output, OUTPUT + path) if _is_array(output) else output

    with nn.intercept_methods(mark):
        yield


def _is_array(output: Any) -> bool:
    return isinstance(output, jax.Array)
