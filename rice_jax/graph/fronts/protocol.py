"""What the tools ask of a net, whatever it is written in."""

import abc
import contextlib
from typing import Any

from rice_jax.graph.inlining import marked_layer
from rice_jax.graph.marks import Layer


class PureNet(abc.ABC):
    """A net as a pure function of its variables.

    Variables are nested dictionaries of arrays, the collection first ('params', 'batch_stats'),
    then the path of the layer, then the variable's own name.
    """

    scoped = False
    """Whether its layers are named scopes, found in the trace, and no modules."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @abc.abstractmethod
    def shapes(self, x: Any, rngs: Any = None, **kwargs: Any) -> Any:
        """Shapes of its variables for an input such as `x` (an array or its shape and dtype)."""

    @abc.abstractmethod
    def apply(self, variables: Any, x: Any, **options: Any) -> Any:
        """What the net returns; `options` as the method of that name gives them."""

    @abc.abstractmethod
    def given(self, variables: Any) -> tuple[Any, Any]:
        """Net and variables as their user has them; None for those of a net that holds its own."""

    @abc.abstractmethod
    def like(self, module: Any, variables: Any) -> "PureNet":
        """The net of another module of the same kind, with `variables` as `apply` takes them."""

    def options(self, *, any_key: bool = False, **kwargs: Any) -> dict[str, Any]:
        """What `apply` takes beside variables and input.

        Args:
            any_key: draw from a fixed key where none was given.
            **kwargs: what else the call takes, `rngs` too, as it takes them: None where that is
                what it is to get.
        """
        del any_key
        return kwargs

    def marked(self, layers: dict[str, Layer]) -> contextlib.AbstractContextManager[None]:
        """While this lasts `apply` leaves marks in the jaxpr, and notes its modules in `layers`."""
        del layers
        return contextlib.nullcontext()

    def layer_of(self, eqn: Any, outer: str) -> str:
        """Path of the layer that an equation of a jaxpr is of; `outer` is that of what calls it."""
        return marked_layer(eqn, outer)
