"""What bounds each layer on a device, its arithmetic or its memory, and the time that follows.

The roofline model (Williams, Waterman and Patterson 2009): a layer takes as long as the slower of
its arithmetic at the device's peak and its bytes at the memory's, and what it does at the other
hides behind that.
"""

import dataclasses
import math

from rice_jax.errors import UserError
from rice_jax.profile.rows import Row


@dataclasses.dataclass(frozen=True)
class Device:
    """A device's peaks, as its data sheet has them."""

    flops_per_second: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        for name, what in (("flops_per_second", "FLOP/s"), ("bytes_per_second", "bytes/s")):
            value = getattr(self, name)
            try:
                peak = float(value)  # Python's own, for JSON
            except (TypeError, ValueError):
                peak = math.nan
            if not peak > 0:
                raise UserError(
                    f"a device's {what} must be positive, not {value}: take its peak from its data "
                    "sheet"
                )
            object.__setattr__(self, name, peak)

    @property
    def ridge(self) -> float:
        """FLOPs a byte at which arithmetic and memory take equally long."""
        return self.flops_per_second / self.bytes_per_second

    def bound(self, row: Row) -> str | None:
        """'compute' or 'memory', whichever takes the row longer; None for a row that costs nothing.

        FLOPs are those of the `xla` convention, in which what a layer does beside its products
        counts too.
        """
        if not row.flops.xla and not row.traffic.total:
            return None
        arithmetic = row.flops.xla / self.flops_per_second
        return "compute" if arithmetic >= row.traffic.total / self.bytes_per_second else "memory"

    def seconds(self, row: Row) -> float:
        """The least time that the row takes."""
        arithmetic = row.flops.xla / self.flops_per_second
        return max(arithmetic, row.traffic.total / self.bytes_per_second)
