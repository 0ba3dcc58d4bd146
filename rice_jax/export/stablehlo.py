"""A net as StableHLO, which any JAX runs: `jax.export.deserialize(content).call(images)`."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax import export

from rice_jax.errors import UserError, reason
from rice_jax.export import any_size
from rice_jax.export.lacking import lacking
from rice_jax.export.subject import subject
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.call import Output
from rice_jax.graph.fronts import takes_variables

PLATFORMS = ("cpu", "cuda", "tpu")


@takes_variables
def to_stablehlo(
    module: Any,
    variables: Any,
    input_shape: InputShape | int,
    *,
    output: Output = None,
    **kwargs: Any,
) -> bytes:
    """Serialise a net with its weights, for a batch of any size and every platform.

    Args:
        module: a Linen module, an NNX module, or a function, as `profile.count` takes them; what
            `prune` made too. It is called with images float32 (N, H, W, C), and gives logits
            (N, classes), alone or among other outputs. A Linen module with a field `dtype` computes
            in float32, any other as it does.
        variables: of a Linen module what init returned, or its 'params' alone; of a function its
            params. An NNX module is followed by none.
        input_shape: of one image, (H, W, C); a whole number n is (n, n, 3).
        output: which of several outputs are the logits: a key, an attribute, an index, or a
            function of what the module returns.
        **kwargs: what else the module's call needs. Of `train`, `training`, `is_training`,
            `deterministic` and `use_running_average` it is given those that it takes, such that
            it does not learn.

    Returns:
        What `jax.export.deserialize` takes: a function of images float32 (N, H, W, C) that returns
        the logits.

    Raises:
        UserError: the net does not run on such images, or not with these variables; the shape is
            that of a batch, (1, H, W, C); the net asks how many images there are, or StableHLO
            lacks an operation of it, which is named with its layer; several outputs and none is
            named.
    """
    net = subject(module, variables, input_shape, output, **kwargs)
    images = any_size.images_of(net)
    try:
        with _without_places():
            written = export.export(jax.jit(net.logits), platforms=PLATFORMS)(images)
            return bytes(written.serialize())
    except Exception as error:  # each operation that cannot be written raises its own kinds
        found = lacking(net.alone, _converts)
        if found is None:
            raise UserError(f"the net has no StableHLO form: {reason(error)}") from error
        raise UserError(
            f"{found.layer or 'the net'}: {found.name} has no StableHLO form"
        ) from error


def _converts(function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct]) -> bool:
    """Whether an operation alone can be written."""
    try:
        export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize()
    except Exception:
        return False
    return True


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Leave the names of layers in the file, but not where on this machine they were called."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
