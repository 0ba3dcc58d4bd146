"""Which Linen class each kind of net is."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rice_jax.graph.fronts import is_nnx
from rice_jax.models.adjustable import Adjustable
from rice_jax.models.googlenet import GoogLeNet
from rice_jax.models.micro import Micro
from rice_jax.models.own import Own
from rice_jax.models.plain import PlainCNN
from rice_jax.nets import get

MODULES: Mapping[str, type[Adjustable]] = MappingProxyType(
    {"plain": PlainCNN, "googlenet": GoogLeNet, "micro": Micro}
)
"""By kind, a key of `nets.KINDS`."""


def build(name: str, **fields: Any) -> Adjustable:
    """The net called `name` as a Linen module, `fields` replacing the study's widths.

    Args:
        name: a key of `NETS`, or a net of the user's own that is known.
        **fields: of the net's class, as `nets.KINDS` tells them, and `dtype`; within their bounds,
            which are not looked at here.

    Raises:
        UserError: no net of that name.
    """
    net = get(name)
    if net.module is not None and is_nnx(net.module):
        from rice_jax.models.own_nnx import OwnNNX  # importing flax.nnx takes seconds

        return OwnNNX.of(net.module, net.output, **{**net.widths, **fields})
    if net.module is not None:
        return Own.of(net.module, net.output, **{**net.widths, **fields})
    return MODULES[net.kind](**{**net.widths, **fields})
