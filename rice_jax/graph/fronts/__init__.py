"""A front for each kind of net: a Linen module, an NNX module, a function with named scopes."""

from rice_jax.graph.fronts.opening import front, is_nnx, opened, takes_net, takes_variables
from rice_jax.graph.fronts.protocol import PureNet

__all__ = ["PureNet", "front", "is_nnx", "opened", "takes_net", "takes_variables"]
