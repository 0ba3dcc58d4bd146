"""Exported files beside runs: one table, one axis of bit operations."""

import csv
import io
import json
import os

import compared_runs
import pytest
from report_runs import HISTORY, PRUNED, profile, scored

from rice_jax.errors import UserError
from rice_jax.report import comparison
from rice_jax.report.comparison import compared, figures
from rice_jax.report.comparison.cautions import cautions, incomparable
from rice_jax.report.comparison.page import recommendation

pytestmark = pytest.mark.usefixtures("drawn_small")


def file_of(folder, precision, accuracy, bit_operations, **changes):
    """An exported file of the net 'final', by what stands beside it."""
    path = folder / f"{precision}.tflite"
    told = {
        "net": "final",
        "precision": precision,
        "seed": 0,
        "params": 1000,
        "flops": {"formula": 2000, "study": 2001, "xla": 2002},
        "flops_complete": True,
        "bit_operations": bit_operations,
        "bytes": 4321,
        "latency_seconds": {"rice_jax": {"median": 0.5}, "LiteRT": {"median": 0.003}},
        "evaluation": {"clean": scored(990), "augmented": scored(accuracy), "path": "test split"},
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(told | changes))
    return str(path)


def test_files_stand_beside_runs(tmp_path):
    run = compared_runs.run_of(tmp_path / "run", "final", 950, 2001)
    files = [file_of(tmp_path, "float32", 950, 1_024_000), file_of(tmp_path, "int8", 940, 64_000)]
    comparison.compare([str(run)], str(tmp_path / "out"), files=files)
    rows = {
        row["net"]: row
        for row in csv.DictReader(io.StringIO((tmp_path / "out/comparison.csv").read_text()))
    }
    assert set(rows) == {"final", "final, float32 .tflite", "final, int8 .tflite"}
    small = rows["final, int8 .tflite"]
    assert float(small["bit_operations"]) == 64_000
    assert float(small["bytes"]) == 4321
    assert float(small["augmented_accuracy"]) == 0.94
    assert float(small["latency_seconds"]) == 0.003
    page = (tmp_path / "out" / "report.md").read_text()
    assert "| 64,000 | 4,321 |" in page
    assert "bits_accuracy.png" in page
    assert (tmp_path / "out" / "bits_accuracy.png").stat().st_size


def test_bits_of_one_precision_are_no_axis(tmp_path):
    files = [file_of(tmp_path, "int8", 940, 64_000)]
    drawn = figures.pictures(compared.read([], files), synthetic=False)
    assert "bits_accuracy" not in [picture.name for picture in drawn]


def test_a_file_that_was_not_evaluated_has_its_costs(tmp_path):
    path = file_of(tmp_path, "int8", 940, 64_000, evaluation=None, latency_seconds=None)
    (net,) = compared.read([], [path])
    assert net.mean("bit_operations") == 64_000
    assert net.mean("augmented_accuracy") is net.mean("latency_seconds") is None


@pytest.mark.parametrize(
    ("images", "given"),
    [
        (None, ""),  # of an older version, or what the command finds by itself
        ("", ""),
        ("sample", " --config.data.path=sample"),
        ("my leaves/it's", """ '--config.data.path=my leaves/it'"'"'s'"""),
    ],
)
def test_a_file_is_evaluated_on_its_runs_images_by_the_command_that_is_told(
    images, given, tmp_path, capsys
):
    path = file_of(tmp_path, "int8", 940, 64_000, evaluation=None, images=images)
    comparison.compare([], str(tmp_path / "out"), files=[path])
    told = f"rice-jax evaluate --artifact={path}{given}"
    assert f"it lacks evaluation: {told}\n" in capsys.readouterr().err
    assert f"lacks evaluation: `{told}`" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    "changes", [{"params": "many"}, {"bytes": [1]}, {"seed": 0, "evaluation": {"clean": 3}}]
)
def test_damage_is_told(changes, tmp_path):
    path = file_of(tmp_path, "int8", 940, 64_000, **changes)
    with pytest.raises(UserError, match=r"int8\.tflite\.json is damaged: Expected"):
        compared.read([], [path])


def test_a_file_without_its_json_or_given_twice_is_told(tmp_path):
    path = file_of(tmp_path, "int8", 940, 64_000)
    (tmp_path / "link").symlink_to(tmp_path)
    linked = str(tmp_path / "link" / "int8.tflite")
    for again in (path, os.path.relpath(path), linked):
        with pytest.raises(UserError, match="given twice"):
            compared.read([], [path, again])
    with pytest.raises(UserError, match=r"other\.onnx\.json is missing, .* or export again"):
        compared.read([], [str(tmp_path / "other.onnx")])


SEED, DEAD = "another seed may learn", "The run's own report tells by its dead filters"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"history": HISTORY}, [SEED, DEAD]),
        ({"history": HISTORY, "dead_filters": None}, [SEED]),
        ({"history": None}, []),  # its weights were taken as they are
        ({"history": None, "prune": PRUNED}, []),  # cut until nothing was left
        ({"history": HISTORY, "prune": PRUNED}, []),
    ],
)
def test_another_seed_is_advised_where_a_seed_began_it(tmp_path, parts, said):
    run = compared_runs.run_of(tmp_path / "run", "final", 500, 2001, clean=500, **parts)
    [told] = [each for each in cautions(compared.read([str(run)])) if "Not learned" in each]
    assert [each for each in (SEED, DEAD) if each in told] == said
    assert told.endswith("Such nets are not chosen.")


def test_of_a_file_that_is_at_chance_no_run_s_report_is_told(tmp_path):
    file = file_of(tmp_path, "int8", 500, 64_000, evaluation={"clean": scored(500)})
    [told] = cautions(compared.read([], [file]))
    assert ".tflite. No better than chance on the clean test images. Such nets" in told


@pytest.mark.parametrize(
    ("runs", "files", "command"),
    [
        (2, 0, "`rice-jax train --stages=evaluate` with"),
        (0, 2, "`rice-jax evaluate` with"),
        (1, 1, "`rice-jax train --stages=evaluate` and `rice-jax evaluate` with"),
    ],
)
def test_how_the_same_images_are_evaluated_is_told_of_runs_and_of_files(
    tmp_path, runs, files, command
):
    images = {"clean": scored(990), "augmented": scored(900)}
    made = [compared_runs.run_of(tmp_path / f"{n}", "final", 900, 100, seed=n) for n in range(runs)]
    for place, run in enumerate(made):
        run.write_json("evaluation.json", images | {"path": f"folder{place}"})
    exported = [
        file_of(tmp_path, f"{n}", 900, 64, evaluation=images | {"path": f"other{n}"})
        for n in range(files)
    ]
    found = compared.read([str(run) for run in made], exported)
    assert f"on the same ones: {command} one `--config.eval.path`" in incomparable(found)


def test_where_all_is_measured_and_nothing_can_be_weighed_no_more_is_promised(tmp_path):
    lacking = profile(uncounted=[{"operation": "while", "layer": ""}])
    loop = compared_runs.run_of(tmp_path / "loop", "final", 950, 0, profile=lacking)
    bare = compared_runs.run_of(tmp_path / "bare", "cnn", 950, 10)
    (tmp_path / "bare" / "evaluation.json").unlink()
    for runs, why in (
        ([loop], "what is said above leaves none"),
        ([loop, bare], "there is nothing to weigh yet"),
    ):
        [told, *_] = recommendation(compared.read(list(map(str, runs))), None)
        assert told == f"**No net is recommended:** {why}."
