import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import report_runs
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from report_drawing import assert_clean, drawn_texts, pixels
from report_runs import DEAD, cells, history_rows

from rice_jax import profile
from rice_jax.records import DeadFiltersFile, LayerCosts, LayerFilters, Peaks, made
from rice_jax.report import figures, style
from rice_jax.report.figures import pruning
from rice_jax.report.figures.layers import kind_of

NAN = float("nan")
LONG = [f"Oryza sativa variety number {i} of the northern plain" for i in range(20)]
IMAGE = np.full((9, 9, 3), 128, np.uint8)


def dead_layer(path="conv", filters=4, **indices):
    return LayerFilters(path=path, filters=filters, **{"zero_fraction": [0.5] * filters} | indices)


def maps(channels, height=7, width=7):
    return np.random.default_rng(0).random((height, width, channels))


PEAKS = Peaks(flops_per_second=1e12, bytes_per_second=1e11, seconds=0.0)


def bounded(path, intensity, moved=1000):
    """A layer of profile.json with what the roofline reads."""
    seconds = max(intensity * moved / 1e12, moved / 1e11)
    bound = "compute" if intensity >= 10 else "memory"
    whole = layer(path, 0)
    return dataclasses.replace(whole, intensity=intensity, bound=bound, seconds=seconds)


def layer(path, flops):
    """A row of profile.json."""
    return made(LayerCosts, report_runs.layer(path, flops))


FIGURES = {
    "curves": lambda **k: figures.curves(history_rows(30), **k),
    "confusion": lambda **k: figures.confusion_matrix(cells([[5, 1], [0, 3]]), ["a", "b"], **k),
    "feature_maps": lambda **k: figures.feature_maps("conv1", maps(3), [1], **k),
    "classes": lambda **k: figures.classes({"a": [IMAGE], "b": [IMAGE] * 9}, **k),
    "dead": lambda **k: figures.dead_filters(made(DeadFiltersFile, DEAD).layers, **k),
}

SPREAD = [10 ** (-1.5 + place / 15) for place in range(60)]

SAID = [("a class of a very long name " * 4, 0.5), ("쌀", 0.3), ("b", 0.2)]

ODD = {
    "what speaks for a class": lambda: figures.saliency(IMAGE, maps(1)[..., 0], SAID, "A title"),
    "nothing speaks for it": lambda: figures.saliency(IMAGE, np.zeros((3, 3)), SAID, "A" * 99),
    "roofline of no layer": lambda: figures.roofline([], PEAKS),
    "roofline of what has no FLOPs": lambda: figures.roofline([bounded("gather", 0)], PEAKS),
    "roofline of 60 layers": lambda: figures.roofline(
        [bounded(f"a/deep/net/of/block{i}/conv", x) for i, x in enumerate(SPREAD)], PEAKS
    ),
    "roofline of 60 equal layers": lambda: figures.roofline(
        [bounded(f"block{i}", 30 + i / 100) for i in range(60)], PEAKS, title="A long title " * 9
    ),
    "roofline of two long names": lambda: figures.roofline(
        [bounded("conv/" * 30, 0.01), bounded("쌀" * 30, 1e6)], PEAKS
    ),
    "one class": lambda: figures.confusion_matrix(cells([[7]]), ["only"]),
    "one hundred classes": lambda: figures.confusion_matrix(
        cells(np.arange(10_000).reshape(100, 100) % 7), [f"class called {i}" for i in range(100)]
    ),
    "images of 24 classes": lambda: figures.classes({n: [IMAGE] * 4 for n in (*LONG, *"abcd")}),
    "twenty classes": lambda: figures.confusion_matrix(cells(np.full((20, 20), 12345)), LONG),
    "names": lambda: figures.confusion_matrix(
        cells(np.eye(3) * 7), ["쌀", "a$b_{c}$", "two\nlines"]
    ),
    "nothing evaluated": lambda: figures.confusion_matrix(cells(np.zeros((3, 3))), ["a", "b", "c"]),
    "one filter": lambda: figures.feature_maps("conv", maps(1), [0], "One", image=IMAGE),
    "a long path": lambda: figures.feature_maps("a/b/" * 30, maps(13, 3, 3)),
    "wide numbers": lambda: figures.feature_maps("conv", -1e-11 * (1 + maps(70)), range(70)),
    "flat and high maps": lambda: figures.feature_maps("conv", maps(20, 2, 90)),
    "high maps": lambda: figures.feature_maps("conv", maps(20, 90, 2)),
    "not finite": lambda: figures.feature_maps("conv", np.full((4, 4, 5), NAN), [2]),
    "long class names": lambda: figures.classes({n * 3: [IMAGE] for n in LONG}),
    "all dead": lambda: figures.dead_filters(
        [
            dead_layer(f"inception3a/branch{i}/reduce/of/a/deep/net", 2, proven_dead=[0, 1])
            for i in range(9)
        ]
    ),
    "every fate": lambda: figures.dead_filters(
        [dead_layer(dead_clean=[0, 1], dead_augmented=[1, 2], proven_dead=[3], filters=5)]
    ),
    "no zero fraction": lambda: figures.dead_filters([dead_layer(zero_fraction=[])]),
    "100 layers": lambda: figures.dead_filters([dead_layer(f"layer{i}") for i in range(100)]),
    "no layer": lambda: figures.flops([]),
    "one layer": lambda: figures.flops([layer("", 7)]),
    "60 layers of one module": lambda: figures.flops([layer(f"m/{i}", 10**i) for i in range(9)]),
    "60 modules": lambda: figures.flops([layer(f"module{i}/a", 999 + i) for i in range(60)]),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.one_in(3)
def test_texts_of_odd_figures_neither_overlap_nor_leave_the_figure(name):
    assert_clean(ODD[name]())


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_stamped_where_data_is_synthetic_and_only_there(name):
    stamped = FIGURES[name](synthetic=True)
    assert_clean(stamped)
    assert any("synthetic" in text for text, _ in drawn_texts(stamped))
    assert not any("synthetic" in text for text, _ in drawn_texts(FIGURES[name]()))


def test_a_figure_is_the_same_whatever_settings_the_user_has_and_leaves_them_alone():
    plain = pixels(FIGURES["curves"]())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        odd = pixels(FIGURES["curves"]())
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(plain, odd)


def test_drawing_needs_no_pyplot():
    code = (
        "import sys; from rice_jax.report import figures;"
        "figures.png(figures.confusion_matrix(([0], [0], [1]), ['a']));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_svg_and_png_of_one_figure_are_the_same_bytes_each_time():
    for render in (figures.png, figures.svg):
        first, second = (render(FIGURES["dead"]()) for _ in range(2))
        assert first == second


def test_confusion_matrix_writes_counts_and_shares_of_the_true_class():
    texts = [
        text for text, _ in drawn_texts(figures.confusion_matrix(cells([[3, 1], [0, 8]]), "ab"))
    ]
    assert {"3\n75.0 %", "1\n25.0 %", "8\n100.0 %"} <= set(texts)
    assert not any(text.startswith("0\n") for text in texts)


def test_a_matrix_and_a_bar_tell_of_what_is_nearly_all_that_it_is_not():
    texts = {
        text for text, _ in drawn_texts(figures.confusion_matrix(cells([[9999, 1], [0, 8]]), "ab"))
    }
    assert {"9999\n> 99.9 %", "1\n< 0.1 %"} <= texts
    rows = [made(LayerCosts, report_runs.layer(*each)) for each in (("a", 99_999, 4), ("b", 1, 4))]
    bars = " ".join(text for text, _ in drawn_texts(figures.flops(rows)))
    assert "> 99.9 %" in bars
    assert "100.0 %" not in bars


def test_each_of_512_maps_has_its_channel_number_and_dead_ones_say_so():
    texts = assert_clean(figures.feature_maps("c", maps(512) * 0, [3, 400], image=IMAGE))
    assert {str(channel) for channel in range(512)} <= set(texts)
    assert texts.count("dead") == 2
    assert texts.count("all 0") == 510


def test_a_dead_map_is_crossed_out_and_a_black_one_is_not():
    values = np.zeros((4, 4, 2))
    dead, black = (
        pixels(figures.feature_maps("c", values, dead)).astype(int) for dead in ([0, 1], [])
    )
    red = np.array((0xD5, 0x5E, 0))
    crosses = [(abs(image - red) < 9).all(axis=-1).sum() for image in (dead, black)]
    assert crosses[0] > 500
    assert crosses[1] == 0
    darkest = [(image == (0, 0, 3)).all(axis=-1).mean() for image in (dead, black)]
    assert darkest[0] == 0
    assert darkest[1] > 0.1


def test_a_weak_map_is_drawn_as_bright_as_a_strong_one():
    pattern = maps(1)[:, :, 0]
    mosaic = figures.feature_maps("c", np.stack([pattern, pattern * 1e-9, 5 + pattern], -1))
    drawn = pixels(mosaic).astype(int)
    rows = np.flatnonzero((drawn == (0, 0, 3)).all(axis=-1).any(axis=1))  # the darkest colour
    strong, weak, lifted = (
        drawn[rows[0] : rows[0] + 32, 12 + i * 236 : 236 + i * 236] for i in range(3)
    )
    assert len(np.unique(strong.reshape(-1, 3), axis=0)) > 5
    np.testing.assert_array_equal(strong, weak)
    np.testing.assert_allclose(strong, lifted, atol=2)


def test_one_bright_pixel_of_a_large_map_shows_and_where_it_is():
    values = np.zeros((224, 224, 40))
    values[40, 180, 10] = 1e-5
    drawn = pixels(figures.feature_maps("c", values)).astype(int)
    bright = np.argwhere((abs(drawn - (252, 254, 164)) < 3).all(axis=-1))
    black = np.argwhere((drawn == (0, 0, 3)).all(axis=-1))
    assert len(bright) == 1
    # Map 10 is the third of the second row: 112 pixels at half size, in cells of 140.
    first = black.min(axis=0)
    np.testing.assert_array_equal(bright[0] - first, (156 + 20, 2 * 140 + 90))


def test_a_few_strong_pixels_do_not_hide_the_rest_of_a_map_and_the_key_says_how():
    values = np.zeros((8, 8, 1))
    values[0, 0], values[4:, 4:] = 1.0, 0.01
    figure = figures.feature_maps("c", values)
    drawn = pixels(figure).astype(int)
    # Ten percent of the way up the colour map, where a linear scale has one percent.
    faint = (abs(drawn - (20, 11, 52)) < 8).all(axis=-1).sum()
    assert faint == 16 * 28 * 28
    assert any("Square-root scale" in " ".join(text.split()) for text, _ in drawn_texts(figure))
    signed = figures.feature_maps("c", values - 0.5)
    assert not any("Square-root" in text for text, _ in drawn_texts(signed))


def test_of_more_maps_than_are_readable_the_strongest_are_shown():
    values = np.ones((2, 2, 600)) * np.arange(600)
    texts = assert_clean(figures.feature_maps("c", values))
    assert "88" in texts
    assert "87" not in texts
    assert any("the strongest 512 shown" in text for text in texts)


def test_maps_of_another_rank_are_refused():
    with pytest.raises(ValueError, match=r"must be \(H, W, C\)"):
        figures.feature_maps("conv", np.zeros((1, 4, 4, 3)))


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("inception3a/branch2/reduce", "feature_maps/inception3a_branch2_reduce.png"),
        ("conv1@2", "feature_maps/conv1@2.png"),
        ("conv1#2", "feature_maps/conv1-2.png"),
        ("", "feature_maps/root.png"),
        ("../a b", "feature_maps/.._a_b.png"),
    ],
)
def test_a_layers_picture_has_a_plain_file_name(path, file):
    """As a link in Markdown takes it: no space, bracket or '#'."""
    assert figures.feature_maps_file(path) == file


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("inception3a/branch2/reduce", "pruned_maps/inception3a.branch2.reduce.png"),
        ("blocks/first conv (a)", "pruned_maps/blocks.first_conv__a_.png"),
        ("conv1#2", "pruned_maps/conv1-2.png"),
        ("", "pruned_maps/root.png"),
    ],
)
def test_a_pruned_layers_picture_has_a_plain_file_name(path, file):
    assert figures.side_by_side_file(path) == file


def test_no_two_layers_share_a_picture():
    paths = ["a/b", "a_b", "a b", "A_b", "", "root", "saliency", "a_b@2"]
    files = figures.feature_maps_files(paths, taken=["saliency"])
    assert list(files) == paths
    assert len({file.casefold() for file in [*files.values(), "feature_maps/saliency.png"]}) == 9
    assert files["a/b"] == "feature_maps/a_b.png"
    assert files["a_b@2"] == "feature_maps/a_b@2.png"


def test_dead_filters_fall_into_disjoint_fates():
    indices = {"dead_clean": [0, 1, 2], "dead_augmented": [0, 2, 3], "proven_dead": [0]}
    zeros = [1.0] * 4 + [0.5] * 4 + [0.99, 0.999]
    found = dead_layer(filters=10, zero_fraction=zeros, **indices)
    figure = figures.dead_filters([found])
    widths = {c.get_label(): c.patches[0].get_width() for c in figure.axes[0].containers}
    assert widths == {
        "proven dead for every image": 10,
        "dead on clean and augmented": 10,
        "dead on clean only": 10,
        "dead on augmented only": 10,
        "nearly dead: 99 % zeros": 20,
        "alive": 40,
    }
    assert any(text == "4 of 10" for text, _ in drawn_texts(figure))


@pytest.mark.parametrize("known", [(0,), (1,), (0, 2), (1, 2), (0, 1, 2), ()])
def test_the_key_to_zeros_is_there_whichever_layers_have_them(known):
    layers = [
        dead_layer(f"conv{i}", zero_fraction=[0.5] * 4 if i in known else []) for i in range(3)
    ]
    texts = [text for text, _ in drawn_texts(figures.dead_filters(layers))]
    for word in ("all filters", "middle half", "median"):
        assert texts.count(word) == (1 if known else 0)


def test_flops_of_a_deep_net_are_added_up_by_module_and_lose_nothing():
    layers = [layer(f"block{i // 10}/conv{i}", 10 * i) for i in range(40)]
    figure = figures.flops(layers, convention="formula")
    bars = [bar.get_width() for group in figure.axes[0].containers for bar in group]
    assert bars == [450, 1450, 2450, 3450]
    layers = [layer(f"block{i}", 10 * i + 10) for i in range(40)]
    figure = figures.flops(layers, convention="xla")
    bars = [bar.get_width() for group in figure.axes[0].containers for bar in group]
    assert len(bars) == 24
    assert sum(bars) == sum(10 * i + 12 for i in range(40))


class OfManyKinds(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)
        self.last = nnx.LinearGeneral(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.head(nnx.max_pool(self.conv(x), (2, 2)).mean((1, 2))))


def test_the_kind_of_a_layer_is_what_it_computes_not_what_it_is_called():
    rows = profile.count(OfManyKinds(nnx.Rngs(0)), (4, 4, 3)).to_json()["layers"]
    kinds = {row["path"]: kind_of(made(LayerCosts, row)) for row in rows}
    assert kinds == {
        "conv": "convolution", "max_pool": "other", "mean": "other",
        "head": "dense", "last": "dense", "softmax": "other",
    }  # fmt: skip


def test_the_axis_of_flops_names_its_convention_and_scale():
    texts = [text for text, _ in drawn_texts(figures.flops([layer("c", 9)], convention="xla"))]
    assert any("xla convention" in text and "linear axis" in text for text in texts)


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=8))
def test_labels_are_different_and_fit(names):
    found = style.labels(names, 1.0)
    assert len(found) == len(names)
    assert all(style.width_of(label, style.SMALL) <= 1.0 for label in found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("alike", [(" a", "a "), ("a  b", "a b"), ("long" * 20, "long" * 21)])
def test_only_names_that_look_alike_go_by_their_numbers(alike):
    assert style.labels(["b", *alike, "c"], 1.0) == ["b", "class 2", "class 3", "c"]


def test_a_matrix_of_many_classes_labels_those_that_it_draws_by_their_numbers(monkeypatch):
    """Measuring a name takes about a millisecond, of a hundred thousand minutes."""
    measured, fit = [], style.fit
    monkeypatch.setattr(style, "fit", lambda text, *room: measured.append(text) or fit(text, *room))
    names = [f"one of many, {number}, that begin and end alike" for number in range(1_000)]
    names[700] = "short"
    true, given = np.array([700, 300, 4]), np.array([4, 700, 300])
    figure = figures.confusion_matrix((true, given, np.array([3, 2, 1])), names)
    assert {"short", "class 301", "class 5"} <= {text for text, _ in drawn_texts(figure)}
    assert len(measured) < 50


def test_a_weak_filter_shows_before_and_after_pruning_on_one_scale():
    before = maps(3) * np.array([1, 1e-3, 0])  # filter 2 is dead
    figure = pruning.maps_side_by_side("conv1", before, before[..., [1]] / 2, [1], "net")
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    weak, after = (image for image in shown if image.get_clim()[1] < 1e-3)
    assert weak.get_clim() == after.get_clim()
    levels = weak.norm(weak.get_array())
    assert (levels.min(), levels.max()) == pytest.approx((0, 1), abs=0.3)
    assert len(shown) == 4  # three before, one after


def test_numbers_of_filters_are_whole_on_the_axis():
    figure = pruning.filters_left([{"path": "conv1", "before": 16, "after": 4}])
    figure.draw_without_rendering()
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


def test_the_roofline_leads_from_the_slowest_layers_to_their_names():
    layers = [bounded("small", 2, 10), bounded("pool", 0.5, 4000), bounded("conv", 80, 2000)]
    texts = [text for text, _ in drawn_texts(figures.roofline(layers, PEAKS))]
    # conv 160 ns, pool 40 ns, small 0.1 ns of 200.1 ns
    assert {"1 conv", "2 pool", "3 small", "1", "2", "3"} <= set(texts)
    assert any("160 ns  80.0 %" in text for text in texts)
    assert any("least time of one image 200 ns at 1 TFLOP/s and 100 GB/s" in t for t in texts)


def test_layers_of_one_place_under_the_roof_share_a_label_and_the_rest_a_bar():
    layers = [bounded(f"block{i}", 30) for i in range(12)]
    texts = [text for text, _ in drawn_texts(figures.roofline(layers, PEAKS))]
    assert "1, 2, 3, 4, 5, 6, 7, 8, 9, 10" in texts
    assert "2 others" in texts
