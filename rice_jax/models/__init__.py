"""The study's nets as Linen modules, and the weights they can start from."""

from rice_jax.models.registry import NETS, Net, build, get

__all__ = ["NETS", "Net", "build", "get"]
