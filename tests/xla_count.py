"""XLA's own count of FLOPs, asked without the profiler."""

import jax
import jax.numpy as jnp


def flops_by_xla(function, *arguments):
    """Of what is lowered for a CPU: JAX's clients of other devices count nothing of that."""
    with jax.default_device(jax.devices("cpu")[0]):
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def lowered(module, shape, dtype=jnp.float32):
    """Of a Linen module called with an array of that shape."""
    x = jax.ShapeDtypeStruct(shape, dtype)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)
    return flops_by_xla(module.apply, variables, x)
