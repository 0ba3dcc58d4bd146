"""Nets that are numbers alone: the widths of blocks that stand in stages."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn

from rice_jax.models.adjustable import Adjustable, Shape
from rice_jax.nets import SUPPLIED

_LINEN = ("parent", "name")


class Staged(Adjustable):
    """A net of the package: its fields are what a configuration has under config.model.

    Blocks are numbered: those that follow one that is left out move up, in number and in name.
    """

    least_blocks: ClassVar[int] = 1

    @nn.nowrap
    def by_stage(self) -> list[list[tuple[str, Any]]]:
        """Each block's path and its widths, a list for each stage."""
        raise NotImplementedError

    @nn.nowrap
    def of_stages(self, widths: Sequence[Sequence[Any]]) -> Self:
        """The net with blocks of such widths, a sequence for each stage."""
        raise NotImplementedError

    @nn.nowrap
    def with_widths(self, widths: Mapping[str, int]) -> Self:
        """The net with so many filters in each layer, by its path."""
        raise NotImplementedError

    @nn.nowrap
    def settings(self) -> dict[str, Any]:
        """All fields that a configuration may change."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name not in (*_LINEN, *SUPPLIED)}

    @nn.nowrap
    def blocks(self, shape: Shape | None = None) -> list[str]:
        """Paths of the blocks in order, whatever the images' shape."""
        return [path for stage in self.by_stage() for path, _ in stage]

    @nn.nowrap
    def without(self, paths: Collection[str]) -> tuple[Self, dict[str, str]]:
        """As `Adjustable` has it; at least one block has to stay."""
        kept = [[block for block in stage if block[0] not in paths] for stage in self.by_stage()]
        while not kept[-1]:  # an empty last stage would pool for nothing
            kept.pop()
        smaller = self.of_stages([[widths for _, widths in stage] for stage in kept])
        old = [path for stage in kept for path, _ in stage]
        return smaller, dict(zip(old, smaller.blocks(), strict=True))
