"""What a net knows of its own layers, so that lighter ones can be made of it."""

from collections.abc import Callable, Collection
from typing import Any, ClassVar, Self

import flax.linen as nn

Shape = tuple[int, int, int, int]
"""Of one image, (1, H, W, C)."""


class Adjustable(nn.Module):
    """A net that other layers, or other widths, can be asked of: a new module each time."""

    with_widths: ClassVar[Callable[..., Any] | None] = None
    """From the filters of each layer by its path to the net that has so many; None where the
    net's own code runs with narrower layers (`graph.narrowed`)."""
    least_blocks: ClassVar[int] = 0
    """How many of its blocks have to stay."""

    @nn.nowrap
    def settings(self) -> dict[str, Any]:
        """The fields of config.model that tell this net from others of its class."""
        raise NotImplementedError

    @nn.nowrap
    def optional(self) -> list[str]:
        """Paths of the layers that the net leaves out where they have no filter."""
        return []

    @nn.nowrap
    def blocks(self, shape: Shape) -> list[str]:
        """Paths of what `without` can leave out of a net of images of `shape`, in order."""
        raise NotImplementedError

    @nn.nowrap
    def without(self, paths: Collection[str]) -> tuple[Self, dict[str, str]]:
        """The net without some of its blocks, and for each that moves its path there."""
        raise NotImplementedError

    @nn.nowrap
    def with_stem_stride(self, factor: int, shape: Shape) -> tuple[Self, int, int] | str:
        """The net whose first convolution takes steps `factor` times as long.

        Returns:
            The net, and the stride before and after; or in a line why there is none.
        """
        del factor, shape
        return "the stride of its first convolution is no field of the net's"

    @nn.nowrap
    def on_smaller_maps(self, params: Any, smaller: "Adjustable", shape: Shape) -> Any:
        """Its parameters for a net of the same layers whose maps are smaller.

        Those of convolutions and of what reads an average are the same.
        """
        del smaller, shape
        return params
