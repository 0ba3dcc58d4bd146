"""Figures that can be read: round ticks, grids that fill, few and many classes, what is marked."""

from dataclasses import replace

import numpy as np
import pytest
from report_drawing import assert_clean, drawn_texts, pixels
from report_runs import cells, history_rows, make_run

from rice_jax.records import Candidate, Suggestion, Taken
from rice_jax.report import confusion, figures, style, writing

IMAGE = np.full((9, 9, 3), 128, np.uint8)


def maps(channels):
    return np.random.default_rng(0).random((7, 7, channels))


def shown_epochs(figure):
    figure.draw_without_rendering()
    return figure.axes[-1].get_xticks().tolist()


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, [1]),
        (5, [1, 2, 3, 4, 5]),
        (30, [5, 10, 15, 20, 25, 30]),
        (100, [20, 40, 60, 80, 100]),
    ],
)
def test_ticks_stand_at_round_epochs(epochs, expected):
    assert shown_epochs(figures.curves(history_rows(epochs))) == expected


def test_the_rate_is_drawn_where_it_changes_alone():
    rows = history_rows(16)
    assert len(figures.curves(rows).axes) == 3
    steady = figures.curves([replace(row, learning_rate=0.1) for row in rows])
    assert len(steady.axes) == 2
    assert not any("rate" in text for text, _ in drawn_texts(steady))


@pytest.mark.parametrize(("last", "scale"), [(1e-4, "log"), (7e-10, "linear"), (0.0, "linear")])
def test_a_rate_that_falls_to_nothing_is_on_a_linear_axis(last, scale):
    rows = [
        replace(row, learning_rate=rate)
        for row, rate in zip(history_rows(3), (2e-3, 1e-3, last), strict=True)
    ]
    assert figures.curves(rows).axes[2].get_yscale() == scale


@pytest.mark.parametrize("costs", [(9, 5, 5, 3), (5, 5, 5, 5), (3, 5, 9, 9), (3, 3, 2, 2)])
@pytest.mark.parametrize("accuracies", [(0.9, 0.5, 0.6, 0.4), (0.4, 0.4, 0.9, 0.5)])
def test_no_budget_that_another_beats_is_on_the_line_of_the_best(costs, accuracies):
    """Also of equal cost: for each cost on the line one accuracy, more than for any below it."""
    rows = [
        Suggestion(cost=cost, params=1, filters_removed=0, clean=right, augmented=right / 2)
        for cost, right in zip(costs, accuracies, strict=True)
    ]
    best = {
        cost: max(r for c, r in zip(costs, accuracies, strict=True) if c <= cost) for cost in costs
    }
    line = sorted((min(c for c in costs if best[c] == r), 100 * r) for r in set(best.values()))
    drawn = figures.budgets(rows, measure="FLOPs").axes[0].get_lines()
    steps = [each.get_xydata().tolist() for each in drawn if "steps" in each.get_drawstyle()]
    assert steps == [list(map(list, line)), [[cost, right / 2] for cost, right in line]]


@pytest.mark.parametrize(
    ("least", "ratio"),
    [(1.01e-4, 1.7), (100.0, 1.01), (2.1e5, 2.3), (9.9e5, 1.7), (5.1e7, 30.0), (3.0, 5e4)],
)
def test_an_axis_of_costs_has_numbers_to_read_them_by(least, ratio):
    costs, told = (ratio * least, least), {"params": 1, "filters_removed": 0}
    rows = [Suggestion(cost=cost, clean=0.9, augmented=0.8, **told) for cost in costs]
    whole = Candidate(
        name="", out_of=None, step=None, removed=Taken(), why="", costs={}, accuracy=0.9
    )
    tried = [replace(whole, name=f"{cost}", costs={"latency": cost}) for cost in costs]
    searched = figures.searched(
        tried, front=[f"{least}"], chosen=None, measure="latency", floor=0.9, title="net"
    )
    for axes in (figures.budgets(rows, measure="FLOPs").axes[0], searched.axes[0]):
        low, high = axes.get_xlim()
        axes.figure.draw_without_rendering()
        ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        assert sum(low <= tick <= high and label.get_text() != "" for tick, label in ticks) > 1
        assert low < least <= ratio * least < high
    units = {label.get_text().split()[-1] for label in searched.axes[0].get_xticklabels()}
    assert units <= {"ns", "µs", "ms", "s"}  # as the page and the terminal tell them


@pytest.mark.parametrize("accuracy", [0.2, 0.99, 1.0])
def test_an_axis_of_accuracy_ends_at_100_percent_at_most(accuracy):
    rows = [replace(row, val_accuracy=accuracy) for row in history_rows(4)]
    learned = figures.curves(rows).axes[1]
    low, high = learned.get_ylim()
    assert 0 <= low < 100 * accuracy <= high <= 100
    told = {"params": 1, "filters_removed": 0, "clean": accuracy, "augmented": accuracy / 2}
    costs = [Suggestion(cost=cost, **told) for cost in (1, 2)]
    budgets = figures.budgets(costs, measure="FLOPs").axes[0]
    tried = [
        Candidate(
            name=name,
            out_of=None,
            step=None,
            removed=Taken(),
            why="",
            costs={"flops": 1.0 + place},
            accuracy=accuracy - place / 100,
        )
        for place, name in enumerate(("", "channels"))
    ]
    searched = figures.searched(
        tried, front=[""], chosen=None, measure="flops", floor=accuracy, title="net"
    ).axes[0]
    assert max(axes.get_ylim()[1] for axes in (budgets, searched)) <= 100
    for axes in (learned, budgets, searched):
        points = [line for line in axes.get_lines() if line.get_marker() != "None"]
        assert points
        assert not any(point.get_clip_on() for point in points)  # whole at 100 too


@pytest.mark.parametrize(
    ("cells", "columns", "rows"), [(9, 3, 3), (12, 4, 3), (6, 3, 2), (16, 4, 4), (64, 8, 8)]
)
def test_grids_of_maps_fill(cells, columns, rows):
    height, width, _ = pixels(figures.feature_maps("c", maps(cells))).shape
    side = 224 if cells <= 12 else 128
    assert width == columns * (max(side, 128) + 12) + 12
    assert height > rows * side


def test_a_nearly_dead_map_has_a_frame_and_the_key_says_what_that_is():
    values = np.zeros((4, 4, 2))
    framed = figures.feature_maps("c", values, nearly=[1])
    blue = abs(pixels(framed).astype(int) - (0x56, 0xB4, 0xE9)).max(axis=-1) < 9
    assert blue[:, : blue.shape[1] // 3].sum() == 0  # the first of three columns
    assert blue.sum() > 300
    told = " ".join(text for text, _ in drawn_texts(framed)).replace("\n", " ")
    assert "Dashed frame: nearly dead, 99 % zeros" in told


def test_of_many_classes_the_most_mistaken_are_told_apart_and_no_image_is_lost():
    names = [f"c{i}" for i in range(100)]
    counts = np.diag(np.full(100, 50))
    for mistaken in range(29):
        counts[3 * mistaken, 3 * mistaken + 1] = 40 - mistaken
    small, rows, kept = confusion.gathered(cells(counts), names)
    assert small.sum() == counts.sum()
    assert rows[-1] == "71 others"
    assert [names[i] for i in kept] == rows[:-1]
    for row, i in enumerate(kept):
        np.testing.assert_array_equal(small[row, :-1], counts[i, kept])
        assert small[row, -1] == counts[i].sum() - counts[i, kept].sum()
        assert small[-1, row] == counts[:, i].sum() - counts[kept, i].sum()
    assert {0, 1, 3, 4} <= set(kept)
    same, all_rows, _ = confusion.gathered(cells(counts[:50, :50]), names[:50])
    assert len(same) == len(all_rows) == 50


def test_hits_and_errors_of_a_matrix_differ_in_hue():
    image = pixels(figures.confusion_matrix(cells([[50, 50], [0, 100]]), "ab")).astype(int)
    bluish = image[..., 2] - image[..., 0] > 60
    orange = image[..., 0] - image[..., 2] > 60
    assert bluish.mean() > 0.1
    assert orange.mean() > 0.1


def test_a_class_in_another_script_stands_in_latin_letters():
    texts = [text for text, _ in drawn_texts(figures.classes({"쌀": [IMAGE]}, ["쌀", "b"]))]
    assert "Ssal" in texts


HANGUL = "쌀 한 톨"
OF_THE_USER = {
    "a class": lambda name: figures.confusion_matrix(cells([[3, 1], [0, 8]]), ["b", name]),
    "a folder's class": lambda name: figures.classes({name: [IMAGE]}, [name, "b"]),
    "an image's file": lambda name: figures.saliency(
        IMAGE, np.zeros((8, 8)), [("a", 0.7), ("b", 0.3)], f"{name}.png: a, 70.0 %"
    ),
    "a class of an image": lambda name: figures.saliency(
        IMAGE, np.zeros((8, 8)), [("a", 0.7), (name, 0.3)], "x.png: a, 70.0 %"
    ),
    "a net": lambda name: figures.curves(history_rows(2), title=f"{name}: training"),
    "a layer": lambda name: figures.filters_left(
        [{"path": name, "before": 4, "after": 2}], title="filters"
    ),
    "a layer's maps": lambda name: figures.feature_maps(name, maps(4)),
}


@pytest.mark.parametrize("place", OF_THE_USER)
@pytest.mark.one_in(2)
def test_letters_without_a_font_are_said_once_wherever_a_name_stands(place, monkeypatch):
    plain = assert_clean(OF_THE_USER[place]("grain"))
    monkeypatch.setattr(style, "_has_glyph", str.isascii)  # a machine without any other font
    latin = assert_clean(OF_THE_USER[place]("grain"))
    told = " ".join(assert_clean(OF_THE_USER[place](HANGUL))).replace("\n", " ")
    assert told.count("no font here can draw") == 1
    assert "Ssal" in told
    assert not any("no font" in text for text in [*plain, *latin])


def test_a_class_that_cannot_be_written_has_its_number_among_all():
    """Also in a picture of some of them."""
    order = ["a", "\ue000", "b", "\ue001"]
    shown = figures.classes({order[3]: [IMAGE]}, order)
    assert "class 4" in [text for text, _ in drawn_texts(shown)]


def test_what_does_not_depend_on_images_is_not_stamped(tmp_path):
    for drawn in (False, True):
        alone = {"history": None, "evaluation": None, "dead_filters": None}
        writing.write(make_run(tmp_path / str(drawn), synthetic=drawn, **alone))
    for name in ("flops.png", "roofline.png"):
        first, second = ((tmp_path / str(drawn) / name).read_bytes() for drawn in (False, True))
        assert first == second
