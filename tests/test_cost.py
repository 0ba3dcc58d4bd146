"""What grows with size is measured point by point, and the slopes say how fast."""

import json
import math
from pathlib import Path

import commands
import data_files
import pytest

from rice_jax.report import figures

COST = Path(__file__).parent.parent / "scripts" / "cost.py"


@pytest.fixture(autouse=True)
def _as_a_program(monkeypatch):
    """Its neighbours are found, as where Python starts with it."""
    monkeypatch.syspath_prepend(COST.parent)


@pytest.fixture
def slopes(_as_a_program):
    """The module that tells them."""
    from contenders import slopes

    return slopes


def point(size, seconds, memory=400.0, taken=None, compiled=1.0):
    costs = {"seconds": seconds, "compile_seconds": compiled, "memory_mb": memory}
    return {
        "size": size,
        "input": size if taken is None else taken,
        "tasks": {"training": costs | {"turns": [seconds]}},
    }


def axis(module, points, size_name="batch", input_name=None):
    return {
        "what": "final at 64 x 64",
        "size_name": size_name,
        "input_name": input_name or size_name,
        "points": points,
        "slopes": module.slopes(points),
    }


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_slope_of_a_power_is_its_exponent(slopes, power):
    sizes = [1, 3, 20, 500]
    assert slopes.slope(sizes, [7 * size**power for size in sizes]) == pytest.approx(power)


def test_a_slope_is_of_least_squares(slopes):
    # log10: (0, 0), (1, 0), (2, 3): means 1 and 1, slope (1 * 1 + 0 + 1 * 2) / 2.
    assert slopes.slope([1, 10, 100], [1, 1, 1000]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("sizes", "costs"), [([4], [2.0]), ([4, 4], [2.0, 3.0]), ([1, 2], [0.0, 3.0])]
)
def test_there_is_no_slope_of_a_single_size_or_of_nothing(slopes, sizes, costs):
    assert slopes.slope(sizes, costs) is None


def test_the_upper_half_has_the_middle_and_two_at_least(slopes):
    assert slopes.upper([1, 2, 3, 4, 5]) == [3, 4, 5]
    assert slopes.upper([1, 2, 3, 4]) == [3, 4]
    assert slopes.upper([1, 2, 3]) == [2, 3]
    assert slopes.upper([1, 2]) == [1, 2]
    assert slopes.upper([1]) == [1]


def test_what_is_added_has_nothing_of_what_each_process_has(slopes):
    sizes = [1, 2, 4, 8]
    assert slopes.added(sizes, [400 + 100 * size for size in sizes]) == pytest.approx(1)
    # Added by 4 and 8: 100 * 15 and 100 * 63 over 3 and 7.
    squares = slopes.added(sizes, [400 + 100 * size**2 for size in sizes])
    assert squares == pytest.approx(math.log(63 / 15) / math.log(7 / 3))
    assert slopes.added(sizes, [400, 401, 399, 405]) is None


def test_an_axis_is_told_over_its_size_and_its_input(slopes):
    # Pixels, the square of the side: seconds as these are twice as steep over the side.
    points = [point(side, side**2 / 1000, taken=side**2) for side in (32, 64, 128, 256)]
    told = slopes.slopes(points)["training"]
    assert told["seconds"] == pytest.approx(
        {"size": 2, "size_upper": 2, "input_upper": 1, "added": 1}
    )
    assert told["memory_mb"]["size"] == pytest.approx(0)
    # The smallest are overhead alone.
    points = [point(size, max(1.0, size / 100)) for size in (1, 10, 100, 1000)]
    seconds = slopes.slopes(points)["training"]["seconds"]
    assert seconds["size_upper"] == pytest.approx(1)
    assert seconds["size"] == pytest.approx(0.3)  # log10: (-1.5, 0), (-.5, 0), (.5, 0), (1.5, 1)


def test_what_grows_faster_than_its_input_is_named(slopes):
    even = [point(size, float(size)) for size in (1, 2, 4, 8)]
    steep = [point(size, 1.0, 400 + 10 * size**2) for size in (1, 2, 4, 8)]
    said = slopes.verdict({"batch": axis(slopes, even)})
    assert said.startswith("Nothing grows faster than its input: the steepest slope is 1.00 (batch")
    said = slopes.verdict({"batch": axis(slopes, even), "classes": axis(slopes, steep)})
    assert said.startswith("Faster than its input")
    assert "(classes, training, memory, " in said
    assert "batch, training" not in said
    assert "no slope" in slopes.verdict({"batch": axis(slopes, even[:1])})


def test_the_table_has_a_row_for_each_point_and_each_kind_of_slope(slopes):
    batches = [point(size, size / 1000, compiled=1.5) for size in (64, 128)]
    sides = [point(side, side**2 / 1e6, 512.4, taken=side**2) for side in (100, 1000)]
    text = slopes.table(
        {"batch": axis(slopes, batches), "side": axis(slopes, sides, "side", "pixels")}
    )
    assert "| batch | training | compiled in | peak MB |" in text
    assert "| 128 | 128 ms | 1.5 s | 400 |" in text
    assert "| slope over batch, upper half | 1.00 | 0.00 | 0.00 |" in text
    assert "| 1,000 | 1 M | 1 s | 1 s | 512 |" in text
    assert "| slope over side |  | 2.00 | 0.00 | 0.00 |" in text
    assert "| slope over pixels, upper half |  | 1.00 | 0.00 | 0.00 |" in text
    alone = slopes.table({"batch": axis(slopes, batches[:1])})
    assert "| slope over batch | — | — | — |" in alone


def test_the_plot_has_a_row_for_each_axis_and_says_the_slopes(slopes):
    sides = [point(side, side**2 / 1e6, taken=side**2) for side in (32, 64, 128, 256)]
    batches = [point(1, 0.5)]
    results = {
        "side": axis(slopes, sides, "side", "pixels"),
        "batch": axis(slopes, batches),
    }
    figure = figures.growth(results)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == [
        "side: seconds\nslope training\u00a01.00",
        "side: peak MB\nslope training\u00a00.00",
        "batch: seconds\nslope training\u00a0—",
        "batch: peak MB\nslope training\u00a0—",
    ]
    marked, guide = figure.axes[0].lines[:2]
    assert list(marked.get_xdata()) == [32, 64, 128, 256]
    assert list(guide.get_ydata()) == pytest.approx(list(marked.get_ydata()))  # as its input
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    assert figures.png(figure)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--axes=batch,depth"], "error: --axes: there is no depth; there are images, classes, "),
        (["--images=nowhere"], "error: --images=nowhere: give a folder of class folders"),
        (["--points=0"], "FATAL Flags parsing error:"),
    ],
)
def test_what_it_does_not_know_is_named(tmp_path, arguments, line):
    done = commands.run(COST, *arguments, f"--out={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert not (tmp_path / "out").exists()
    if line.startswith("error"):
        assert done.stderr.count("\n") == 1


def test_the_axis_of_images_is_left_out_by_name_without_images(tmp_path):
    done = commands.run(COST, "--axes=images", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "images: left out, it takes --images=FOLDER" in done.stdout


@pytest.mark.thorough
def test_points_are_measured_and_written(tmp_path):
    arguments = ("--points=2", "--rounds=2", "--seconds=0.01", f"--out={tmp_path}")
    done = commands.run(COST, "--axes=classes,filters,devices", *arguments)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "cost.json").read_text())
    assert {name: [p["size"] for p in result["points"]] for name, result in results.items()} == {
        "classes": [2, 10],
        "filters": [1, 2],
        "devices": [1, 2],
    }
    assert set(results["classes"]["slopes"]) == {"training", "evaluation"}
    for result in results.values():
        for each in result["points"]:
            for costs in each["tasks"].values():
                assert min(costs[name] for name in slopes_of(result)) > 0
                assert len(costs["turns"]) == 2
    # Twice the filters: between twice and four times the FLOPs.
    less, more = (each["input"] for each in results["filters"]["points"])
    assert 2 * less < more < 4 * less
    assert "## filters" in (tmp_path / "cost.md").read_text()
    assert (tmp_path / "cost.png").stat().st_size > 0


def slopes_of(result):
    return next(iter(result["slopes"].values()))


@pytest.mark.thorough
def test_images_are_prepared_decoded_and_learnt_from(tmp_path):
    folder = data_files.write_folder(tmp_path / "images", data_files.pictures())
    out = tmp_path / "out"
    done = commands.run(COST, "--axes=images", f"--images={folder}", f"--out={out}", "--rounds=2")
    assert done.returncode == 0, done.stderr
    (each,) = json.loads((out / "cost.json").read_text())["images"]["points"]
    assert each["size"] == 50
    assert list(each["tasks"]) == ["preparing", "decoding", "epoch"]
    assert [len(costs["turns"]) for costs in each["tasks"].values()] == [1, 1, 2]
    assert each["tasks"]["epoch"]["compile_seconds"] > 0
    assert {path.name for path in out.iterdir()} == {"cost.json", "cost.md", "cost.png"}
