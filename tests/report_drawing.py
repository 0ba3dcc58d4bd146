"""What a figure really shows: its texts with their places, and its pixels."""

import io
from unittest import mock

import matplotlib.text
import numpy as np
from PIL import Image

from rice_jax.report import figures


def pixels(figure) -> np.ndarray:
    """The figure's PNG as (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(figures.png(figure))).convert("RGB"))


def drawn_texts(figure) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Each text that is drawn, with left, bottom, right, top in pixels."""
    found = {}  # drawn twice: once to settle the layout
    draw = matplotlib.text.Text.draw

    def spy(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            box = self.get_window_extent(renderer)
            found[id(self)] = self.get_text(), (box.x0, box.y0, box.x1, box.y1)
        return draw(self, renderer, *args, **kwargs)

    with mock.patch.object(matplotlib.text.Text, "draw", spy):
        figures.png(figure)
    return [*found.values(), *_written_in_pictures(figure)]


def _written_in_pictures(figure):
    for picture in figure.findobj(lambda artist: hasattr(artist, "written")):
        place = picture.get_window_extent()
        for text, (left, top, right, bottom) in picture.written:
            if text:
                box = place.x0 + left, place.y1 - bottom, place.x0 + right, place.y1 - top
                yield text, box


def assert_clean(figure) -> list[str]:
    """No text overlaps another by more than a pixel, none leaves the figure; the texts."""
    texts = drawn_texts(figure)
    assert texts
    boxes = np.array([box for _, box in texts])
    width, height = figure.bbox.width, figure.bbox.height
    outside = (
        (boxes[:, 0] < -1) | (boxes[:, 1] < -1) | (boxes[:, 2] > width + 1)
        | (boxes[:, 3] > height + 1)
    )  # fmt: skip
    assert not outside.any(), [texts[i] for i in np.flatnonzero(outside)]
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.triu(((high - low) > 1).all(axis=-1), k=1)
    pairs = [(texts[i], texts[j]) for i, j in np.argwhere(overlap)]
    assert not pairs, pairs[:5]
    return [text for text, _ in texts]
