"""From JAX's nested computations to one flat list: calls are inlined, loops and branches kept."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rice_jax.graph.equations import Body, Choice, Equation, Value

LAYER = "rice_jax layer: "
INPUT = "rice_jax input: "
OUTPUT = "rice_jax output: "
_BODIES = {
    "scan": ("jaxpr",),
    "while": ("cond_jaxpr", "body_jaxpr"),
    "cond": ("branches",),
    "shard_map": ("jaxpr",),
}
"""Loops, branches and what each device does, and the parameters that hold what they run."""
_RUN_OTHERWISE = (*_BODIES, "reduce", "reduce_window")
"""Primitives that hold a jaxpr and do not run it once."""
_DERIVED = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
"""Functions with derivatives of their own."""


def _stack(*arrays: jax.Array, axis: int) -> list[jax.Array]:
    return [jnp.concatenate([jnp.expand_dims(each, axis) for each in arrays], axis)]


def _unstack(whole: jax.Array, axis: int) -> list[jax.Array]:
    places = range(whole.shape[axis])
    return [lax.index_in_dim(whole, place, axis, keepdims=False) for place in places]


def _log2(x: jax.Array, **_: Any) -> list[jax.Array]:
    return [jnp.log(x) * np.asarray(1 / math.log(2), jnp.finfo(x.dtype).dtype)]


def _polynomial(x: jax.Array, *coefficients: jax.Array, **_: Any) -> list[jax.Array]:
    """By Horner's rule; the constant's coefficient comes first."""
    value = coefficients[-1]
    for each in reversed(coefficients[:-1]):
        value = value * x + each
    return [jnp.broadcast_to(value, jnp.broadcast_shapes(x.shape, value.shape))]


_WRITTEN_OUT: Mapping[str, Callable[..., list[jax.Array]]] = {
    "stack": _stack,
    "unstack": _unstack,
    "log2": _log2,
    "polynomial": _polynomial,
}
"""Primitives of newer versions of JAX, by the operations of which older ones made such."""


class Inliner:
    """Turns nested jaxprs into one list, every value made anew so that none is met twice.

    Args:
        layer_of: gives the path of an equation's layer, out of it and its caller's path.
    """

    def __init__(self, layer_of: Callable[[Any, str], str]) -> None:
        self._layer_of = layer_of
        self.equations: list[Equation] = []
        self.layer_inputs: dict[str, Value] = {}
        self.layer_outputs: dict[str, Value] = {}
        self.layer_calls: Counter[str] = Counter()
        self.platform_indices: dict[Value, Callable[[], jax.Array]] = {}
        self.choices: dict[int, Choice] = {}
        self._zeros: set[Value] = set()

    def inline(
        self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value], layer: str
    ) -> list[Value]:
        """Append the equations of `jaxpr` called with `inputs`; the values it returns."""
        values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, constant in zip(jaxpr.constvars, constants, strict=True):
            values[variable] = _constant(constant)

        def read(atom: Any) -> Value:
            return _constant(atom.val, atom.aval.dtype) if hasattr(atom, "val") else values[atom]

        for eqn in jaxpr.eqns:
            operands = [read(atom) for atom in eqn.invars]
            results = self._step(eqn, operands, self._layer_of(eqn, layer))
            values.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _step(self, eqn: Any, operands: list[Value], layer: str) -> list[Value]:
        name = eqn.primitive.name
        if name == "name" and eqn.params["name"].startswith(OUTPUT):
            called = eqn.params["name"].removeprefix(OUTPUT)
            self.layer_outputs[called] = operands[0]
            self.layer_calls[called] += 1
            return operands
        if name == "name" and eqn.params["name"].startswith(INPUT):
            self.layer_inputs[eqn.params["name"].removeprefix(INPUT)] = operands[0]
            return operands
        if name == "pvary":  # what all devices have is a value of each: a type, and no operation
            return operands
        if name == "cond" and operands[0] in self.platform_indices:
            return self._choose(eqn, operands, layer)
        inner = _of_known_operations(eqn) if name in _WRITTEN_OUT else _called(eqn)
        if inner is not None:
            first = len(self.equations)
            results = self._call(inner, operands, layer)
            if name in _DERIVED:
                for equation in self.equations[first:]:
                    if not set(equation.outputs).isdisjoint(results):
                        equation.derived_from = tuple(operands)
            return results
        if "_prim" in eqn.params:  # one primitive calls all that JAX has as classes
            name = type(eqn.params["_prim"]).__name__
        results = [Value(tuple(v.aval.shape), v.aval.dtype) for v in eqn.outvars]
        if name == "platform_index":
            self.platform_indices[results[0]] = functools.partial(eqn.primitive.bind, **eqn.params)
            return results
        if name == "convert_element_type" and self._is_zero(operands[0]):
            self._zeros.update(results)
        if name == "max" and any(map(self._is_zero, operands)):
            name = "relu"
        bodies = self._bodies(eqn, layer)
        self.equations.append(
            Equation(
                name, tuple(operands), tuple(results), eqn.params, layer, eqn.primitive, bodies
            )
        )
        return results

    def _is_zero(self, value: Value) -> bool:
        known = value.constant is not None and not np.any(value.constant)
        return known or value in self._zeros

    def _choose(self, eqn: Any, operands: list[Value], layer: str) -> list[Value]:
        """`lax.platform_dependent`: its last branch is the default, XLA's own operation."""
        first = len(self.equations)
        results = self._call(eqn.params["branches"][-1], operands[1:], layer)
        made = {value for equation in self.equations[first:] for value in equation.outputs}
        if made.issuperset(results):
            whole = Equation(
                "cond", tuple(operands[1:]), tuple(results), eqn.params, layer, eqn.primitive
            )
            span = slice(first, len(self.equations))
            self.choices[first] = Choice(span, self.platform_indices[operands[0]], whole)
        return results

    def _call(self, called: Any, operands: Sequence[Value], layer: str) -> list[Value]:
        return self.inline(*_opened(called), operands, layer)

    def _bodies(self, eqn: Any, layer: str) -> tuple[Body, ...]:
        """What a loop or a branch runs; nothing for any other primitive."""
        bodies = []
        for key in _BODIES.get(eqn.primitive.name, ()):
            held = eqn.params[key]
            for jaxpr, constants in map(_opened, held if isinstance(held, tuple) else (held,)):
                inputs = [Value(tuple(v.aval.shape), v.aval.dtype) for v in jaxpr.invars]
                inliner = Inliner(self._layer_of)
                outputs = inliner.inline(jaxpr, constants, inputs, layer)
                bodies.append(Body(inputs, inliner.equations, outputs, inliner.layer_outputs))
                self.layer_calls += inliner.layer_calls
        return tuple(bodies)


def _opened(called: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants, closed or not."""
    return (called.jaxpr, called.consts) if hasattr(called, "consts") else (called, ())


def _called(eqn: Any) -> Any:
    """The jaxpr that a plain call runs once; None for primitives, loops, branches, reductions."""
    if eqn.primitive.name in _RUN_OTHERWISE or "pallas" in eqn.primitive.name:
        return None
    for inner in eqn.params.values():
        jaxpr = getattr(inner, "jaxpr", inner)
        # A reduction has a jaxpr too, of what it does with two numbers.
        if hasattr(jaxpr, "eqns") and _shapes(jaxpr) == _shapes(eqn):
            return inner
    return None


def _of_known_operations(eqn: Any) -> Any:
    """The jaxpr of a primitive that is `_WRITTEN_OUT`: what is known of its operations holds."""
    function = functools.partial(_WRITTEN_OUT[eqn.primitive.name], **eqn.params)
    arrays = [jax.ShapeDtypeStruct(each.aval.shape, each.aval.dtype) for each in eqn.invars]
    return jax.make_jaxpr(function)(*arrays)


def _shapes(called: Any) -> list[Any]:
    variables = (*called.invars, *called.outvars)
    return [getattr(variable.aval, "shape", None) for variable in variables]


def marked_layer(eqn: Any, layer: str) -> str:
    """The innermost marked layer around an equation of a jaxpr that is called in `layer`."""
    for scope in reversed(eqn.source_info.name_stack.stack):
        name = getattr(scope, "name", "")
        if name.startswith(LAYER):
            return name.removeprefix(LAYER)
    return layer


def _constant(value: Any, dtype: Any = None) -> Value:
    array = np.asarray(value, dtype)
    return Value(array.shape, array.dtype, array)
