"""The study's nets and two lighter ones as Linen modules, and the weights they can start from."""

from rice_jax.models.adjustable import Adjustable
from rice_jax.models.registry import MODULES, build
from rice_jax.nets import NETS, Net, get

__all__ = ["MODULES", "NETS", "Adjustable", "Net", "build", "get"]
