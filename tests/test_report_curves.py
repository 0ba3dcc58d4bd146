"""Loss, accuracy and learning rate by epoch, as a figure."""

from dataclasses import replace

import numpy as np
import pytest
from report_drawing import assert_clean, drawn_texts
from report_runs import history_rows

from rice_jax.records import EpochRow
from rice_jax.report import figures

NAN = float("nan")
RESIZED = [replace(row, image_size=112 * (1 + row.epoch // 9)) for row in history_rows(16)]
"""Of an older version, which validated on whole images whatever it learned from."""
GROWN = [replace(row, validation_size=None if row.epoch > 8 else 112) for row in RESIZED]

ODD = {
    "one epoch": lambda: figures.curves(history_rows(1)),
    "no epoch": lambda: figures.curves([]),
    "one hundred epochs": lambda: figures.curves(history_rows(100), title="A long title " * 9),
    "gaps": lambda: figures.curves(
        [replace(r, val_loss=NAN, train_loss=NAN) for r in history_rows(3)] + history_rows(5)[3:]
    ),
    "nothing finite": lambda: figures.curves([EpochRow(epoch=epoch) for epoch in (1, 2)]),
    "a rate that moves all the time": lambda: figures.curves(
        [replace(row, learning_rate=1e-3 / row.epoch) for row in history_rows(16)]
    ),
    "sizes of validation": lambda: figures.curves(GROWN, title="A long title " * 9),
    "steps of rate and of size": lambda: figures.curves(RESIZED, title="A long title " * 9),
    "collapsed": lambda: figures.curves(
        [replace(r, val_loss=1.6094, train_loss=1.6094) for r in history_rows(9)]
    ),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.one_in(3)
def test_texts_of_odd_curves_neither_overlap_nor_leave_the_figure(name):
    assert_clean(ODD[name]())


def test_changes_of_the_rate_are_marked_where_there_are_moments_of_change():
    texts = [text for text, _ in drawn_texts(figures.curves(history_rows(16)))]
    assert "learning rate changes" in texts
    assert "image size changes" not in texts
    moving = [text for text, _ in drawn_texts(ODD["a rate that moves all the time"]())]
    assert "learning rate changes" not in moving


def test_where_images_grow_there_is_a_line_through_each_panel():
    figure = figures.curves(RESIZED)
    assert "image size changes" in [text for text, _ in drawn_texts(figure)]
    for panel in figure.axes:
        assert [8.5, 8.5] in [list(line.get_xdata()) for line in panel.lines]


def test_curves_mark_the_first_best_epoch_and_each_change_of_rate():
    told = zip(history_rows(4), (0.9, 0.4, 0.4, 0.6), (1.0, 1.0, 0.5, 0.1), strict=True)
    rows = [replace(row, val_loss=loss, learning_rate=rate) for row, loss, rate in told]
    figure = figures.curves(rows)
    texts = [text for text, _ in drawn_texts(figure)]
    assert "best epoch: 2 (lowest validation loss)" in texts
    star = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(star, [[2, 0.4]])
    upright = [line.get_xdata() for line in figure.axes[1].lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(upright, [[2.5, 2.5], [3.5, 3.5]])


@pytest.mark.parametrize("grown", [True, False])
def test_the_best_epoch_is_one_of_the_newest_size(grown):
    """Losses fall to 0.1 at 112 pixels; at 224 they begin anew."""
    losses = [0.9, 0.1, 0.5, 0.4, 0.6] if grown else [0.9, 0.1]
    rows = [
        replace(row, val_loss=loss, validation_size=None if row.epoch > 2 else 112)
        for row, loss in zip(history_rows(len(losses)), losses, strict=True)
    ]
    figure = figures.curves(rows)
    star = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(star, [[4, 0.4] if grown else [2, 0.1]])
    where = "best epoch: 4 (lowest on whole images)" if grown else "best epoch: 2"
    assert any(text.startswith(where) for text, _ in drawn_texts(figure))
