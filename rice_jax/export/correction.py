"""What rounding adds to the sums of a layer on the whole, taken off its bias: of a net in int8.

Most of an image is background, to whose pixels a layer gives one value each. That is rounded alike
in all of them, up or down by as much as half a step, and the layers after it add that up. A bias
has a finer step than any map, and can take it off again. Source: Nagel et al. 2019
(arXiv:1906.04721), section 4.2, bias correction; here of sums before any function of them, from the
means of what is read.
"""

import collections
import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class BiasedLayer:
    """A layer whose sums a bias can shift."""

    name: str
    """The same in the file in int8 as in that in float32."""
    source: str
    """Of the tensor that it reads, the same in both files."""
    weights: np.ndarray
    """Its kernel (G, O, I), of G groups of channels, summed over the places of its window."""
    bias: np.ndarray | None
    """Integers (G * O,), to be changed in place; None of floats, and where others have it too."""
    step: np.ndarray
    """Of the bias in integers: for each output, or one for all."""

    def sums(self, means: Mapping[str, np.ndarray]) -> np.ndarray:
        """The means (G * O,) of its sums but for the bias, those of its source (G * I,) given."""
        read = means[self.source].reshape(len(self.weights), -1)
        return np.einsum("goi,gi->go", self.weights, read).ravel()


class Correctable(Protocol):
    """An exported file, opened to be corrected."""

    def waves(self) -> list[list[BiasedLayer]]:
        """Its layers with biases, as `in_waves` has them."""
        ...

    def means(self, sources: Iterable[str], images: np.ndarray) -> dict[str, np.ndarray]:
        """Of each tensor the mean of each channel, over its places and over images (N, H, W, 3)."""
        ...

    def content(self) -> bytes:
        """The file, its biases as they are now."""
        ...


def corrected(net: Correctable, exact: Correctable, images: np.ndarray) -> bytes:
    """The net in int8, with biases less what the sums of their layers are wrong by on the whole.

    Layers are corrected in their order, each for its own kernel's rounding and for what those
    before it still leave.

    Args:
        net: the file in int8.
        exact: the one in float32 that it was made of.
        images: float32 (N, H, W, 3) in [0, 1], whose means are taken.
    """
    whole = {layer.name: layer for wave in exact.waves() for layer in wave}
    if not whole:
        return net.content()
    right = exact.means({layer.source for layer in whole.values()}, images)
    for wave in net.waves():
        found = net.means({layer.source for layer in wave}, images)
        for layer in wave:
            if layer.bias is not None:
                added = layer.sums(found) - whole[layer.name].sums(right)
                layer.bias[:] -= np.rint(added / layer.step).astype(np.int32)
    return net.content()


def in_waves(
    operations: Iterable[tuple[Sequence[Hashable], Sequence[Hashable], BiasedLayer | None]],
) -> list[list[BiasedLayer]]:
    """Layers in their order; those of a wave do not depend on each other.

    Args:
        operations: of each, in their order, what tensors it reads, what it gives, and itself as a
            layer, if it is one.
    """
    waves = collections.defaultdict[int, list[BiasedLayer]](list)
    depth = dict[Hashable, int]()
    for inputs, outputs, layer in operations:
        deepest = max((depth.get(each, 0) for each in inputs), default=0)
        if layer is not None:
            waves[deepest].append(layer)
            deepest += 1
        depth.update(dict.fromkeys(outputs, deepest))
    return [waves[number] for number in sorted(waves)]
