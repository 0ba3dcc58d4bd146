import csv
import io
import itertools
import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import commands
import numpy as np
import pytest
from compared_runs import read, run_of
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from report_drawing import assert_clean, drawn_texts
from report_runs import make_run, profile

from rice_jax.errors import UserError
from rice_jax.report import comparison, style
from rice_jax.report.comparison import choice, tables
from rice_jax.report.comparison.figures import pictures
from rice_jax.report.comparison.page import page
from rice_jax.report.page import to_markdown
from rice_jax.report.placement import label_points


def test_a_run_that_was_only_profiled_has_its_place_too(tmp_path):
    bare = make_run(
        tmp_path / "b", "bare", history=None, evaluation=None, dead_filters=None, data=None
    )
    found = read(run_of(tmp_path / "a", "cnn", 900, 100), bare)
    assert [net.label for net in found] == ["cnn", "bare"]
    assert tables.cell(found[1], "augmented_accuracy") == "—"
    text = comparison.compare([str(bare)], str(tmp_path / "out"))
    assert text == ""
    assert "nothing to weigh" in (tmp_path / "out" / "report.md").read_text()


# What is written


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of three nets, one with two seeds, one pruned, one called <script>."""
    folder = tmp_path_factory.mktemp("compared")
    reported = {
        "params": 1000,
        "filters": 5,
        "flops": 100,
        "tflops_7500": 290.54,
        "augmented_test_accuracy": 0.9533,
        "val_accuracy": 0.9897,
        "macro": {"precision": 0.95, "recall": 0.95, "f1": 0.95},
    }
    erratum = {"model": "final", "field": "tflops_7500", "reported": 290.54, "correct": 209.54}
    studied = lambda: profile(1000, reported=reported, errata=[erratum | {"why": "times 7500"}])  # noqa: E731
    certificate = {"max_abs_logit_difference": 2e-7, "images": 30}
    pruned = {"request": {"parent": "cnn"}, "certificate": certificate}
    runs = [
        run_of(folder / "final_0", "final", 950, 1000, profile=studied()),
        run_of(folder / "final_1", "final", 960, 1000, profile=studied(), seed=1),
        run_of(folder / "lean", "cnn", 940, 50, prune=pruned),
        run_of(folder / "<script>alert(1)</script>", "<script>|net", 700, 10),
    ]
    out = folder / "out"
    comparison.compare([str(run) for run in runs], str(out), margin=0.02)
    return out


def test_figures_are_there_as_png_and_svg_with_and_without_the_final_net(compared):
    kinds = ("accuracy_f1", "flops_accuracy", "filters_accuracy", "parameters_accuracy",
             "latency_accuracy", "accuracy_per_tflop")  # fmt: skip
    for kind in kinds:
        for name in (kind, f"{kind}_without_final"):
            assert (compared / f"{name}.png").read_bytes().startswith(b"\x89PNG")
            ElementTree.fromstring((compared / f"{name}.svg").read_text())
    text = (compared / "report.md").read_text()
    assert set(re.findall(r"\]\(([^)]+)\)", text)) == {file.name for file in compared.glob("*.png")}


@pytest.mark.parametrize("tested", [True, False])
def test_figures_without_the_final_net_are_drawn_where_it_is_drawn_in_others(tested, tmp_path):
    final = run_of(tmp_path / "a", "final", 950, 1000)
    if not tested:
        (final.path / "evaluation.json").unlink()
    found = read(final, run_of(tmp_path / "b", "cnn", 900, 2000))
    names = {picture.name for picture in pictures(found, synthetic=False)}
    assert "accuracy_f1" in names
    assert ("accuracy_f1_without_final" in names) == tested


def test_csv_and_json_hold_the_same_figures(compared):
    rows = list(csv.DictReader(io.StringIO((compared / "comparison.csv").read_text())))
    content = json.loads((compared / "comparison.json").read_text())
    assert [row["net"] for row in rows] == ["final", "cnn, pruned", "<script>|net"]
    final = rows[0]
    assert float(final["augmented_accuracy"]) == pytest.approx(0.955)
    assert float(final["augmented_accuracy_std"]) == pytest.approx(math.sqrt(2 * 0.005**2))
    assert float(final["augmented_accuracy_study"]) == 0.9533
    assert float(final["tflops_7500"]) == pytest.approx(1000 * 7500 / 1e12)
    assert (final["tflops_7500_study"], final["tflops_7500_study_correct"]) == ("290.54", "209.54")
    assert rows[1]["augmented_accuracy_study"] == ""
    # 94 points for 50 x 7,500 FLOPs.
    assert float(rows[1]["accuracy_per_tflop"]) == pytest.approx(94 / (50 * 7500 / 1e12))
    for row, entry in zip(rows, content["nets"], strict=True):
        assert float(row["augmented_accuracy"]) == entry["augmented_accuracy"]
        assert (row["pareto_front"] == "True") == entry["pareto_front"]
    assert [run["seed"] for run in content["nets"][0]["runs"]] == [0, 1]
    assert content["recommendation"] == {
        "net": "cnn, pruned",
        "best": "final",
        "margin": 0.02,
        "within": ["final", "cnn, pruned"],
    }


def test_the_page_recommends_in_words_and_says_why(compared):
    text = (compared / "report.md").read_text()
    assert "**Take cnn, pruned.** It has the fewest FLOPs of the 2 nets within 2 points" in text
    assert "94.00 %, 1.50 points below final (95.50 %), at 50 FLOPs for one image" in text
    assert "20 times fewer" in text
    assert "| 0 points | final | 95.50 % ± 0.71 % | 1 k |" in text
    assert "290.54 (correct: 209.54)" in text
    assert "logits within 2e-07 on 30 images" in text


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.targets = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.targets += [value for name, value in attrs if name in ("src", "href", "srcset")]


def test_html_is_one_file_that_asks_nobody_for_anything(compared):
    text = (compared / "report.html").read_text()
    found = _Links()
    found.feed(text)
    assert len(found.targets) == 7  # six figures, each once, and an empty icon
    assert all(target.startswith("data:") for target in found.targets)
    assert "url(" not in text
    assert "@import" not in text
    assert not found.tags & {"script", "iframe", "object", "embed", "base", "form"}
    assert "default-src 'none'" in text
    assert "width=device-width" in text
    assert "&lt;script&gt;|net" in text


def test_html_and_markdown_tell_the_same(compared):
    body = re.sub(r"<[^>]+>", " ", (compared / "report.html").read_text().partition("<body>")[2])
    body = body.replace("\N{NO-BREAK SPACE}", " ")
    text = (compared / "report.md").read_text()
    for number in re.findall(r"\d+\.\d+ %", text):
        assert number in body


@pytest.mark.parametrize(("some", "told"), [(None, 240), (0, 240), (16, 16), (999, 240)])
def test_how_many_images_a_run_learned_from_is_told(tmp_path, some, told):
    train = {} if some is None else {"images": some}
    nets = read(run_of(tmp_path / "run", "cnn", 900, 100, train=train))
    text = to_markdown(page(nets, choice.pareto_front(nets), None, []))
    assert [cells[3].strip() for cells in table_of(text, "trained on")] == [str(told)]


def table_of(text, heading):
    """Cells of each row of the table with such a heading."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("|") and heading in line)
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [row.strip("|").split("|") for row in rows]


def test_nets_that_the_study_does_not_report_are_said(tmp_path):
    def text(*runs):
        found = read(*runs)
        front, chosen = choice.pareto_front(found), choice.choose(found, 0.01)
        return to_markdown(page(found, front, chosen, []))

    studied = profile(100, reported={"params": 1000, "flops": 100})
    reported = run_of(tmp_path / "a", "final", 950, 100, profile=studied)
    assert "No figure of the study's" not in text(reported)
    other = run_of(tmp_path / "b", "cnn", 900, 90)
    assert "No figure of the study's stands beside cnn: it reports" in text(reported, other)


# Figures


@pytest.mark.parametrize("number", [1, 14])
def test_texts_of_the_figures_do_not_overlap(tmp_path, number):
    runs = [
        run_of(tmp_path / f"{i}", f"net_{i}" + "_of_a_long_name" * (i % 2), 900 + i % 4,
               10 ** (6 + i % 3) + i, 0.001 * (1 + i % 5), params=10 ** (4 + i % 2))
        for i in range(number)
    ]  # fmt: skip
    for picture in pictures(read(*runs), synthetic=True):
        assert_clean(picture.figure)


def test_log_axes_say_so(tmp_path):
    runs = [run_of(tmp_path / name, name, 900, 10**power) for name, power in (("a", 6), ("b", 9))]
    for picture in pictures(read(*runs), synthetic=False):
        logarithmic = picture.figure.axes[0].get_xscale() == "log"
        assert logarithmic == (picture.name != "accuracy_f1")
        words = " ".join(text for text, _ in drawn_texts(picture.figure))
        assert ("log axis" in words) == logarithmic


@settings(max_examples=8)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9))
def test_labels_cover_neither_each_other_nor_points(points):
    with style.context():
        figure = Figure(figsize=(5, 4))
        axes = figure.subplots()
        axes.set(xlim=(-0.2, 1.2), ylim=(-0.2, 1.2))
        labels = [f"label {i}" for i in range(len(points))]
        label_points(axes, points, labels)
    texts = dict(drawn_texts(figure))
    assert_clean(figure)
    for x, y in axes.transData.transform(points):
        for label in labels:
            left, bottom, right, top = texts[label]
            assert not (left < x < right and bottom < y < top)


def test_no_line_to_a_label_runs_over_another_point():
    with style.context():
        axes = Figure(figsize=(5, 4)).subplots()
        axes.set(xlim=(-0.2, 1.2), ylim=(-0.2, 1.2))
        lower, upper = (1.1, 0.5), (1.1, 0.56)
        walls = [[(-0.2, 0.5), lower], [lower, (1.1, 0.1)]]
        label_points(axes, [lower, upper], ["lower", "upper"], lines=walls)
    [start, end] = next(
        line.get_xydata() for line in axes.lines if np.allclose(line.get_xydata()[0], lower)
    )
    along = np.linspace(start, end, 100)
    pixels = axes.transData.transform(along) - axes.transData.transform(upper)
    assert np.linalg.norm(pixels, axis=1).min() > 3


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Nets as they came out once, with lines up to the study's figures that leave little room."""
    runs = []
    for name, (accuracy, theirs, flops, params) in CROWDED.items():
        content = profile(flops, reported={"augmented_test_accuracy": theirs})
        folder = tmp_path_factory.mktemp("crowded") / name
        runs.append(run_of(folder, name, accuracy, 0, params=params, profile=content))
    return {picture.name: picture.figure for picture in pictures(read(*runs), synthetic=False)}


CROWDED = {  # augmented accuracy, the study's, FLOPs, parameters
    "vgg_custom": (641, 0.9909, 1_203_943_966, 144_853),
    "cnn": (480, 0.7092, 1_042_859_422, 12_939_077),
    "final": (559, 0.9533, 167_860_766, 17_301),
    "googlenet_light": (577, 0.9319, 280_058_490, 580_905),
    "cnn_light": (517, 0.7456, 7_551_694, 51_669),
    "googlenet": (200, 0.8675, 3_179_339_598, 5_978_677),
}


@pytest.mark.parametrize(("name", "across"), [("flops_accuracy", 2), ("parameters_accuracy", 3)])
def test_labels_of_crowded_points_are_told_apart(crowded, name, across):
    """No label is twice as near to another point; no line to a label crosses another label."""
    axes = crowded[name].axes[0]
    boxes = {
        label: np.reshape(box, (2, 2))
        for label, box in drawn_texts(crowded[name])
        if label in CROWDED
    }
    points = {
        label: axes.transData.transform((row[across], row[0] / 10))
        for label, row in CROWDED.items()
    }
    for label, box in boxes.items():
        distances = {net: np.linalg.norm(p - np.clip(p, *box)) for net, p in points.items()}
        assert distances[label] <= 2 * min(distances.values()) + 1
    leaders = [line.get_xydata() for line in axes.lines if line.get_linewidth() == 0.6]
    for start, end in map(axes.transData.transform, leaders):
        for along in np.linspace(start, end, 50)[:-3]:
            for low, high in boxes.values():
                assert not ((low < along) & (along < high)).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("report.md", "has a report.md that no comparison made"),
        ("report.html", "has a report.html that no comparison made"),
        ("comparison.csv", "has a comparison.csv that no comparison made"),
        ("accuracy_per_tflop.png", "has a accuracy_per_tflop.png that no comparison made"),
        ("config.json", "is a run's folder"),
    ],
)
def test_what_no_comparison_made_is_not_written_over(tmp_path, name, message):
    run = run_of(tmp_path / "run", "cnn", 900, 100)
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("theirs")
    with pytest.raises(UserError, match=message):
        comparison.compare([str(run)], str(out))
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "theirs")]


# The command


def test_the_command_writes_the_comparison(tmp_path):
    run = run_of(tmp_path / "run", "cnn", 900, 100)
    done = commands.run("compare", f"--workdirs={run}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Take cnn.\n")
    assert (tmp_path / "out" / "report.html").exists()


def test_a_mistake_on_the_command_line_is_one_line(tmp_path):
    nowhere = tmp_path / "nowhere"
    done = commands.run("compare", f"--workdirs={nowhere}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "config.json is missing" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workdirs": []}, "no run to compare"),
        ({"workdirs": ["run", "run/../run"]}, "twice"),
        ({"out": "run"}, "is one of the runs"),
        ({"margin": 1.5}, r"--margin=1\.5"),
        ({"margin": -0.1}, r"--margin=-0\.1"),
        ({"workdirs": ["damaged"]}, r"evaluation\.json is damaged"),
        ({"workdirs": ["broken"]}, "cannot read"),
    ],
)
def test_mistakes_are_named_and_leave_nothing_behind(tmp_path, arguments, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "run", "cnn", 900, 100)
    make_run(tmp_path / "damaged", evaluation={"augmented": {"accuracy": 1}})
    make_run(tmp_path / "broken").write_text("evaluation.json", "{")
    given = {"workdirs": ["run"], "out": "out"} | arguments
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(UserError, match=message):
        comparison.compare(given.pop("workdirs"), given.pop("out"), **given)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
