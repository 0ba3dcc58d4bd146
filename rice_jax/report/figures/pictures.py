"""Figures made of pictures: images by class, and grids of feature maps."""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw

from rice_jax.report import numbers, style
from rice_jax.report.fates import NEAR
from rice_jax.report.gallery import reduced

_PER_CLASS = 6
_ONE_BELOW = 12  # classes up to which each has the whole width
_OF_MANY = 3  # images of each of more classes
_FEWEST_COLUMNS = 4  # so that a single image does not fill the page

# Up to so many maps: columns at most, and pixels that a map should have across.
_GRIDS = ((12, 4, 224), (36, 6, 128), (64, 8, 128), (144, 12, 128), (513, 16, 128))
_NARROWER = 2 / 3  # of so many columns, so that the rows fill
_MOST_MAPS = 512
_NARROWEST = 128  # pixels of a cell, for its caption
_CAPTION = 32  # pixels above a map
_GAP = 12  # pixels between cells
_LETTERS = 15  # pixels that a caption's are high
_FEW = 6  # letters of a number
_BETWEEN = 10  # pixels between what stands left and right above a map

_Written = tuple[str, tuple[float, float, float, float]]
"""A text, and its left, top, right and bottom in pixels of the picture that it stands in."""


@style.styled
def classes(
    images: Mapping[str, Any],
    order: Sequence[str] = (),
    *,
    title: str = "Images by class",
    synthetic: bool = False,
) -> Figure:
    """A row of images for each class, at most six of each; of many classes two beside each other.

    Args:
        images: by class name, (N, H, W, 3) uint8 or floats in [0, 1]; N may differ.
        order: all classes, by which one is called that the fonts cannot write; those of `images`.
        title: the figure's title.
        synthetic: whether the data is.
    """
    beside = 1 if len(images) <= _ONE_BELOW else 2
    most = _PER_CLASS if beside == 1 else _OF_MANY
    longest = max((len(row) for row in images.values()), default=0)
    columns = min(most, max(longest, min(_FEWEST_COLUMNS, most)))
    margin, label, gap = 0.12, 0.25, 0.08  # inches
    between = 0.2 if beside == 2 else 0.0
    width = (style.WIDTH - 2 * margin + gap + between) / beside
    side = (width - between) / columns
    step = label + side
    height = step * math.ceil(len(images) / beside)
    figure = style.canvas(style.WIDTH, height, title, synthetic=synthetic)
    axes = _full_axes(figure, style.WIDTH, height)
    known = list(order or images)
    names = dict(
        zip(known, style.labels(known, width - between - gap, style.FONT_SIZE), strict=True)
    )
    for index, (name, row) in enumerate(images.items()):
        start = margin + index % beside * width
        top = index // beside * step + label
        axes.text(start, top - 0.05, names[name], va="bottom")
        for column, image in enumerate(row[:most]):
            left = start + column * side
            extent = (left, left + side - gap, top + side - gap, top)
            axes.imshow(image, extent=extent, aspect="auto")
    axes.set(xlim=(0, style.WIDTH), ylim=(height, 0))
    return figure


@style.styled
def saliency(
    image: Any,
    places: Any,
    said: Sequence[tuple[str, float]],
    title: str,
    *,
    synthetic: bool = False,
) -> Figure:
    """An image, and beside it what in it spoke for the class, bright where most did.

    Args:
        image: (H, W, 3) uint8 or floats in [0, 1].
        places: (h, w) how much each place spoke for the class, at least 0, as Grad-CAM gives it.
        said: classes with their probabilities, the likeliest first.
        title: the figure's title.
        synthetic: whether the data is.
    """
    rows = [
        f"{style.fit(style.drawable(name), 3.6)}  {numbers.percent(share, 1)}"
        for name, share in said[:5]
    ]
    margin, gap = 0.12, 0.1  # inches
    side = (style.WIDTH - 2 * margin - gap) / 2
    told = rows if np.any(places) else [*rows, "Nothing in the last maps speaks for it."]
    below = 0.22 * len(told) + 0.25
    subtitle = f"right: what speaks for {said[0][0]} (Grad-CAM), the brighter the more"
    figure = style.canvas(style.WIDTH, side + below, title, subtitle, synthetic=synthetic)
    axes = _full_axes(figure, style.WIDTH, side + below)
    places = np.asarray(places, float)
    grey = np.asarray(image, float).mean(axis=-1)
    bright = 1.6 * float(np.max(grey)) or 1.0  # a grain's white leaves room for colours
    left, right = ((start, start + side, side, 0) for start in (margin, margin + side + gap))
    axes.imshow(image, extent=left, aspect="auto")
    axes.imshow(grey, extent=right, aspect="auto", cmap="gray", vmin=0, vmax=bright)
    strength = places / (places.max() or 1.0)
    axes.imshow(
        strength, extent=right, aspect="auto", cmap="inferno", vmin=0, vmax=1,
        interpolation="bilinear", alpha=0.7,
    )  # fmt: skip
    axes.set(xlim=(0, style.WIDTH), ylim=(side + below, 0))
    axes.text(margin, side + 0.1, "\n".join(told), va="top", linespacing=1.4)
    return figure


@style.styled
def feature_maps(
    path: str,
    maps: Any,
    dead: Collection[int] = (),
    title: str = "Feature maps",
    *,
    nearly: Collection[int] = (),
    image: Any = None,
    synthetic: bool = False,
) -> Figure:
    """A grid of a layer's maps for one image, numbered; dead filters are crossed out.

    Each map has a colour scale of its own, so that a weak map shows its pattern too; the two
    ends of the scale stand above the map. Where no value is negative, as after ReLU, brightness
    grows with the square root, so that a few strong pixels do not hide the rest. Of more than 512
    maps the strongest are shown.

    Args:
        path: the layer's path.
        maps: (H, W, C) floats.
        dead: channels that the census found dead.
        title: the figure's title; path, size and scale are added.
        nearly: channels that are nearly dead (`fates.NEAR`), which get a dashed frame.
        image: (H, W, 3) image that the maps are of, shown first where it is given.
        synthetic: whether the data is.
    """
    maps = np.asarray(maps, float)
    if maps.ndim != 3:
        raise ValueError(f"maps of {path!r} must be (H, W, C), not of shape {maps.shape}")
    shown = _strongest(maps)
    cells = len(shown) + (image is not None)
    columns, across = _grid(cells)
    rectified = not (maps < 0).any()
    power = 0.5 if rectified else 1.0
    pictures = [_colored(maps[:, :, c], across, power, dead=c in dead) for c in shown]
    captions = [(str(c), _range(maps[:, :, c], dead=c in dead)) for c in shown]
    if image is not None:
        pictures.insert(0, _fitted(np.asarray(image), pictures[0].shape[:2]))
        captions.insert(0, ("input", ""))
    mosaic, corners = _mosaic(pictures, columns)
    mosaic, written = _captioned(mosaic, corners, captions, mosaic.shape[1] // columns - _GAP)
    places = dict(zip(shown, corners[image is not None :], strict=True))

    width, down = mosaic.shape[1] / style.DPI, mosaic.shape[0] / style.DPI
    small = max(maps.shape[:2]) > 1.5 * across
    key = style.wrap(_key(dead, nearly, small, rectified), width - 0.2, style.SMALL)
    below = 0.16 * len(key) + 0.15
    figure = style.canvas(
        width, down + below, title, _subtitle(path, maps, shown), synthetic=synthetic
    )
    axes = _full_axes(figure, width, down)
    axes.add_image(_Mosaic(axes, mosaic, written))
    axes.set(xlim=(0, mosaic.shape[1]), ylim=(mosaic.shape[0], 0))
    _cross_out(axes, [places[c] for c in shown if c in dead], pictures[-1].shape)
    _frame(axes, [places[c] for c in shown if c in nearly], pictures[-1].shape)
    x, y = _GAP / mosaic.shape[1], below / figure.get_figheight()
    figure.text(x, y, "\n".join(key), size=style.SMALL, va="top")
    return figure


def _full_axes(figure: Figure, width: float, height: float) -> Axes:
    """Axes without lines over `width` x `height` inches below the header, placed by hand.

    Without a layout to settle, hundreds of pictures and captions are drawn in half the time.
    """
    below = figure.get_layout_engine().get()["rect"][3]  # type: ignore[union-attr]
    figure.set_layout_engine("none")
    share = height / figure.get_figheight()
    axes = figure.add_axes((0, below - share, width / figure.get_figwidth(), share))
    axes.set_axis_off()
    return axes


def _subtitle(path: str, maps: np.ndarray, shown: Sequence[int]) -> str:
    height, width, channels = maps.shape
    text = f"{path or 'output'}: {channels} map{'s' * (channels != 1)} of {height} x {width}"
    return text + (f", the strongest {len(shown)} shown" if len(shown) < channels else "")


def _grid(cells: int) -> tuple[int, int]:
    """Columns, with as few empty cells as may be, and pixels across a map."""
    most, across = next((most, pixels) for limit, most, pixels in _GRIDS if cells <= limit)
    choices = range(most, math.ceil(most * _NARROWER) - 1, -1)
    return min(choices, key=lambda columns: -cells % columns), across


def _key(dead: Collection[int], nearly: Collection[int], reduced: bool, rectified: bool) -> str:
    sentences = ["Above each map: its channel, and the values that are darkest and brightest."]
    if rectified:
        sentences.append("Square-root scale.")
    if dead:
        sentences.append("Crossed out: dead filters.")
    if nearly:
        sentences.append(f"Dashed frame: nearly dead, {100 * NEAR:g} % zeros on clean test images.")
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


def _colored(values: np.ndarray, across: int, power: float, *, dead: bool) -> np.ndarray:
    """A map as (H, W, 3) uint8 about `across` pixels wide, each of its pixels a whole square."""
    values = reduced(values[..., None], int(1.5 * across))[..., 0]
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(values).all() or (dead and low == high == 0.0):
        picture = np.full((*values.shape, 3), 255 * np.array(to_rgb(style.PALE)), np.uint8)
    else:
        if low < high:
            level = ((values - low) / (high - low)) ** power
        else:  # black where it is 0 throughout, else half bright
            level = np.full(values.shape, 0.5 if low else 0.0)
        picture = _inferno()[np.minimum((256 * level).astype(int), 255)]
    factor = max(1, round(across / max(values.shape)))
    # A very flat map is stretched, so that it can be seen.
    stretch = [max(factor, round(across / 4 / side)) for side in values.shape]
    return picture.repeat(stretch[0], axis=0).repeat(stretch[1], axis=1)


@functools.cache
def _inferno() -> np.ndarray:
    """The colours of 256 levels, (256, 3) uint8; matplotlib would make them anew for each map."""
    return (255 * matplotlib.colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)


def _fitted(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The nearest pixels of an image (H, W, 3), uint8 or floats in [0, 1], at another size."""
    if image.dtype != np.uint8:
        image = (255 * np.clip(image, 0, 1)).astype(np.uint8)
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(shape, image.shape, strict=False)
    )
    return image[rows][:, columns]


def _mosaic(
    pictures: Sequence[np.ndarray], columns: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """All pictures on white, room for a caption above each; left and top of each in pixels."""
    height, width = pictures[-1].shape[:2]
    side, step = max(width, _NARROWEST) + _GAP, height + _CAPTION + _GAP
    rows = math.ceil(len(pictures) / columns)
    mosaic = np.full((rows * step, columns * side + _GAP, 3), 255, np.uint8)
    corners = [
        (_GAP + index % columns * side, index // columns * step + _CAPTION)
        for index in range(len(pictures))
    ]
    for (left, top), picture in zip(corners, pictures, strict=True):
        mosaic[top : top + height, left : left + width] = picture
    return mosaic, corners


class _Mosaic(AxesImage):
    """A picture that is drawn as it is where its place has its size in pixels.

    Matplotlib would resample it in floats, which takes a gigabyte for 512 maps, and blend it.
    """

    def __init__(self, axes: Axes, picture: np.ndarray, written: Sequence[_Written]) -> None:
        height, width = picture.shape[:2]
        super().__init__(axes, origin="upper", extent=(0, width, height, 0))
        self.set_data(picture)
        self._picture = picture
        self.written = written
        """The texts that are part of the picture."""

    def draw(self, renderer: Any) -> None:
        """Onto the pixels that `renderer` has, where it has any."""
        height, width = self._picture.shape[:2]
        left, bottom, across, up = self.get_window_extent(renderer).bounds
        fits = (round(across), round(up)) == (width, height)
        if not (fits and isinstance(renderer, RendererAgg)):
            super().draw(renderer)
            return
        pixels = np.asarray(renderer.buffer_rgba())
        top, left = len(pixels) - round(bottom) - height, round(left)
        pixels[top : top + height, left : left + width, :3] = self._picture


def _range(values: np.ndarray, *, dead: bool) -> str:
    """The ends of a map's scale: '0 to 0.31'."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(values).all():
        return "not finite"
    if low == high:
        return "dead" if dead and low == 0.0 else f"all {_brief(low)}"
    return f"{_brief(low)} to {_brief(high)}"


def _brief(value: float) -> str:
    """Two significant digits in few letters: 1.2e-05 as '1.2e-5', 0.00012 as '1.2e-4'."""
    text = f"{value:.2g}"
    mantissa, mark, exponent = (text if len(text) <= _FEW else f"{value:.1e}").partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else mantissa


def _captioned(
    mosaic: np.ndarray,
    corners: Sequence[tuple[int, int]],
    captions: Sequence[tuple[str, str]],
    room: int,
) -> tuple[np.ndarray, list[_Written]]:
    """A name at the left above each picture and a text at the right, smaller where they'd meet.

    They are written into the picture: matplotlib would take most of a figure's time for them.
    """
    picture = Image.fromarray(mosaic)
    pen = ImageDraw.Draw(picture)
    written = []
    for (left, top), (name, text) in zip(corners, captions, strict=True):
        needed = sum(
            style.picture_font(_LETTERS, weight).getlength(part)
            for part, weight in ((name, "bold"), (text, "normal"))
        )
        size = min(_LETTERS, int(_LETTERS * room / (needed + _BETWEEN)))
        for x, part, weight, anchor in (
            (left, name, "bold", "ld"),
            (left + room, text, "normal", "rd"),
        ):
            place, font = (x, top - 4), style.picture_font(size, weight)
            pen.text(place, part, style.INK, font, anchor)
            written.append((part, pen.textbbox(place, part, font, anchor)))
    return np.asarray(picture), written


def _cross_out(axes: Axes, corners: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> None:
    height, width = shape[:2]
    lines = []
    for left, top in corners:
        lines.append([(left, top), (left + width, top + height)])
        lines.append([(left, top + height), (left + width, top)])
    axes.add_collection(LineCollection(lines, colors=style.VERMILION, linewidths=1.4))


def _frame(axes: Axes, corners: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> None:
    height, width = shape[:2]
    for left, top in corners:
        corner = (left + 1, top + 1)
        axes.add_patch(
            Rectangle(corner, width - 2, height - 2, fill=False, ec=style.SKY, lw=1.6, ls="--")
        )
