"""The modules of a net as they are called, and the marks that they leave in its computation."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from rice_jax.graph.equations import Value
from rice_jax.graph.inlining import INPUT, LAYER, OUTPUT

Calling = Callable[[str, type, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Calls a module: its path and class, what is to be called, and with what."""

CALLING: contextvars.ContextVar[Calling | None] = contextvars.ContextVar("calling", default=None)
"""How modules of NNX are called, where not as they are: they know no interception as Linen does."""


@contextlib.contextmanager
def calling(each: Calling) -> Iterator[None]:
    """While this lasts modules of NNX are called by `each`."""
    before = CALLING.set(each)
    try:
        yield
    finally:
        CALLING.reset(before)


@dataclasses.dataclass(eq=False)
class Layer:
    """A module of the tree, or a named scope of a function, as it was called."""

    path: str
    """Names joined by '/': 'inception3a/branch2/reduce'; '' for the root."""
    module: type
    """Its class; `scopes.Scope` for a named scope."""
    input: Value | None = None
    """What the last call was given first, where that is an array outside any loop or branch."""
    output: Value | None = None
    """What the last call returned, where that is a single array outside any loop or branch."""
    calls: int = 0
    methods: set[str] = dataclasses.field(default_factory=set)
    """What of it was called: '__call__', or others."""
    params: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Shapes of the layer's own parameters ('kernel', 'bias'), without its children's."""


def mark(
    layers: dict[str, Layer],
    path: str,
    module: type,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    method: str | None = None,
) -> Any:
    """Call a module's method under a scope named after its path, with names on what goes in and
    out, and note it in `layers`; `method` is its name, by default what `call` is named."""
    layer = layers.setdefault(path, Layer(path, module))
    layer.module = module  # of modules that share a scope the innermost
    layer.calls += 1
    named: str = getattr(getattr(call, "func", call), "__name__", "__call__")
    layer.methods.add(method or named)
    if args and _is_array(args[0]):
        args = (checkpoint_name(args[0], INPUT + path), *args[1:])
    with jax.named_scope(LAYER + path):
        output = call(*args, **kwargs)
    return checkpoint_name(output, OUTPUT + path) if _is_array(output) else output


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array)
