"""What a run's files hold: written as it is told, read as any version wrote it."""

import dataclasses
import json
import math

import jax
import pytest
import report_runs
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from rice_jax import inspection, profile, records, zoo
from rice_jax.bounds import MOST_SEEDS
from rice_jax.config import FIELDS
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.zoo.cards import FOLDER

FILES = [kind for kind in vars(records).values() if isinstance(kind, type) and "FILE" in vars(kind)]
CUT = {
    "kept_whole": ["stem: sort is why"],
    "unbounded": ["sort in layer stem"],
    **{key: {"conv": [0, 2]} for key in ("removed", "kept", "spared", "refused", "tied")},
    "certificate": {"images": 2, "proven": False},
    "budgets": {"params": {"asked": 9, "met": 8, "under": 1}},
}
CONTENT = {
    records.ConfigFile: {"config": {"model": {"name": "final"}}},
    records.EvaluationFile: {"clean": report_runs.result(), "path": "test split"},
    records.ProfileFile: report_runs.profile(),
    records.DeadFiltersFile: report_runs.DEAD,
    records.PruneFile: {"request": {"parent": "runs/final"}, "steps": [CUT]},
    records.HalfPruned: {
        "request": {"parent": "runs/final"},
        "config": {},
        "weights": "0123",
        "steps": [{"kept": {"conv": [1]}, "origin": {"conv": "conv2"}, "cut": CUT}],
    },
    records.SuggestionsFile: {
        "criterion": "l1",
        "rows": [
            {"cost": 9, "params": 4, "filters_removed": 0, "clean": 1.0, "augmented": 0.5},
            {
                **{"cost": 4, "params": 2, "filters_removed": 1, "clean": 0.9, "augmented": 0.4},
                "removed": {"conv": [2]},
            },
        ],
    },
}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="head")(nn.relu(nn.Conv(3, (3, 3), name="conv")(x)).mean((1, 2)))


def test_each_file_has_a_name_of_its_own():
    names = [kind.FILE for kind in FILES]
    assert len(set(names)) == len(names)
    assert {"config.json", "profile.json", "evaluation.json", "summary.json"} <= set(names)


def test_a_profile_loses_nothing_on_its_way_through_a_record():
    device = profile.Device(1e12, 1e11)
    content = profile.count(Net(), (8, 8, 3)).to_json("final", device)
    assert records.plain(records.made(records.ProfileFile, content)) == content


def test_findings_lose_nothing_on_their_way_through_a_record():
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
    variables = Net().init(jax.random.key(0), images)
    seen = inspection.census(Net(), variables, [images])
    content = inspection.to_json(seen, seen, {"conv": []})
    plain = json.loads(json.dumps(content, default=lambda array: array.tolist()))
    assert records.plain(records.made(records.DeadFiltersFile, plain)) == plain


@pytest.mark.parametrize("kind", CONTENT, ids=lambda kind: kind.FILE)
def test_what_is_written_is_read(kind, tmp_path):
    run = Run(tmp_path)
    found = records.made(kind, CONTENT[kind])
    records.write(run, found)
    assert run.has(kind.FILE)
    assert records.read(run, kind) == records.read_if_there(run, kind) == found


def test_what_there_is_nothing_to_tell_of_is_not_written(tmp_path):
    run = Run(tmp_path)
    records.write(run, records.EvaluationFile(path="photos"))
    assert run.read_json("evaluation.json") == {"path": "photos"}
    records.write(run, records.ConfigFile(config={}))
    assert run.read_json("config.json")["data"] is None


def test_no_file_is_none_and_one_of_later_fields_is_read(tmp_path):
    run = Run(tmp_path)
    assert records.read_if_there(run, records.DeadFiltersFile) is None
    run.write_json("dead_filters.json", report_runs.DEAD | {"of_the_future": 1})
    found = records.read(run, records.DeadFiltersFile)
    assert found.unseen == []  # which older versions did not write
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.images = 0


@pytest.mark.parametrize("name", zoo.names())
def test_a_card_of_the_zoo_is_all_that_its_file_holds(name):
    content = json.loads((FOLDER / f"{name}.json").read_text())
    assert records.plain(zoo.card(name)) == content


OLDER = "epoch,train_loss,val_loss,seconds\n1,0.5,,2\n2,0.25,0.125,1.5\n"


def test_rows_of_older_and_of_later_versions_are_read_and_written(tmp_path):
    run = Run(tmp_path)
    assert records.read_history(run) == []
    run.write_text("history.csv", OLDER)
    first, second = records.read_history(run)
    assert (first.epoch, first.train_loss, second.val_loss, second.seed) == (1, 0.5, 0.125, None)
    assert math.isnan(first.val_loss)
    assert first.spent() == {}
    records.write_history(run, [first, dataclasses.replace(second, seed=3, step_seconds=1.0)])
    again = records.read_history(run)
    assert again[1].spent() == {"step": 1.0}
    assert (again[0].seed, again[1].seed) == (None, 3)
    grown = [dataclasses.replace(first, validation_size=112), second]
    records.write_history(run, grown)  # a cell that the last row lacks
    assert [row.validation_size for row in records.read_history(run)] == [112, None]
    told = run.read_bytes("history.csv").decode().replace(",seconds", ",of_the_future", 1)
    run.write_text("history.csv", told)
    assert math.isnan(records.read_history(run)[1].seconds)


@pytest.mark.parametrize("cells", ["3", "3,1,1,1,1", "3,x,1,1", ",1,1,1", "inf,1,1,1", "nan,1,1,1"])
def test_a_row_that_is_damaged_is_one_line(cells, tmp_path):
    run = Run(tmp_path)
    run.write_text("history.csv", f"{OLDER}{cells}\n")
    with pytest.raises(UserError, match=r"history\.csv is damaged after row 2: give"):
        records.read_history(run)


@pytest.mark.parametrize("content", ["", "\n", OLDER.partition("\n")[0], "no table at all"])
def test_a_history_of_no_epochs_is_damaged(content, tmp_path):
    """It is written first when an epoch ends, with that one."""
    run = Run(tmp_path)
    run.write_text("history.csv", content)
    with pytest.raises(UserError, match=r"history\.csv is damaged after row 0: give"):
        records.read_history(run)


def test_a_history_of_more_epochs_than_a_run_may_have_is_one_line(tmp_path):
    run = Run(tmp_path)
    most = FIELDS["train.epochs"].bounds.most
    run.write_text("history.csv", OLDER + "3,1,1,1\n" * (most - 1))
    with pytest.raises(UserError, match=r"history\.csv has 50,001 epochs, far more than any run"):
        records.read_history(run)


def test_as_many_seeds_as_may_be_asked_for_are_read(tmp_path):
    mean = records.Mean(mean=0.5)
    for seeds in (MOST_SEEDS, MOST_SEEDS + 1):
        runs = [records.SeedTold(seed=seed, clean=1, augmented=1, flops=1) for seed in range(seeds)]
        told = records.VariantTold(runs=runs, clean=mean, augmented=mean)
        records.write(Run(tmp_path), records.VariantsFile(epochs=1, variants={"taylor": told}))
        if seeds == MOST_SEEDS:
            assert len(records.read(Run(tmp_path), records.VariantsFile).variants["taylor"].runs)
    with pytest.raises(UserError, match=r"variants\.json is damaged: .* of length <= 1000"):
        records.read(Run(tmp_path), records.VariantsFile)


def places(content, place=()):
    """Each part of a JSON content, by the keys that lead to it."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from places(value, (*place, key))


@given(st.sampled_from(list(CONTENT)), st.data())
def test_a_part_of_another_kind_is_one_line_that_names_file_and_place(tmp_path_factory, kind, draw):
    content = json.loads(json.dumps(CONTENT[kind]))
    if kind is records.ConfigFile:
        content = {"config": {}, "data": {"name": "rice"}, "seed": 1}
    *way, last = draw.draw(st.sampled_from(sorted(places(content), key=str)))
    part = content
    for key in way:
        part = part[key]
    part[last] = object  # nothing in JSON is this
    with pytest.raises(ValueError, match=r"\$|object"):
        records.made(kind, content)
    run = Run(tmp_path_factory.mktemp("run"))
    run.write_json(kind.FILE, [])
    with pytest.raises(UserError, match=r"\.json is damaged: Expected `object`") as error:
        records.read(run, kind)
    assert "\n" not in str(error.value)


MATRIX = {"confusion_matrix": report_runs.result()["confusion_matrix"]}


def _of_cells(true=(), predicted=(), images=()):
    """A result whose confusion matrix is told by its cells."""
    cells = {"true": list(true), "predicted": list(predicted), "images": list(images)}
    told = {name: value for name, value in report_runs.result().items() if name not in MATRIX}
    return told | {"confusion_cells": cells}


@pytest.mark.parametrize(
    ("kind", "claim", "said"),
    [
        (
            records.DeadFiltersFile,
            {"layers": [{"path": "conv1", "filters": 10**12}]},
            "tells of 1,000,000,000,000 filters",
        ),
        (records.DeadFiltersFile, {"layers": [{"path": "conv1", "filters": -1}]}, "-1 filters"),
        (
            records.EvaluationFile,
            {"clean": report_runs.result() | {"confusion_matrix": [[1, 0], [0]]}},
            "confusion matrix is not square",
        ),
        (
            records.EvaluationFile,
            {"clean": _of_cells([0, 1], [2], [5, 5])},
            "cells that are not whole",
        ),
        (records.EvaluationFile, {"clean": _of_cells([0], [3], [5])}, "other than its 3 classes"),
        (records.EvaluationFile, {"clean": _of_cells([-1], [0], [5])}, "Expected `int` >= 0"),
        (records.EvaluationFile, {"clean": _of_cells([0], [0], [10**18])}, "Expected `int` <= "),
        (records.EvaluationFile, {"clean": _of_cells() | MATRIX}, "no confusion matrix, or two"),
    ],
)
def test_a_file_that_claims_what_it_does_not_hold_is_damaged(kind, claim, said, tmp_path):
    run = Run(tmp_path)
    run.write_json(kind.FILE, CONTENT[kind] | claim)
    with pytest.raises(UserError, match=f"{kind.FILE} is damaged: .*{said}"):
        records.read(run, kind)


TRIED = {
    **{"name": "", "out_of": None, "step": None, "removed": {}, "why": "", "accuracy": 0.9},
    "costs": {"flops": 9.0, "params": 9.0},
}
STEM = TRIED | {"name": "stem", "out_of": ""}
SEARCH = {
    **{"request": {}, "config": {}, "images": {"train": 9, "validation": 9}, "floor": 0.9},
    "forecast": {"candidates": 1, "images": 9, "minutes": 1.0, "images_per_second": 1.0},
    **{"candidates": [TRIED, STEM], "finished": True, "test": {}, "chosen": "stem"},
}
SCORES = CONTENT[records.EvaluationFile]["clean"]["per_class"]
LAYER = CONTENT[records.ProfileFile]["layers"][0]
FILTERS = {"path": "conv1", "filters": 1}
LONG = "x" * 5000
IMAGES = {"name": "rice", "synthetic": False, "fingerprint": "", "classes": []}


@pytest.mark.parametrize(
    ("kind", "way", "value"),
    [
        (records.EvaluationFile, ["clean", "per_class", LONG], next(iter(SCORES.values()))),
        (
            records.EvaluationFile,
            ["clean", "per_class"],
            dict.fromkeys(map(str, range(100_001)), next(iter(SCORES.values()))),
        ),
        (records.EvaluationFile, ["path"], LONG),
        (records.ProfileFile, ["layers"], [LAYER] * 20_001),
        (records.ProfileFile, ["layers"], [LAYER | {"path": LONG}]),
        (records.ProfileFile, ["not_called"], [LONG]),
        (records.DeadFiltersFile, ["layers"], [FILTERS] * 20_001),
        (records.DeadFiltersFile, ["layers"], [FILTERS | {"path": LONG}]),
        (records.ConfigFile, ["data"], IMAGES | {"name": LONG}),
        (records.ConfigFile, ["data"], IMAGES | {"classes": ["x"] * 100_001}),
        (records.ConfigFile, ["data"], IMAGES | {"classes": [LONG]}),
        (records.ConfigFile, ["versions"], {LONG: "1"}),
        (records.ConfigFile, ["versions"], {"jax": "1" * 2_000_000}),
        (records.FeatureMapsFile, ["classes"], ["x"] * 100_001),
        (records.PruneFile, ["kept"], {LONG: [0]}),
        (records.VariantsFile, ["variants"], {LONG: {}}),
        (records.LightenFile, ["candidates"], [TRIED] * 1_001),
        (records.FeatureMapsFile, ["classes"], [LONG]),
    ],
    ids=lambda part: part.FILE if hasattr(part, "FILE") else "",
)
def test_what_is_longer_or_more_than_a_report_can_tell_is_one_line(kind, way, value):
    """A class, a layer and a name each get a line, a colour or a label in it."""
    content = json.loads(
        json.dumps((CONTENT | {records.LightenFile: SEARCH}).get(kind, {"config": {}}))
    )
    part = content
    for key in way[:-1]:
        part = part[key]
    part[way[-1]] = value
    with pytest.raises(ValueError, match=r"of length <= \d+ - at `(key` in `)?\$\.") as error:
        records.made(kind, content)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"candidates": [], "chosen": None}, "has no candidate ''"),
        ({"candidates": [STEM, TRIED]}, "'stem' comes out of none before it"),
        ({"candidates": [TRIED, TRIED]}, "'' comes out of none before it"),
        ({"candidates": [TRIED, STEM | {"out_of": "stem"}]}, "'stem' comes out of none before it"),
        ({"candidates": [TRIED, STEM | {"costs": {"flops": 1.0}}]}, "'stem' has no params"),
        ({"request": {"measure": "latency"}}, "'' has no latency"),
        ({"chosen": "layer"}, "has no candidate 'layer'"),
        ({"front": ["layer"]}, "has no candidate 'layer'"),
        ({"test": {"layer": {}}}, "has no candidate 'layer'"),
    ],
)
def test_a_search_tells_of_candidates_that_it_has_each_out_of_one_before(change, said):
    """A report follows them from the net that was chosen to the whole one."""
    assert records.made(records.LightenFile, SEARCH).chosen == "stem"
    with pytest.raises(ValueError, match=said):
        records.made(records.LightenFile, SEARCH | change)


@pytest.mark.parametrize(
    ("images", "clean", "augmented", "lost"),
    [
        (7500, 7445, 7281, 164 / 7500),
        (7500, 7481, 7429, 0.0),  # less than a point
        (300, 298, 285, 13 / 300),  # 3 * sqrt((0.0066 + 0.0475) / 300) is 0.040
        (300, 298, 287, 0.0),
        (60, 60, 59, 0.0),
        (100, 60, 90, 0.0),
        (10, 10, 0, 1.0),
    ],
)
def test_what_augmented_images_cost_is_told_beyond_chance(images, clean, augmented, lost):
    both = {
        name: report_runs.scored(right, images)
        for name, right in (("clean", clean), ("augmented", augmented))
    }
    told = records.made(records.EvaluationFile, both).lost_augmented()
    assert told == pytest.approx(lost)


@pytest.mark.parametrize("part", ["clean", "augmented"])
def test_half_an_evaluation_tells_no_loss(part):
    half = records.made(records.EvaluationFile, {part: report_runs.scored(5, 10)})
    assert half.lost_augmented() == 0


@pytest.mark.parametrize(
    ("train", "recipe", "seen"),
    [
        ({"augment": False}, None, False),
        ({"augment": False}, "study", False),
        ({"augment": False}, "quick, augmented", True),
        ({"augment": True}, "study", True),
        ({}, None, True),  # which an older version need not tell
    ],
)
def test_whether_a_net_had_augmented_images(train, recipe, seen):
    """By its recipe, or by that of the weights that it began with."""
    weights = records.WeightsTold(source="zoo:final", recipe=recipe) if recipe else None
    told = records.ConfigFile(config={"train": train}, weights=weights)
    assert told.augmented == seen


@pytest.mark.parametrize(
    ("matrix", "told"),
    [
        (((50, 0), (1, 0)), ("common", 50 / 51)),  # that is what it answers
        (((25, 25), (25, 25)), ("common", 0.5)),
        (((0, 6), (10, 4)), ("rare", 14 / 20)),  # worse than that
        (((50, 0), (0, 1)), None),
        (((40, 0), (9, 2)), None),
        (((0, 7), (0, 0)), None),  # images of one class
    ],
)
def test_a_class_that_is_as_good_an_answer_to_all_is_told(matrix, told):
    content = report_runs.supported(matrix, ("common", "rare"))
    assert records.made(records.Result, content).as_well() == told
