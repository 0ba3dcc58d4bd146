"""A net as one flat list of equations, each tagged with the layer it belongs to.

The profiler counts over this list, the inspector captures and bounds values of it, and the
pruner finds channel dependencies in it. Nothing is computed to make it: tracing is abstract.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.errors import UserError
from rice_jax.graph import call, scopes
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.equations import Body, Choice, Equation, Value, needed
from rice_jax.graph.fronts import front
from rice_jax.graph.inlining import Inliner
from rice_jax.graph.keys import carried
from rice_jax.graph.marks import Layer

__all__ = ["Body", "Choice", "Equation", "Layer", "Trace", "Value", "trace", "variable_shapes"]


@dataclasses.dataclass(eq=False)
class Trace:
    """What a module computes for one input shape."""

    equations: list[Equation]
    layers: dict[str, Layer]
    """By path, in the order in which they are first called; modules never called are absent."""
    input: Value
    outputs: list[Value]
    """All arrays that the module returns, and what `output=` makes of them."""
    returned: Mapping[str, Value]
    """The arrays that the module returns, by key, attribute or index."""
    logits: Value | None
    """The lone output, or the one that `output=` names."""
    variables: dict[str, Value]
    """By path with its collection first: 'params/conv1/kernel', 'batch_stats/bn/mean'."""
    variable_shapes: Any
    """Shapes of the same variables, nested as `module.apply` takes them."""
    owners: dict[Value, str]
    """Path of the module that each variable is of."""
    choices: dict[int, Choice]
    """What `lax.platform_dependent` decides, by the place of its first equation."""

    def the_logits(self) -> Value:
        """The logits; UserError where the module returns several arrays and none is named."""
        if self.logits is None:
            raise call.unnamed(self.returned)
        return self.logits

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
        run: Callable[..., list[Any]] | None = None,
    ) -> list[jax.Array]:
        """The arrays of the `wanted` values for `variables` and an input x of the traced shape.

        What an equation gives for a value of `edits` is replaced by that function of it, before
        anything reads it. Pure JAX: jit it, and XLA drops what no wanted value needs.
        `by_platform` runs the operations that the module itself runs on this platform, which are
        faster than the trace's and equal but for rounding; gradients are not theirs to give.
        `run` does an equation, instead of `Equation.apply`: `ops.replayed` does it faster on CPU.
        """
        arrays: dict[Value, Any] = {**self.arrays(variables), self.input: x}

        def read(value: Value) -> Any:
            return arrays[value] if value.constant is None else value.constant

        apply = Equation.apply if run is None else run
        choices = self._open_choices({*wanted, *edits}) if by_platform else {}
        place = 0
        while place < len(self.equations):
            choice, equation = choices.get(place), self.equations[place]
            if choice is None:
                results = apply(equation, *map(read, equation.inputs))
                place += 1
            else:
                equation = choice.whole
                results = equation.apply(choice.index(), *map(read, equation.inputs))
                place = choice.span.stop
            for value, result in zip(equation.outputs, results, strict=True):
                arrays[value] = edits[value](result) if value in edits else result
        return [read(value) for value in wanted]

    def arrays(self, variables: Any) -> dict[Value, Any]:
        """The array of each variable, out of what `module.init` returned.

        UserError where one is missing or has another shape.
        """
        given = call.by_path(variables)
        if "params" not in variables and any(path.startswith("params/") for path in self.variables):
            raise UserError(
                "variables have no collection 'params': give all that init returned, "
                "{'params': ...}, not its 'params' alone"
            )
        for path, value in self.variables.items():
            if path not in given:
                raise UserError(f"variables have no {path}, which the net asks for")
            if tuple(np.shape(given[path])) != value.shape:
                raise UserError(
                    f"variables: {path} is {tuple(np.shape(given[path]))}, the net asks for "
                    f"{value.shape}"
                )
        return {value: given[path] for path, value in self.variables.items()}

    def _open_choices(self, needed: set[Value]) -> dict[int, Choice]:
        """The choices of whose default no value is needed but its results."""

        def hides(choice: Choice) -> bool:
            inside = {value for eqn in self.equations[choice.span] for value in eqn.outputs}
            return not (inside - set(choice.whole.outputs)).isdisjoint(needed)

        return {place: choice for place, choice in self.choices.items() if not hides(choice)}


def trace(
    module: Any,
    input_shape: InputShape,
    dtype: Any = jnp.float32,
    *,
    output: call.Output = None,
    any_key: bool = False,
    shapes: Any = None,
    **kwargs: Any,
) -> Trace:
    """Trace a net's call for an input of `input_shape`.

    Args:
        module: a Linen module or an NNX module called with one array; a `fronts.PureNet`.
        input_shape: shape of x with its batch dimension, (N, H, W, C) for images.
        dtype: dtype of x.
        output: which of several outputs are the logits: a key, an attribute, an index, or a
            function of what the module returns.
        any_key: draw from a fixed key what has none in `rngs`: for counts, not for values.
        shapes: of the variables, where they are known: what `variable_shapes` gives takes as long
            as the trace itself.
        **kwargs: what else the module's call needs, such as train=False, or `rngs`, keys by
            stream, as `module.apply` takes them. Arrays among them are constants of the
            computation.

    Returns:
        The computation, with no weights and no arithmetic needed.

    Raises:
        UserError: for what is no net, a stream without a key, or an output that is none.
    """
    net = front(module)
    x = jax.ShapeDtypeStruct(tuple(input_shape), dtype)
    if shapes is None:
        shapes = net.shapes(x, **kwargs)
    known = call.by_path(shapes)
    names, variables = tuple(known), tuple(known.values())
    layers: dict[str, Layer] = {}
    returned: list[str] = []
    options = carried(net.options(any_key=any_key, **kwargs))

    def apply(variables: Any, x: jax.Array) -> tuple[list[Any], list[Any]]:
        with net.marked(layers):
            result = net.apply(variables, x, **options())
        arrays = call.outputs(result)
        returned[:] = arrays
        named = len(arrays) == 1 or output is not None
        return list(arrays.values()), [call.chosen(result, output)] if named else []

    jaxpr = jax.make_jaxpr(apply)(shapes, x)
    inputs = [Value(tuple(s.shape), np.dtype(s.dtype)) for s in (*variables, x)]
    inliner = Inliner(net.layer_of)
    results = inliner.inline(jaxpr.jaxpr, jaxpr.consts, inputs, "")
    named = dict(zip(names, inputs, strict=False))
    if net.scoped:
        layers = scopes.layers(inliner.equations, results)
        owners = scopes.owners(named, inliner.equations, layers)
    else:
        _note_calls(layers, inliner)
        owners = _owners(shapes, named, layers)
    return Trace(
        equations=inliner.equations,
        layers=layers,
        input=inputs[-1],
        outputs=list(dict.fromkeys(results)),
        returned=dict(zip(returned, results, strict=False)),
        logits=results[-1] if len(results) > len(returned) else None,
        variables=named,
        variable_shapes=shapes,
        owners=owners,
        choices=inliner.choices,
    )


def variable_shapes(
    module: Any,
    input_shape: InputShape,
    dtype: Any = jnp.float32,
    *,
    output: call.Output = None,
    **kwargs: Any,
) -> Any:
    """Shapes of a net's variables, of a Linen module those that `module.init` would make.

    Without boxes and at no compute. The arguments are those of `trace`; `output` is of no matter
    here.
    """
    del output
    x = jax.ShapeDtypeStruct(tuple(input_shape), dtype)
    return front(module).shapes(x, **kwargs)


def _note_calls(layers: Mapping[str, Layer], inliner: Inliner) -> None:
    """Note what goes in and out of each module, and how often, as its marks in the jaxpr tell."""
    for called, value in inliner.layer_inputs.items():
        layers[called].input = value
    for called, value in inliner.layer_outputs.items():
        layers[called].output = value
    for called, times in inliner.layer_calls.items():
        # What JAX keeps as it was traced (`nnx.jit`) runs again without being called.
        layers[called].calls = max(layers[called].calls, times)


def _owners(
    shapes: Any, variables: Mapping[str, Value], layers: dict[str, Layer]
) -> dict[Value, str]:
    """The path of each variable's module; notes the parameters of each layer."""
    owners: dict[Value, str] = {}
    # By the places in the tree: a variable's own name may have '/' in it (`nn.WeightNorm`).
    for (place, _), value in zip(call.placed(shapes), variables.values(), strict=True):
        collection, *path, own = place
        owners[value] = owner = "/".join(path)
        if collection == "params" and owner in layers:
            layers[owner].params[own] = value.shape
    return owners
