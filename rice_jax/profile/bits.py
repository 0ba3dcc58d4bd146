"""What a net costs where its numbers have fewer bits than 32.

The convention of bit operations: multiply-adds, times the bits of a weight, times the bits of an
activation, with additions left out. Source: van Baalen et al. 2020, 'Bayesian Bits' (NeurIPS,
arXiv:2005.07093), who call them BOPs. It puts nets of any precision on one axis: a multiply-add of
float32 counts 1,024, one of int8 64.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class Precision:
    """Bits of a number."""

    weights: int
    activations: int


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {"float32": Precision(32, 32), "int8": Precision(8, 8)}
)
"""Those that a net is exported in."""


def bit_operations(formula: int, precision: Precision) -> int:
    """Bit operations of so many FLOPs in the `formula` convention, two to a multiply-add."""
    return formula // 2 * precision.weights * precision.activations
