"""What a process computed of a net lately, where the net's fields have hashes."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax.numpy as jnp

Args = ParamSpec("Args")
Result = TypeVar("Result")


def remembered(most: int) -> Callable[[Callable[Args, Result]], Callable[Args, Result]]:
    """Decorates what is computed of a module: its last `most` results are given again.

    An argument without a hash, as a module with arrays among its fields, is computed each time.
    JAX's default float type counts as an argument. The result given again is the same object.
    """

    def decorated(function: Callable[Args, Result]) -> Callable[Args, Result]:
        @functools.lru_cache(most)
        def known(default_float: Any, *args: Any, **kwargs: Any) -> Result:
            del default_float
            return function(*args, **kwargs)

        @functools.wraps(function)
        def asked(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            try:
                hash((*args, *kwargs.values()))
            except TypeError:
                return function(*args, **kwargs)
            remember: Callable[..., Result] = known  # typeshed would have hashes by type
            return remember(jnp.result_type(float), *args, **kwargs)

        return asked

    return decorated
