"""What is done at each call of a method in a Linen net."""

import contextlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn

Interceptor = Callable[[Any, Any, Any, nn.module.InterceptorContext], Any]
"""Calls a method: the method, what it is called with, and whose it is."""


def intercepted(each: Interceptor) -> contextlib.AbstractContextManager[None]:
    """While this lasts methods of Linen modules are called by `each`.

    Not those by which Flax checks the setup of what it lifts (`nn.remat`, `nn.WeightNorm`): they
    are of a copy in a scope of its own, whose path would be the outermost module's.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        scope = context.module.scope
        if scope is not None and isinstance(scope.root, nn.module.TestScope):
            return call(*args, **kwargs)
        return each(call, args, kwargs, context)

    return nn.intercept_methods(intercept)
