"""The layers of a function: what it computes under each `jax.named_scope`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rice_jax.graph.equations import Equation, Value, within
from rice_jax.graph.marks import Layer
from rice_jax.graph.primitives import ALIASES


class Scope:
    """Stands for a module's class where a layer is a named scope."""


def path(eqn: Any, outer: str) -> str:
    """The names of the scopes around an equation of a jaxpr that is called in the scope `outer`."""
    # A name stack tells of vmap and jvp too, which are no scopes.
    stack = eqn.source_info.name_stack.stack
    names = [scope.name for scope in stack if type(scope).__name__ == "Scope"]
    return "/".join([outer, *names] if outer else names)


def layers(equations: Sequence[Equation], returned: Iterable[Value]) -> dict[str, Layer]:
    """A layer for each scope, and the root ''.

    A scope's output is the one value made in it that is read outside, where there is one alone.
    """
    found = {"": Layer("", Scope, calls=1)}
    for inner in (inner for equation in equations for inner in within(equation)):
        for scope in around(inner.layer):
            found.setdefault(scope, Layer(scope, Scope, calls=1))
    makers = {value: equation.layer for equation in equations for value in equation.outputs}
    leaving: dict[str, dict[Value, None]] = {scope: {} for scope in found}
    reads = [(value, equation.layer) for equation in equations for value in equation.inputs]
    for value, reader in [*reads, *((value, None) for value in returned)]:
        if value in makers:
            inside = () if reader is None else around(reader)
            for scope in around(makers[value]):
                if scope not in inside:
                    leaving[scope][value] = None
    for scope, values in leaving.items():
        if len(values) == 1:
            (found[scope].output,) = values
    return found


def owners(
    variables: Mapping[str, Value], equations: Sequence[Equation], layers: dict[str, Layer]
) -> dict[Value, str]:
    """The scope that first reads each variable, whatever it is called; notes layers' parameters.

    A variable that is not read is owned by what its path names.
    """
    found: dict[Value, str] = {}
    for name, value in variables.items():
        _, *above, own = name.split("/")
        found[value] = owner = _first_reader(value, equations) or "/".join(above)
        if owner in layers:
            layers[owner].params[own] = value.shape
    return found


def _first_reader(value: Value, equations: Sequence[Equation]) -> str:
    """The scope of the first equation under a scope that reads a value or an alias of it."""
    aliases = {value}
    for equation in equations:
        if not aliases.isdisjoint(equation.inputs):
            if equation.layer:
                return equation.layer
            if equation.name in ALIASES:
                aliases.update(equation.outputs)
    return ""


def around(layer: str) -> list[str]:
    """The paths of a layer and of all that are around it, the root's first."""
    names = layer.split("/") if layer else []
    return ["/".join(names[:depth]) for depth in range(len(names) + 1)]


def is_under(path: str, ancestors: Iterable[str]) -> bool:
    """Whether a path is one of these or below one, which may be given with a '/' at its end."""
    return any(f"{path}/".startswith(f"{each.rstrip('/')}/") for each in ancestors)
