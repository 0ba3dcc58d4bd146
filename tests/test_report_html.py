"""report.html: one file that tells what report.md does, and a viewer of maps in it."""

import base64
import io
import math
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_runs import DEAD, MATRIX, history_rows, layer, make_run, profile, result

from rice_jax import show
from rice_jax.errors import UserError
from rice_jax.records import LayerFilters, ProfileFile, Result, made, write
from rice_jax.report import fates, figures, gallery, record, scales, writing
from rice_jax.report.html import curves, rendering, tables
from rice_jax.report.html.run_page import run_page

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '" onmouseover="window.hacked = 1" x="',
    "<img src=http://127.0.0.1:9/x onerror='window.hacked = 1'>",
    "[a](javascript:alert(1)) ![b](http://127.0.0.1:9/y) {{ 7 * 7 }} {% raw %}",
)
CLASSES = ("Arborio", "Basmati")


def seen(height=6, width=4, filters=4, seed=0):
    return gallery.Seen.of(np.random.default_rng(seed).random((height, width, filters)) - 0.2)


def gallery_of(classes=CLASSES, paths=("conv1", "conv2"), filters=4, **weights):
    """Two images of each class, the second of each named wrongly by the net."""
    specimens = [
        gallery.Specimen(
            np.full((8, 8, 3), 0.5),
            {path: seen(filters=filters, seed=number) for path in paths},
            [0.75 if (label + wrong) % len(classes) == i else 0.25 for i in range(len(classes))],
            name,
            ("clean", "augmented")[wrong],
        )
        for label, name in enumerate(classes)
        for wrong, number in enumerate((label, label + 10))
    ]
    return gallery.gallery(specimens, classes, weights)


def page_of(run, doing=""):
    found = record.load(run)
    return run_page(run, found, record.summarize(found), doing)


def run_with_maps(folder, content=None, **parts):
    run = make_run(folder, **parts)
    write(run, content or gallery_of())
    for inspected in (parts.get("dead_filters") or DEAD)["layers"]:
        run.write_bytes(figures.feature_maps_file(inspected["path"]), b"")
    return run


class _Found(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.targets = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.targets += [value for name, value in attrs if name in ("src", "href", "srcset")]


@pytest.mark.parametrize("classes", [CLASSES, HOSTILE])
def test_the_page_is_one_file_that_asks_nobody_whatever_names_it_is_given(tmp_path, classes):
    content = gallery_of(classes, paths=classes[:2])
    names = classes if classes is HOSTILE else ("conv1", "conv2")
    matrix = np.eye(len(classes), dtype=int).tolist()
    run = run_with_maps(
        tmp_path,
        content,
        name=names[0],
        classes=classes,
        evaluation={"clean": result(matrix, classes)},
        profile=profile(layers=[layer(names[0], 10, 4, names[1])]),
        dead_filters={"layers": [{**DEAD["layers"][0], "path": names[0]}], "images": 3},
    )
    text = page_of(run, doing=names[1])
    found = _Found(text)
    assert found.targets
    assert all(target.startswith("data:") for target in found.targets)
    assert not found.tags & {"iframe", "object", "embed", "base", "form", "a"}
    assert not any(name.startswith("on") for name in found.attributes)
    assert text.count("<script") == 3  # two of code, and data
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "{{" not in text.replace("{{ 7 * 7 }}", "")


def test_names_on_the_live_page_are_text():
    found = _Found(show.page(HOSTILE[0], HOSTILE))
    assert not any(name.startswith("on") for name in found.attributes)
    assert found.targets == ["data:,"]
    assert not found.tags & {"form", "iframe", "a"}


def test_it_tells_what_report_md_tells(tmp_path):
    run = run_with_maps(tmp_path)
    writing.write(run)
    text = (run.path / "report.md").read_text()
    body = (run.path / "report.html").read_text().partition("<body>")[2]
    plain = re.sub(r"<[^>]+>", " ", body).replace("\N{NO-BREAK SPACE}", " ")
    for heading in re.findall(r"^## (.*)$", text, re.MULTILINE):
        assert heading in plain
    for number in re.findall(r"\d+\.\d+ %", text):
        assert number in plain


def test_it_loads_itself_again_only_while_the_run_goes_on(tmp_path):
    run = make_run(tmp_path, evaluation=None, profile=None, dead_filters=None)
    assert 'http-equiv="refresh"' in page_of(run, doing="train")
    assert "Under way: train" in page_of(run, doing="train")
    assert 'http-equiv="refresh"' not in page_of(run)
    writing.watch(run, "train")
    assert "Under way: train" in (run.path / "report.html").read_text()
    assert not run.has("report.md")


def test_what_a_killed_run_left_tells_of_when_it_is(tmp_path):
    """A killed run cannot say that it is no longer under way."""
    run = make_run(tmp_path, evaluation=None, profile=None, dead_filters=None)
    before = int(time.time())
    writing.watch(run, "train")
    after = time.time()
    told = re.search(
        "Under way: train, as of ([0-9: -]+)[.]", (run.path / "report.html").read_text()
    )
    assert before <= time.mktime(time.strptime(told[1], "%Y-%m-%d %H:%M:%S")) <= after


def test_pictures_beyond_the_bound_are_named_instead(tmp_path):
    run = make_run(tmp_path)
    run.write_bytes("classes.png", b"\x89PNG" + bytes(4 << 20))
    text = page_of(run)
    assert "<code>classes.png</code> is beside this page" in text
    assert len(text) < 1 << 20


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"layers": [{}]}', '{"layers": 3}', '{"layers": [{"path": 3}]}']
)
def test_a_damaged_gallery_is_named(tmp_path, damage):
    run = run_with_maps(tmp_path)
    run.write_text("feature_maps.json", damage)
    with pytest.raises(UserError, match=r"feature_maps\.json"):
        page_of(run)


# Tables and curves


def test_hits_and_errors_of_a_matrix_have_their_own_hue_and_the_title_its_figures():
    html = tables.matrix(made(Result, result()), "clean")
    assert "Clean test images: 83.33 % of 30 right (n = 30)" in html
    cells = re.findall(r'<td class="(hit|miss)[^>]*title="[^"]*?: (\d+),[^>]*>(\d+)<', html)
    hits = [str(row[i]) for i, row in enumerate(MATRIX)]
    misses = [str(x) for i, row in enumerate(MATRIX) for j, x in enumerate(row) if x and i != j]
    assert [count for kind, _, count in cells if kind == "hit"] == hits
    assert [count for kind, _, count in cells if kind == "miss"] == misses


def test_a_bar_is_as_long_as_its_layers_share_of_the_costliest():
    costs = profile(layers=[layer("a", 999, 4), layer("b", 249)])
    html = tables.layers(made(ProfileFile, costs))
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", html)]
    assert widths[1] / widths[0] == pytest.approx(0.25)


def test_the_fate_of_each_filter():
    found = LayerFilters(
        path="conv",
        filters=7,
        dead_clean=[0, 1, 2],
        dead_augmented=[0, 1, 3],
        proven_dead=[0],
        zero_fraction=[1, 1, 1, 0.999, 0.99, 0.98, None],
    )
    assert fates.fates(found) == [
        *("proven", "dead", "clean", "augmented", "nearly", "alive", "alive")
    ]


def test_curves_break_where_a_number_is_missing_and_show_the_rate_where_it_changes():
    rows = history_rows(9)
    steady = [replace(row, learning_rate=0.1) for row in rows]
    steady[4] = replace(steady[4], val_loss=math.nan)
    html = curves.curves(steady)
    assert "learning rate" not in html
    assert html.count('<polyline class="validation"') == 3  # two of loss, one of accuracy
    assert "best epoch: 9 (lowest validation loss)" in html
    assert "learning rate" in curves.curves(rows)
    assert curves.curves([]) == ""


@given(st.floats(1e-6, 1e6), st.floats(1.0001, 1e6))
def test_ticks_stand_on_the_axis(low, ratio):
    for found in (scales.ticks(low, low * ratio), scales.log_ticks(low, low * ratio)):
        assert all(low * (1 - 1e-6) <= tick <= low * ratio * (1 + 1e-6) for tick in found)


@given(st.lists(st.floats(0, 100), max_size=5))
def test_percent_axes_end_at_0_and_100(values):
    low, high = scales.percent_limits(values)
    assert 0 <= low < high <= 100
    assert all(low <= value <= high for value in values)


# The gallery


def sprites(content, path):
    found = next(one for one in content.layers if one.path == path)
    return found, [Image.open(io.BytesIO(base64.b64decode(text))) for text in found.sprites]


def test_a_sprite_holds_each_map_on_its_own_scale():
    maps = np.zeros((2, 3, 3))
    maps[0, 1], maps[1, 2, 0] = (4.0, 0.01, 0.0), 1.0
    one = gallery.Specimen(np.zeros((4, 4, 3)), {"c": gallery.Seen.of(maps)}, [1.0])
    found, (picture,) = sprites(gallery.gallery([one], ["a"], {}), "c")
    assert found.columns == 2
    levels = np.asarray(picture)  # places in the palette of 16
    assert levels.shape == (2 * 2, 2 * 3)
    assert levels[0, 1] == levels[0, 3 + 1] == 15  # the largest of each, however weak
    assert levels[1, 2] == round(15 * (1 / 4) ** 0.5)
    assert levels[2:].max() == 0
    assert found.ranges == [[[0, 4], [0, 0.01], [0, 0]]]


def test_of_many_filters_the_strongest_are_kept_and_one_pixel_of_a_large_map_shows():
    maps = np.zeros((200, 100, 80))
    maps[150, 30] = np.arange(80)
    one = gallery.Specimen(np.zeros((4, 4, 3)), {"c": gallery.Seen.of(maps)}, [1.0])
    found, (picture,) = sprites(gallery.gallery([one], ["a"], {}), "c")
    assert found.shown == list(range(16, 80))
    assert found.drawn == (50, 25)  # blocks of 4 x 4
    assert (found.size, found.columns) == ((200, 100), 8)
    bright = np.argwhere(np.asarray(picture) == 15)
    expected = [(150 // 4 + 50 * (i // 8), 30 // 4 + 25 * (i % 8)) for i in range(64)]
    assert sorted(map(tuple, bright.tolist())) == sorted(expected)


def test_a_kernel_keeps_the_inputs_that_weigh_most():
    weights = np.zeros((1, 2, 40, 3))
    weights[0, :, 7, 1], weights[0, :, 30, 1], weights[0, 0, 3, 1] = (0.5, -1.0), 0.25, 0.125
    found = gallery.kernel(weights, [1], inputs=2)
    assert found is not None
    assert (found.size, found.inputs, found.of) == ((1, 2), 40, [[7, 30]])
    values = np.frombuffer(base64.b64decode(found.values), np.int8)
    np.testing.assert_allclose(values * found.scale[0] / 127, [0.5, -1, 0.25, 0.25], atol=0.004)
    assert gallery.kernel(None, [1]) is None
    assert gallery.kernel(weights[0], [1]) is None


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 90)),
        min_size=1, max_size=4,
    ),
    st.integers(1, 4),
    st.integers(20_000, 200_000),
)  # fmt: skip
def test_sprites_stay_within_their_bound_whatever_the_maps(shapes, images, most):
    noise = np.random.default_rng(0)
    specimens = [
        gallery.Specimen(
            np.zeros((2, 2, 3)),
            {str(i): gallery.Seen.of(noise.random(shape)) for i, shape in enumerate(shapes)},
            [1.0],
        )
        for _ in range(images)
    ]
    content = gallery.gallery(specimens, ["a"], {}, most)
    assert sum(len(text) for one in content.layers for text in one.sprites) <= most


def test_data_in_a_page_ends_no_element():
    text = rendering.embedded({"a": "</script><!-- \u2028 &amp;"})
    assert not set("<>&\u2028") & set(text)


# In a browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    kernel = np.zeros((3, 3, 3, 4))
    kernel[1, 1, 0] = 1
    content = gallery_of(**{"conv1/kernel": kernel})
    run = run_with_maps(tmp_path_factory.mktemp("run"), content)
    writing.write(run)
    return f"file://{run.path}/report.html"


TEXT = "document.getElementById('{}')?.innerText"


@pytest.mark.parametrize("width", browser.WIDTHS)
def test_an_image_a_layer_and_a_filter_are_chosen_by_clicks(tab, address, width):
    tab.open(address, width)
    drawn = "document.querySelectorAll('#maps canvas[data-drawn]').length === 4"
    tab.until(drawn)
    before = tab.value("document.querySelector('#maps canvas').toDataURL()")
    tab.click("#images button:nth-child(4)")
    tab.until(drawn)
    assert "Basmati, augmented. The net says Arborio 75.0" in tab.value(TEXT.format("answer"))
    assert tab.value("document.querySelector('#maps canvas').toDataURL()") != before
    tab.click("#maps button:nth-child(3)")
    told = tab.value(TEXT.format("filter"))
    assert "Filter 2 of conv1" in told
    assert "100.0\u00a0% of its values on all clean test images" in told
    assert "proven dead for every image" in told
    # conv1 has 1,001 FLOPs in the study's convention and 7 parameters for its 4 filters.
    assert "250 FLOPs (study) and 1.75 parameters" in told
    assert "--filters=conv1:2" in told
    assert "Its kernel (strongest weight ±1" in told
    assert tab.value("document.querySelectorAll('#filter .few')[0].children.length") == 3
    tab.click("#layer-names button:nth-child(2)")
    assert "Filter 0 of conv2" in tab.value(TEXT.format("filter"))
    assert "kernel" not in tab.value(TEXT.format("filter"))
    assert tab.value("location.hash") == "#image=3&layer=1&place=0"
    tab("Page.reload")
    tab.until(f"{TEXT.format('answer')}?.includes('conv2: 4 maps')")
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    asked = {url.partition("#")[0] for url in tab.requests if not url.startswith("data:")}
    assert asked == {address}
    assert not tab.complaints


def test_small_numbers_are_neither_nothing_nor_all(tab, tmp_path):
    """Of maps that are weak, and of an answer that is nearly sure."""
    maps = np.array([[[1.24e-5, -3e-4, 0.0123, 2.5e9]]]) * np.array([[[1]], [[0.5]]])
    specimens = [
        gallery.Specimen(np.zeros((8, 8, 3)), {"c": gallery.Seen.of(maps)}, answer, "a")
        for answer in ([0.99996, 0.00004], [math.nan, math.nan])
    ]
    content = gallery.gallery(specimens, ("a", "b"), {})
    zeros = {"path": "c", "filters": 4, "dead_clean": [], "dead_augmented": [], "proven_dead": []}
    found = {"layers": [zeros | {"zero_fraction": [0.9999, 0, 0, 1]}], "images": 3}
    writing.write(run := run_with_maps(tmp_path, content, dead_filters=found))
    tab.open(f"file://{run.path}/report.html")
    told = tab.value(TEXT.format("maps"))
    ends = ("6.2e-6 to 1.24e-5", "-0.0003 to -0.00015", "0.00615 to 0.0123", "1.25e9 to 2.5e9")
    assert all(each in told for each in ends)
    assert "> 99.9\u00a0% of its values on all clean" in tab.value(TEXT.format("filter"))
    said = tab.value(TEXT.format("answer"))
    assert "The net says a > 99.9\u00a0%, b < 0.1\u00a0%" in said
    tab.click("#images button:nth-child(2)")  # whose answer is no number
    assert "The net says" not in tab.value(TEXT.format("answer"))
    assert not tab.complaints


@pytest.mark.parametrize(("filters", "said"), [(1, "c: 1 map of 2 x 3."), (2, "c: 2 maps of 2")])
@pytest.mark.one_in(2)
def test_a_single_map_is_told_as_one(tab, tmp_path, filters, said):
    seen = {"c": gallery.Seen.of(np.ones((2, 3, filters)))}
    image = gallery.Specimen(np.zeros((8, 8, 3)), seen, [0.9, 0.1], "a")
    writing.write(run := run_with_maps(tmp_path, gallery.gallery([image], ("a", "b"), {})))
    tab.open(f"file://{run.path}/report.html")
    assert said in tab.value(TEXT.format("answer"))


def test_hostile_names_run_nothing_and_are_shown_as_they_are(tab, tmp_path):
    run = run_with_maps(tmp_path, gallery_of(HOSTILE, HOSTILE[:2]), name=HOSTILE[0])
    writing.write(run)
    tab.open(f"file://{run.path}/report.html")
    for number in range(1, 9, 2):
        tab.click(f"#images button:nth-child({number})")
        assert HOSTILE[number // 2] in tab.value(TEXT.format("answer"))
    tab.click("#layer-names button:nth-child(2)")
    assert tab.value("document.querySelector('h1').innerText") == HOSTILE[0]
    assert tab.value("window.hacked") is None
    assert not [url for url in tab.requests if url.startswith("http")]
