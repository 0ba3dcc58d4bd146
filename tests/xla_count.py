"""XLA's own count of FLOPs, asked without the profiler."""

import jax


def flops_by_xla(function, *arguments):
    """Of what is lowered for a CPU: JAX's clients of other devices count nothing of that."""
    with jax.default_device(jax.devices("cpu")[0]):
        return jax.jit(function).lower(*arguments).cost_analysis()["flops"]
