"""feature_maps.json: what a net makes of a few images, small enough for a page to hold it.

Maps are reduced to few pixels and 16 levels; all of a layer's for one image are one PNG, a sprite.
"""

import base64
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from rice_jax.records import FeatureMapsFile, KernelShown, LayerShown, PictureShown

MOST_MAPS = 64
"""Of a layer; of more the strongest are kept."""
MOST_BYTES = 5 << 20
"""Of all sprites as text, whatever the net."""
_SIDES = (56, 48, 40, 32, 28, 24, 20, 16, 14, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)
_LEVELS = 16
_PICTURE = 112  # pixels of an image
_INPUTS = (16, 8, 4, 2, 1)
_KERNEL_BYTES = 1 << 20
"""Of all kernels as text, for as long as each filter keeps one input."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """A layer's maps of one image, reduced at once so that many images fit into memory."""

    values: np.ndarray
    """(h, w, filters) float32, `_SIDES[0]` across at most."""
    low: np.ndarray
    """(filters,): the least value of each whole map."""
    high: np.ndarray
    size: tuple[int, int]
    """Height and width of a whole map."""

    @classmethod
    def of(cls, maps: Any) -> "Seen":
        """Those of maps (H, W, filters)."""
        maps = np.asarray(maps, np.float32)
        ends = maps.min(axis=(0, 1)), maps.max(axis=(0, 1))
        return cls(reduced(maps, _SIDES[0]), *ends, maps.shape[:2])


@dataclasses.dataclass(frozen=True)
class Specimen:
    """An image, and what the net makes of it."""

    pixels: np.ndarray
    """(H, W, 3) floats in [0, 1], as the net was given them."""
    maps: Mapping[str, Seen]
    """By the layer's path."""
    probabilities: Sequence[float]
    label: str = ""
    """Its class; '' for one that is not known."""
    kind: str = "clean"
    """Or 'augmented'."""


def gallery(
    specimens: Sequence[Specimen],
    classes: Sequence[str],
    weights: Mapping[str, np.ndarray],
    most_bytes: int = MOST_BYTES,
) -> FeatureMapsFile:
    """What feature_maps.json holds of these images.

    Args:
        specimens: with maps of the same layers.
        classes: in the order of the probabilities.
        weights: arrays by path, 'conv1/kernel' (height, width, inputs, filters).
        most_bytes: of the sprites.
    """
    paths = list(specimens[0].maps)
    stacks = {path: [one.maps[path] for one in specimens] for path in paths}
    shown = {path: strongest(stacks[path]) for path in paths}
    side = _side(
        [(stacks[path][0].size, len(stacks[path]) * len(shown[path])) for path in paths],
        most_bytes - 300 * len(paths) * len(specimens),
    )
    inputs = _inputs([weights.get(f"{path}/kernel") for path in paths], list(shown.values()))
    kernels = {path: kernel(weights.get(f"{path}/kernel"), shown[path], inputs) for path in paths}
    return FeatureMapsFile(
        classes=list(classes),
        images=[_told(specimen, classes) for specimen in specimens],
        layers=[_layer(path, stacks[path], shown[path], side, kernels[path]) for path in paths],
    )


def strongest(stack: Sequence[Seen], most: int = MOST_MAPS) -> list[int]:
    """Filters to show: all, or those with the largest absolute values, in their order."""
    filters = len(stack[0].low)
    if filters <= most:
        return list(range(filters))
    peaks = np.mean([np.nan_to_num(np.maximum(-one.low, one.high)) for one in stack], axis=0)
    return sorted(np.argsort(-peaks, kind="stable")[:most].tolist())


def reduced(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (H, W, C) at most `side` across: the strongest value of each block is kept.

    A single pixel shows then as it would not in a mean.
    """
    block = max(1, math.ceil(max(maps.shape[:2]) / side))
    if block == 1:
        return maps
    height, width = (math.ceil(size / block) for size in maps.shape[:2])
    missing = height * block - maps.shape[0], width * block - maps.shape[1]
    padded = np.pad(maps, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    blocks = padded.reshape(height, block, width, block, -1)
    high, low = blocks.max(axis=(1, 3)), blocks.min(axis=(1, 3))
    return np.where(np.abs(low) > np.abs(high), low, high)


def _side(layers: Sequence[tuple[tuple[int, int], int]], most_bytes: int) -> int:
    """The largest side of a map with which all sprites have no more bytes than allowed.

    Args:
        layers: size of the maps, and how many there are of it.
        most_bytes: as text, without what a PNG has beside its pixels.
    """
    for side in _SIDES:
        total = 0.0
        for size, number in layers:
            block = max(1, math.ceil(max(size) / side))
            height, width = (math.ceil(length / block) for length in size)
            # Half a byte a pixel, rows of whole bytes, and what a PNG may grow by.
            total += 4 / 3 * 1.01 * number * height * (width / 2 + 1)
        if total <= most_bytes:
            break
    return side


def _layer(
    path: str, stack: Sequence[Seen], shown: Sequence[int], side: int, kernel: KernelShown | None
) -> LayerShown:
    rectified = not any((one.low < 0).any() for one in stack)
    columns = math.ceil(math.sqrt(len(shown)))
    height, width = reduced(stack[0].values[..., :1], side).shape[:2]
    return LayerShown(
        path=path,
        filters=len(stack[0].low),
        size=stack[0].size,
        drawn=(height, width),
        columns=columns,
        rectified=rectified,
        shown=list(shown),
        sprites=[_text(sprite(one, shown, side, columns, rectified)) for one in stack],
        ranges=[_ranges(one.low[shown], one.high[shown]) for one in stack],
        kernel=kernel,
    )


def sprite(seen: Seen, shown: Sequence[int], side: int, columns: int, rectified: bool) -> bytes:
    """The maps of the filters `shown` side by side as a PNG of 16 colours.

    Each is on a scale of its own, of rectified maps that of the square root, as in the figures.
    """
    maps = np.nan_to_num(reduced(seen.values[..., shown], side))
    height, width, filters = maps.shape
    low, high = np.nan_to_num(seen.low[shown]), np.nan_to_num(seen.high[shown])
    share = np.clip((maps - low) / np.where(high > low, high - low, 1), 0, 1)
    level = np.where(high > low, share ** (0.5 if rectified else 1), np.where(low, 0.5, 0))
    rows = math.ceil(filters / columns)
    grid = np.zeros((rows * columns, height, width), np.uint8)
    grid[:filters] = np.rint((_LEVELS - 1) * level).astype(np.uint8).transpose(2, 0, 1)
    mosaic = grid.reshape(rows, columns, height, width).transpose(0, 2, 1, 3)
    picture = Image.fromarray(mosaic.reshape(rows * height, columns * width))
    picture.putpalette(_palette())
    file = io.BytesIO()
    picture.save(file, "PNG", bits=4)
    return file.getvalue()


def _palette() -> bytes:
    colors = matplotlib.colormaps["inferno"](np.linspace(0, 1, _LEVELS))[:, :3]
    return np.rint(255 * colors).astype(np.uint8).tobytes()


def _ranges(low: np.ndarray, high: np.ndarray) -> list[list[float] | None]:
    """The ends of each map's scale, in three digits; None where a map is not finite."""
    return [
        [float(f"{a:.3g}"), float(f"{b:.3g}")] if np.isfinite([a, b]).all() else None
        for a, b in zip(low, high, strict=True)
    ]


def _inputs(kernels: Sequence[np.ndarray | None], shown: Sequence[Sequence[int]]) -> int:
    """Of how many inputs a filter's kernel is kept, so that all together are small."""
    for inputs in _INPUTS:
        total = sum(
            4 / 3 * len(chosen) * min(inputs, array.shape[2]) * math.prod(array.shape[:2])
            for array, chosen in zip(kernels, shown, strict=True)
            if array is not None and array.ndim == 4
        )
        if total <= _KERNEL_BYTES:
            break
    return inputs


def kernel(
    weights: np.ndarray | None, shown: Sequence[int], inputs: int = _INPUTS[0]
) -> KernelShown | None:
    """The kernels of a layer; None for what is no kernel of a convolution over two axes."""
    if weights is None or weights.ndim != 4 or max(shown, default=0) >= weights.shape[3]:
        return None
    chosen = np.asarray(weights, float)[..., list(shown)].transpose(3, 2, 0, 1)
    kept = min(inputs, chosen.shape[1])
    order = np.argsort(-np.abs(chosen).sum(axis=(2, 3)), axis=1, kind="stable")[:, :kept]
    order = np.sort(order, axis=1)
    chosen = np.take_along_axis(chosen, order[:, :, None, None], axis=1)
    scale = np.abs(chosen).max(axis=(1, 2, 3))
    levels = np.rint(127 * chosen / np.where(scale > 0, scale, 1)[:, None, None, None])
    return KernelShown(
        size=(weights.shape[0], weights.shape[1]),
        inputs=weights.shape[2],
        of=order.tolist(),
        scale=[float(f"{value:.3g}") for value in scale],
        values=_text(np.nan_to_num(levels).astype(np.int8).tobytes()),
    )


def _told(specimen: Specimen, classes: Sequence[str]) -> PictureShown:
    probabilities = np.asarray(specimen.probabilities)
    known = probabilities.size == len(classes) > 0 and bool(np.isfinite(probabilities).all())
    return PictureShown(
        label=specimen.label,
        kind=specimen.kind,
        predicted=classes[int(np.argmax(probabilities))] if known else "",
        probabilities=[float(f"{value:.6g}") for value in probabilities] if known else [],
        picture=_text(_jpeg(specimen.pixels)),
    )


def _jpeg(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8))
    picture.thumbnail((_PICTURE, _PICTURE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
