"""A front for each kind of net: a Linen module, an NNX module, a function with named scopes."""

from rice_jax.graph.fronts.net import Net
from rice_jax.graph.fronts.opening import front, is_nnx, opened, takes_net, takes_variables

__all__ = ["Net", "front", "is_nnx", "opened", "takes_net", "takes_variables"]
