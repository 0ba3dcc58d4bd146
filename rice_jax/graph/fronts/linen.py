"""Linen modules: their random streams, their boxes, their layers marked by interception."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import errors

from rice_jax.errors import UserError
from rice_jax.graph.boxes import boxed_as, unboxed
from rice_jax.graph.fronts.protocol import PureNet
from rice_jax.graph.interception import intercepted
from rice_jax.graph.marks import Layer, calling, mark
from rice_jax.graph.remembered import remembered
from rice_jax.nets import told


@dataclasses.dataclass(frozen=True, eq=False)
class LinenNet(PureNet):
    """A Linen module, called by `module.apply`."""

    module: nn.Module
    boxed: Any = None
    """Variables in the boxes that `given` is to put them in again."""

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self.module).__name__

    def shapes(self, x: Any, rngs: Any = None, **kwargs: Any) -> Any:
        """Shapes of the variables that `module.init` would make, at no compute."""
        image = jax.ShapeDtypeStruct(tuple(x.shape), np.dtype(x.dtype))
        known = _shapes(self.module, image, tuple(any_stream(rngs)), tuple(kwargs.items()))
        return jax.tree.map(lambda leaf: leaf, known)  # dictionaries of the caller's own

    def apply(self, variables: Any, x: Any, **options: Any) -> Any:
        """`module.apply`; UserError for a random stream without a key, and for what only training
        does."""
        try:
            return self.module.apply(variables, x, **options)
        except errors.InvalidRngError as error:
            stream = str(error).partition('PRNG for "')[2].partition('"')[0]
            raise UserError(
                f"the net draws random numbers from the stream {stream!r}: give it a key, "
                f"rngs={{{stream!r}: jax.random.key(0)}}, or call it so that it draws none"
                f"{self._still}"
            ) from error
        except errors.ModifyScopeVariableError as error:
            _, variable, _, place, *_ = str(error).split('"')
            updated = f"{place}/{variable}".lstrip("/")
            raise UserError(
                f"{self.name} updates {updated} as it is called, as a norm does that learns: call "
                f"it so that it only reads that{self._still}"
            ) from error

    @property
    def _still(self) -> str:
        """What the module's call takes to be told that it does not learn: ', train=False'."""
        takes = inspect.signature(type(self.module).__call__).parameters
        return "".join(f", {name}={value}" for name, value in told(takes, train=False).items())

    def options(self, rngs: Any = None, *, any_key: bool = False, **kwargs: Any) -> dict[str, Any]:
        """`kwargs`, and keys by stream."""
        return {**kwargs, "rngs": any_stream(rngs) if any_key else streams(rngs)}

    def given(self, variables: Any) -> tuple[nn.Module, Any]:
        """The module and its variables, boxed as they were."""
        return self.module, variables if self.boxed is None else boxed_as(variables, self.boxed)

    def like(self, module: Any, variables: Any) -> "LinenNet":
        """The net of another Linen module."""
        del variables
        return dataclasses.replace(self, module=module)

    @contextlib.contextmanager
    def marked(self, layers: dict[str, Layer]) -> Iterator[None]:
        """Marks on each method of each module, of an NNX one within it too."""

        def intercept(
            call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
        ) -> Any:
            if context.method_name == "setup":
                return call(*args, **kwargs)
            path = "/".join(context.module.path)
            name = context.method_name
            return mark(layers, path, type(context.module), call, args, kwargs, name)

        with intercepted(intercept), calling(functools.partial(mark, layers)):
            yield


@remembered(32)  # half of a trace's time, and a pruning traces a net many times
def _shapes(
    module: nn.Module,
    image: jax.ShapeDtypeStruct,
    streams: tuple[str, ...],
    kwargs: tuple[tuple[str, Any], ...],
) -> Any:
    """Shapes of the variables; what the streams' keys are does not matter to them."""
    keys = dict.fromkeys(streams, jax.random.key(0))
    return unboxed(jax.eval_shape(lambda x: module.init(keys, x, **dict(kwargs)), image))


def streams(rngs: Any) -> dict[str, Any]:
    """Keys by stream; a key alone is that of 'params', as Flax has it."""
    if rngs is None:
        return {}
    return dict(rngs) if isinstance(rngs, Mapping) else {"params": rngs}


def any_stream(rngs: Any) -> dict[str, Any]:
    """The keys, and a fixed one for every other stream: Flax draws those from 'params'."""
    return {"params": jax.random.key(0)} | streams(rngs)
