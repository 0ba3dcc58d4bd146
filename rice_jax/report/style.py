"""One look for every figure: colours, sizes, a header with the title, and the way to bytes.

Colours are Okabe and Ito's (2008, "Color Universal Design"), told apart by colour-blind readers;
what they tell apart also differs in lightness, marker or hatching, so that it survives in grey.
Figures are narrow with large type, so that they can be read on a phone.
"""

import bisect
import contextlib
import contextvars
import dataclasses
import functools
import io
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ParamSpec

import matplotlib.style
import numpy as np
from anyascii import anyascii
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.textpath import TextToPath
from PIL import Image, ImageFont

INK = "#222222"
GREY = "#8c8c8c"
PALE = "#d9d9d9"
BLUE = "#0072b2"
SKY = "#56b4e9"
ORANGE = "#e69f00"
VERMILION = "#d55e00"
GREEN = "#009e73"

WIDTH = 5.4
"""Inches across of an ordinary figure."""
DPI = 160
FONT_SIZE = 11.0
SMALL = 9.0
TITLE_SIZE = 12.0
_MARGIN = 0.12  # inches around the header
_LEGEND_ROW = 0.2  # inches
_LEADING = 1.35  # height of a line over its letters
Compress = Callable[[], bytes]
"""The bytes of a PNG of a figure that has been drawn."""
_COMPRESSION = 3  # of a PNG: more takes twice the time for a tenth fewer bytes

SYNTHETIC = "synthetic data: drawn grains, not photographs"
WRITTEN = "Letters that no font here can draw are written by sound, number or □."

# Fonts of other scripts, used where they are installed.
_OTHER_SCRIPTS = (
    *("Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans KR", "NanumGothic", "Malgun Gothic"),
    *("Apple SD Gothic Neo", "Microsoft YaHei", "WenQuanYi Zen Hei", "Arial Unicode MS"),
)

P = ParamSpec("P")


@dataclasses.dataclass
class _Letters:
    """Of a figure that is being drawn."""

    written: bool = False
    """Whether letters stand otherwise than they are."""


_LETTERS: contextvars.ContextVar[_Letters | None] = contextvars.ContextVar("letters", default=None)


@functools.cache
def _families() -> list[str]:
    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]


@functools.cache
def _settings() -> dict[str, object]:
    return {
        "font.family": _families(),
        "font.size": FONT_SIZE,
        "text.color": INK,
        "text.parse_math": False,  # a class may be called 'a$b$'
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.labelsize": FONT_SIZE,
        "axes.titlesize": FONT_SIZE,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": PALE,
        "grid.linewidth": 0.6,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "hatch.linewidth": 0.8,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        "svg.hashsalt": "rice_jax",  # the same figure gives the same file
    }


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a function that draws a figure in this style, whatever the user's own settings.

    Where a name of the user's has letters that no font can draw, the figure's header says so
    (`WRITTEN`): the figure is then drawn once more, since the header comes first.
    """

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        letters = _Letters()
        before = _LETTERS.set(letters)
        try:
            with context():
                figure = draw(*args, **kwargs)
                return draw(*args, **kwargs) if letters.written else figure
        finally:
            _LETTERS.reset(before)

    return wrapper


def context() -> contextlib.AbstractContextManager[None]:
    """Matplotlib's settings as this style has them, for as long as the context lasts."""
    return matplotlib.style.context(["default", _settings()])


def canvas(
    width: float,
    height: float,
    title: str,
    subtitle: str = "",
    *,
    legend_rows: int = 0,
    synthetic: bool = False,
) -> Figure:
    """A figure of `width` x `height` inches below a header with its title.

    Args:
        width: inches.
        height: inches left to the axes; the header comes on top.
        title: wrapped to the width, as the subtitle is.
        subtitle: what the figure shows, in smaller letters.
        legend_rows: rows of a legend that `legend_above` will put below the header.
        synthetic: stamp the header with `SYNTHETIC`.

    Returns:
        A figure with constrained layout, tied to no window and to no pyplot state.
    """
    letters = _LETTERS.get()
    header: list[tuple[str, float, str, str]] = []
    for text, size, weight, color in (
        (title, TITLE_SIZE, "bold", INK),
        (subtitle, SMALL + 1, "normal", INK),
        (SYNTHETIC if synthetic else "", SMALL + 1, "bold", VERMILION),
        (WRITTEN if letters and letters.written else "", SMALL, "normal", INK),
    ):
        for line in text.splitlines():
            lines = wrap(drawable(line), width - 2 * _MARGIN, size, weight) if line else []
            header.extend((line, size, weight, color) for line in lines)
    below = height + _MARGIN / 2
    legend = _LEGEND_ROW * legend_rows + (_MARGIN if legend_rows else 0)
    total = below + legend + _MARGIN + sum(size for _, size, _, _ in header) * _LEADING / 72
    figure = Figure(figsize=(width, total), layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0, 0, 1, below / total), w_pad=0.06, h_pad=0.06)  # type: ignore[call-arg]
    top = total - _MARGIN
    for line, size, weight, color in header:
        x, y = _MARGIN / width, top / total
        figure.text(x, y, line, size=size, weight=weight, color=color, va="top")
        top -= size * _LEADING / 72
    return figure


def legend_above(figure: Figure, axes: Axes, columns: int = 1, *, right: bool = False) -> None:
    """The legend of `axes` in the space that `canvas` left below the header."""
    engine = figure.get_layout_engine()
    assert engine is not None
    x = _MARGIN / figure.get_figwidth()
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="lower right" if right else "lower left",
        bbox_to_anchor=(1 - x if right else x, engine.get()["rect"][3]),
        ncols=columns,
        borderaxespad=0,
        borderpad=0,
    )


def end_at_100(axes: Axes, *, across: bool = False) -> None:
    """End an axis of percentages at 100 at most; markers that stand on its end are drawn whole."""
    if across:
        axes.set_xlim(right=min(axes.get_xlim()[1], 100))
    else:
        axes.set_ylim(top=min(axes.get_ylim()[1], 100))
    for line in axes.get_lines():
        if line.get_marker() not in ("", " ", "None", None):
            line.set_clip_on(False)


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    return drawn(figure)()


def drawn(figure: Figure) -> Compress:
    """Draw the figure; what makes a PNG of it needs neither matplotlib nor Python's lock."""
    with context():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    pixels = canvas.buffer_rgba()
    height, width = np.shape(pixels)[:2]
    # Without the transparency that no figure has, and so in less time and as many bytes.
    picture = Image.frombuffer("RGBA", (width, height), pixels, "raw", "RGBA", 0, 1).convert("RGB")

    def compress() -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=_COMPRESSION, dpi=(figure.dpi, figure.dpi))
        return buffer.getvalue()

    return compress


def svg(figure: Figure) -> bytes:
    """The figure as SVG, letters drawn as outlines so that it needs no font."""
    buffer = io.BytesIO()
    with context():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def drawable(text: str) -> str:
    """`text` on one line, letters that no installed font can draw in ASCII, or else as a box."""
    line = " ".join(text.split())
    drawn = "".join(letter if _has_glyph(letter) else _written(letter) for letter in line)
    if drawn != line and (letters := _LETTERS.get()):
        letters.written = True
    return drawn


@functools.cache
def _written(letter: str) -> str:
    """A letter of any script as ASCII, by its sound; a box for what has none, or no looks."""
    written = anyascii(letter)
    return written if written and written.isprintable() else "□"


def labels(
    names: Sequence[str], inches: float, size: float = SMALL, places: Sequence[int] | None = None
) -> list[str]:
    """Names of classes as labels no wider than `inches`, each different from the others.

    A name that can neither be drawn nor written in ASCII, and one that would look as another does,
    becomes its number: 'class 3'. Of some of more classes `places` are the indices.
    """
    short = [fit(drawable(name), inches, size) for name in names]
    alike = Counter(short)
    numbered = [f"class {place + 1}" for place in places or range(len(names))]
    chosen = [
        number if not text or "□" in text or alike[text] > 1 else text
        for text, number in zip(short, numbered, strict=True)
    ]
    return chosen if len(set(chosen)) == len(chosen) else numbered


@functools.cache
def _has_glyph(letter: str) -> bool:
    if not letter.isprintable():
        return False
    fonts = (get_font(findfont(family)) for family in _families())
    return any(font.get_char_index(ord(letter)) for font in fonts)


@functools.lru_cache(10_000)
def width_of(text: str, size: float = FONT_SIZE, weight: str = "normal") -> float:
    """How wide a line of text is, in inches."""
    properties = FontProperties(family=_families(), size=size, weight=weight)
    return TextToPath().get_text_width_height_descent(text, properties, ismath=False)[0] / 72


@functools.lru_cache(100)
def picture_font(size: int, weight: str = "normal") -> ImageFont.FreeTypeFont:
    """Letters of ASCII, `size` pixels high, to write into a picture with."""
    path = findfont(FontProperties(family=_families()[:1], weight=weight))
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def fit(text: str, inches: float, size: float = FONT_SIZE) -> str:
    """`text`, with '…' for some of its middle where it is wider than `inches`."""
    if width_of(text, size) <= inches:
        return text
    kept = bisect.bisect_left(
        range(len(text)), True, key=lambda n: width_of(_cut(text, n), size) > inches
    )
    return _cut(text, kept - 1) if kept else "…"


def _cut(text: str, kept: int) -> str:
    """The first and the last letters of `text`, `kept` of them, and '…' for what is between."""
    start = (kept + 1) // 2
    return f"{text[:start].rstrip()}…{text[len(text) - kept + start :].lstrip()}"


def wrap(text: str, inches: float, size: float = FONT_SIZE, weight: str = "normal") -> list[str]:
    """`text` broken into lines no wider than `inches`."""
    for columns in range(len(text), 1, -1):
        lines = textwrap.wrap(text, columns) or [""]
        if max(width_of(line, size, weight) for line in lines) <= inches:
            return lines
    return [text]
