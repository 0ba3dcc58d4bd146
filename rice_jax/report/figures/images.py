"""Figures made of pictures: images by class, and grids of feature maps."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rice_jax.report import style

_PER_CLASS = 6
# Up to so many maps: columns, and inches from one to the next.
_GRIDS = ((12, 4, 1.45), (36, 6, 0.96), (64, 8, 0.96), (144, 12, 0.96), (513, 16, 0.96))
_MOST_MAPS = 512
_MOST_PIXELS = 112  # a larger map is reduced before it is drawn
_CAPTION = 0.2  # inches above a map
_GAP = 0.06
_FLATTEST = 0.25  # a flatter map is stretched to this height over its width


@style.styled
def classes(
    images: Mapping[str, Any], *, title: str = "Images by class", synthetic: bool = False
) -> Figure:
    """A row of images for each class, at most six of each.

    Args:
        images: by class name, (N, H, W, 3) uint8 or floats in [0, 1]; N may differ.
        title: the figure's title.
        synthetic: whether the data is.
    """
    columns = max(1, *(min(len(row), _PER_CLASS) for row in images.values()))
    side = (style.WIDTH - 0.2) / max(columns, 4)
    row_height = side + 0.26
    figure = style.canvas(style.WIDTH, row_height * len(images), title, synthetic=synthetic)
    grid = figure.subplots(len(images), 1, squeeze=False)[:, 0]
    names = style.labels(list(images), style.WIDTH - 0.4, style.FONT_SIZE)
    for axes, name, row in zip(grid, names, images.values(), strict=True):
        for column, image in enumerate(row[:_PER_CLASS]):
            axes.imshow(image, extent=(column, column + 0.97, 0, 0.97))
        axes.set(xlim=(0, max(columns, 4)), ylim=(0, 0.97), aspect="equal", anchor="W")
        axes.set_axis_off()
        axes.set_title(name, size=style.FONT_SIZE, pad=3)
    return figure


def feature_maps_file(path: str) -> str:
    """Name, in a run's folder, of the picture of a layer's maps: feature_maps/LAYER.png.

    '/' and whatever a file name or a link had better not hold become '_'; '#', which counts the
    kernels of a layer, becomes '-'; the root module is 'root'.
    """
    name = re.sub(r"[^\w.@-]", "_", path.replace("#", "-")) or "root"
    return f"feature_maps/{name}.png"


@style.styled
def feature_maps(
    path: str,
    maps: Any,
    dead: Collection[int] = (),
    title: str = "Feature maps",
    *,
    image: Any = None,
    synthetic: bool = False,
) -> Figure:
    """A grid of a layer's maps for one image, numbered, dead filters crossed out.

    Each map has a colour scale of its own, so that a weak map shows its pattern too; the two
    ends of the scale stand above the map. Of more than 512 maps the strongest are shown.

    Args:
        path: the layer's path.
        maps: (H, W, C) floats.
        dead: channels that the census found dead.
        title: the figure's title; path, size and scale are added.
        image: (H, W, 3) image that the maps are of, shown first where it is given.
        synthetic: whether the data is.
    """
    maps = np.asarray(maps, float)
    if maps.ndim != 3:
        raise ValueError(f"maps of {path!r} must be (H, W, C), not of shape {maps.shape}")
    height, width, channels = maps.shape
    shown = _strongest(maps)
    cells = len(shown) + (image is not None)
    columns, side = next((columns, side) for most, columns, side in _GRIDS if cells <= most)
    step = side * min(1.0, max(_FLATTEST, height / width)) + _CAPTION
    across, down = columns * side, step * math.ceil(cells / columns)
    subtitle = f"{path or 'output'}: {channels} map{'s' * (channels != 1)} of {height} x {width}"
    if len(shown) < channels:
        subtitle += f", the strongest {len(shown)} shown"
    key = style.wrap(_key(dead, max(height, width) > _MOST_PIXELS), across - 0.1, style.SMALL)
    figure = style.canvas(
        across + 0.15, down + 0.16 * len(key) + 0.2, title, subtitle, synthetic=synthetic
    )
    axes = figure.subplots()
    axes.set(aspect="equal", anchor="NW")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    axes.set_xlabel("\n".join(key), size=style.SMALL, loc="left")
    places = [_Cell(i % columns * side, i // columns * step, side) for i in range(cells)]
    if image is not None:
        place = places.pop(0)
        _write_caption(axes, place, "input", "")
        axes.imshow(image, extent=place.extent(np.shape(image)))
    for place, channel in zip(places, shown, strict=True):
        _draw_map(axes, place, channel, maps[:, :, channel], dead=channel in dead)
    axes.set(xlim=(0, across), ylim=(down, 0))
    return figure


class _Cell(NamedTuple):
    """A cell of the grid, in inches: the caption on top, the picture below it."""

    left: float
    top: float
    side: float

    def extent(self, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of a picture of `shape`, its proportions kept."""
        height, width = shape[:2]
        room = self.side - _GAP
        right = self.left + room * min(1.0, width / height)
        top = self.top + _CAPTION
        return self.left, right, top + room * min(1.0, max(_FLATTEST, height / width)), top


def _key(dead: Collection[int], reduced: bool) -> str:
    sentences = ["Above each map: its channel, and the values that are darkest and brightest."]
    if dead:
        sentences.append("Crossed out: dead filters.")
    if reduced:
        sentences.append("Of neighbouring pixels the strongest is drawn.")
    return " ".join(sentences)


def _strongest(maps: np.ndarray) -> list[int]:
    """Channels to show: all, or those with the largest absolute values, in their order."""
    channels = maps.shape[2]
    if channels <= _MOST_MAPS:
        return list(range(channels))
    peaks = np.nan_to_num(np.abs(maps).max(axis=(0, 1)))
    return sorted(np.argsort(-peaks, kind="stable")[:_MOST_MAPS].tolist())


def _draw_map(axes: Axes, cell: _Cell, channel: int, values: np.ndarray, *, dead: bool) -> None:
    extent = cell.extent(values.shape)
    finite = bool(np.isfinite(values).all())
    low, high = (float(values.min()), float(values.max())) if finite else (0.0, 0.0)
    blank = dead and low == high == 0.0
    if blank or not finite:
        axes.add_patch(
            Rectangle(
                (extent[0], extent[3]), extent[1] - extent[0], extent[2] - extent[3],
                facecolor=style.PALE, edgecolor=style.GREY, hatch="" if finite else "....",
            )
        )  # fmt: skip
    else:
        middle = 0.0 if low == 0.0 else low - 1.0  # a level map: black if 0, else half bright
        ends = (low, high) if low < high else (middle, middle + 2.0)
        axes.imshow(_reduced(values), extent=extent, cmap="inferno", vmin=ends[0], vmax=ends[1])
    if dead:
        for bottom, top in ((extent[2], extent[3]), (extent[3], extent[2])):
            axes.plot(extent[:2], (bottom, top), color=style.VERMILION, lw=1.4)
    _write_caption(axes, cell, str(channel), _range(low, high, dead=dead, finite=finite))


def _range(low: float, high: float, *, dead: bool, finite: bool) -> str:
    if not finite:
        return "not finite"
    if low == high:
        return "dead" if dead and low == 0.0 else f"all {_brief(low)}"
    return f"{_brief(low)} to {_brief(high)}"


def _brief(value: float) -> str:
    """Two significant digits in few letters: 1.2e-05 as '1.2e-5'."""
    text = f"{value:.2g}"
    mantissa, mark, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else text


def _write_caption(axes: Axes, cell: _Cell, name: str, text: str) -> None:
    """The name at the left of a cell and the text at its right, smaller where they would meet."""
    needed = style.width_of(name, 7.0, "bold") + style.width_of(text, 7.0) + 0.1
    size = min(7.0, 7.0 * (cell.side - _GAP) / needed)
    bottom = cell.top + _CAPTION - 0.03
    axes.text(cell.left, bottom, name, size=size, weight="bold", va="bottom")
    axes.text(cell.left + cell.side - _GAP, bottom, text, size=size, ha="right", va="bottom")


def _reduced(values: np.ndarray) -> np.ndarray:
    """A large map shrunk by taking the strongest of each block, so that a single pixel shows."""
    block = math.ceil(max(values.shape) / _MOST_PIXELS)
    if block == 1:
        return values
    height, width = (math.ceil(side / block) * block for side in values.shape)
    padding = ((0, height - values.shape[0]), (0, width - values.shape[1]))
    blocks = np.pad(values, padding, mode="edge").reshape(
        height // block, block, width // block, block
    )
    high, low = blocks.max(axis=(1, 3)), blocks.min(axis=(1, 3))
    return np.where(np.abs(low) > np.abs(high), low, high)
