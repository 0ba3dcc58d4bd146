"""report.md of a run: what each stage left, and nothing that is not there."""

import json
import math
import re

import numpy as np
import pytest
import report_runs
from markdown_it import MarkdownIt
from report_runs import (
    HISTORY,
    PRUNED,
    make_run,
    profile,
    result,
    scored,
    supported,
    table_rows,
    text_of,
)

from rice_jax import report
from rice_jax.errors import UserError
from rice_jax.records import MOST_ROWS
from rice_jax.report import markdown

pytestmark = pytest.mark.usefixtures("drawn_small")


STAGES = {
    "nothing": {"history": None, "evaluation": None, "profile": None, "dead_filters": None},
    "profile alone": {"history": None, "evaluation": None, "dead_filters": None, "data": None},
    "training alone": {"evaluation": None, "profile": None, "dead_filters": None},
    "all but inspection": {"dead_filters": None},
    "everything": {},
    "pruned": {"prune": PRUNED},
}
PICTURES = {
    "history": ["curves.png"],
    "evaluation": ["confusion_matrix_clean.png", "confusion_matrix_augmented.png"],
    "profile": ["flops.png", "roofline.png"],
    "dead_filters": ["dead_filters.png"],
}


def figure_beside(text: str, name: str) -> str:
    return next(row[1] for row in table_rows(text) if row[0] == name)


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.one_in(2)
def test_whatever_stages_ran_the_page_links_only_files_that_exist(tmp_path, stages):
    run = make_run(tmp_path, **STAGES[stages])
    report.write(run)
    text = (run.path / "report.md").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert run.has(target), target
    for stage, files in PICTURES.items():
        done = STAGES[stages].get(stage, "") is not None
        assert [run.has(file) and f"({file})" in text for file in files] == [done] * len(files)
    assert run.read_json("summary.json")["model"] == "final"


@pytest.mark.parametrize("stage", ["train", "evaluate", "profile", "inspect"])
def test_a_stage_that_has_not_run_is_a_line_with_its_command(tmp_path, stage):
    trained = STAGES["nothing"] | ({"history": HISTORY} if stage != "train" else {})
    text = text_of(make_run(tmp_path, **trained))
    assert f"rice-jax train --workdir={tmp_path} --stages={stage}`" in text


def test_the_summary_is_what_the_other_files_say(tmp_path):
    clean, augmented = result(((5, 0), (1, 4)), ("a", "b")), result(((3, 1), (4, 2)), ("a", "b"))
    run = make_run(
        tmp_path,
        seed=3,
        evaluation={"clean": clean, "augmented": augmented, "path": "elsewhere"},
        profile=profile(5000),
    )
    report.write(run)
    summary = run.read_json("summary.json")
    assert summary["dataset"] == {
        "name": "rice_image_dataset",
        "synthetic": False,
        "fingerprint": "f00d",
        "images": {"train": 240, "validation": 30, "test": 30},
    }
    expected = {
        "seed": 3,
        "pruned": False,
        "epochs": 3,
        "best_epoch": 2,  # the lowest of 1.2, 0.7, 0.9
        "train_loss": 0.9,
        "val_accuracy": 0.75,
        "val_loss": 0.7,
        "evaluated_on": "elsewhere",
        "params": 1234,
        "trainable_params": 1200,
        "flops": {"formula": 4999, "study": 5000, "xla": 5001},
        "latency_seconds": 0.002,
        "images_per_second": 900.0,
        "dead_filters": {"filters": 4, "clean": 2, "augmented": 1, "proven": 1, "images": 30},
    }
    assert {key: summary[key] for key in expected} == expected
    assert (summary["clean"]["accuracy"], summary["augmented"]["accuracy"]) == (0.9, 0.5)
    assert summary["augmented"]["macro_f1"] == 0.85


def test_a_net_that_began_again_is_told_with_the_seed_it_ended_with(tmp_path):
    header, *rows = HISTORY.splitlines()
    history = "\n".join([f"{header},seed", *(f"{row},5" for row in rows)]) + "\n"
    run = make_run(tmp_path, seed=3, history=history)
    report.write(run)
    assert re.search(r"\| seed \| *`5`, begun with `3`", text_of(run))
    assert run.read_json("summary.json")["seed"] == 5


@pytest.mark.parametrize("schedule", ["study", "quick"])
@pytest.mark.parametrize(
    ("begun", "failed", "times"),
    [(5, "", ""), (4, "seed 4", ""), (3, "seeds 3 to 4", " each time")],
)
def test_the_tries_before_the_net_that_learned_are_told(tmp_path, schedule, begun, failed, times):
    header, *rows = HISTORY.splitlines()
    history = "\n".join([f"{header},seed", *(f"{row},5" for row in rows)]) + "\n"
    text = text_of(make_run(tmp_path, seed=begun, history=history, train={"schedule": schedule}))
    slower = f", at half the learning rate{times}" if schedule == "quick" else ""
    told = f"It did not learn with {failed}, and began again with seed 5{slower}."
    assert (told in text) == bool(failed)
    assert ("began again" in text) == ("begun with" in text) == bool(failed)


def test_the_page_states_the_figures_of_the_summary(tmp_path):
    text = text_of(make_run(tmp_path))
    assert figure_beside(text, "accuracy, clean test images") == "83.33 %"  # 25 of 30
    assert figure_beside(text, "best epoch") == "2"
    assert figure_beside(text, "loss, validation (nats)") == "0.7000"
    assert figure_beside(text, "FLOPs for one image, study") == "1,000"
    assert figure_beside(text, "latency of one image, cpu") == "2 ms"
    assert "Ipsala for Arborio (3 of 10), Arborio for Basmati (1 of 10)" in text
    assert "The learning rate went from 0.001 to 0.0002 at epoch 3." in text
    assert ["conv1", "4", "2", "1", "1", "0, 2"] in table_rows(text)


@pytest.mark.parametrize(
    ("name", "studys", "rows"), [("final", 4, 1), ("final", 3, 2), ("a net of one's own", 3, 1)]
)
def test_filters_that_the_study_counts_otherwise_have_a_row_of_their_own(
    tmp_path, name, studys, rows
):
    """A remark beside the figure would be wider than the table's column."""
    content = profile()
    content["totals"]["study_filters"] = studys
    told = table_rows(text_of(make_run(tmp_path, name, profile=content)))
    assert [row[:2] for row in told if row[0].startswith("filters") and "dead" not in row[0]] == [
        ["filters", "4"],
        ["filters by the study's count", "3"],
    ][:rows]


def test_a_rate_that_changes_in_each_epoch_is_told_by_its_ends(tmp_path):
    header = HISTORY.splitlines()[0]
    rates = [0.002, 0.004, *(0.003 - 0.0005 * step for step in range(6))]
    rows = [f"{n},1,0.5,1,0.5,{rate:.4f},2,100" for n, rate in enumerate(rates, 1)]
    text = text_of(make_run(tmp_path, history="\n".join([header, *rows]) + "\n"))
    assert "0.002 in the first, 0.004 at most, 0.0005 in the last." in text
    assert "at epoch" not in text


def test_synthetic_data_is_said_on_the_page_in_the_summary_and_in_every_figure_of_data(tmp_path):
    real, drawn = make_run(tmp_path / "a"), make_run(tmp_path / "b", synthetic=True)
    assert "Synthetic" not in text_of(real)
    assert "**Synthetic data.**" in text_of(drawn)
    for run in (real, drawn):
        report.write(run)
    assert drawn.read_json("summary.json")["dataset"]["synthetic"] is True
    of_data = (kind for kind in PICTURES if kind != "profile")
    for file in (file for kind in of_data for file in PICTURES[kind]):
        assert (real.path / file).read_bytes() != (drawn.path / file).read_bytes()


NAMES = ("쌀 | 米", "a*b_c*`d`[e](f)<b>", "$x^2$")


def test_names_in_any_script_and_with_marks_are_shown_as_they_are(tmp_path):
    run = make_run(tmp_path, "net_*1*", classes=NAMES)
    text = text_of(run)
    rows = table_rows(text)
    for name in NAMES:
        assert [row[0] for row in rows].count(name) == 2, name  # clean and augmented
    assert f"Ssal | Mi is {markdown.escape(NAMES[0])}" in text
    heading = MarkdownIt("commonmark").parse(text)[1].children
    assert "".join(child.content for child in heading) == "net_*1*"


def test_of_many_classes_without_letters_it_is_said_how_they_are_called(tmp_path):
    text = text_of(make_run(tmp_path, classes=[f"{i} \ue000" for i in range(13)]))
    assert "In the figures 13 classes are cut short, or where no font can write them" in text
    assert "class 1 is" not in text


def test_a_run_again_after_another_stage_has_the_new_figures(tmp_path):
    run = make_run(tmp_path, **STAGES["training alone"])
    report.write(run)
    run.write_json("profile.json", profile(777_000))
    report.write(run)
    assert run.read_json("summary.json")["flops"]["study"] == 777_000
    assert "777,000" in (run.path / "report.md").read_text()


def test_json_is_strict_and_a_diverged_history_is_no_obstacle(tmp_path):
    history = HISTORY.replace("1.2", "nan").replace("0.7,", ",").replace("0.9,0.625", "inf,0.625")
    run = make_run(tmp_path, history=history)
    report.write(run)

    def refuse(name):
        raise AssertionError(name)

    summary = json.loads((run.path / "summary.json").read_text(), parse_constant=refuse)
    assert summary["best_epoch"] is None
    assert summary["epochs"] == 3
    assert "lowest validation loss" not in text_of(run)


@pytest.mark.parametrize("damage", ["1,2", "x" * 9, HISTORY[:90] + "\x00,", "a,b\n1,2\n"])
def test_a_damaged_history_is_named(tmp_path, damage):
    history = damage if "\n" in damage else HISTORY + damage
    run = make_run(tmp_path, history=history)
    with pytest.raises(UserError, match=r"history\.csv is damaged"):
        report.write(run)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    run = make_run(tmp_path)
    (run.path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        report.write(run)


@pytest.mark.parametrize("classes", [50, 51, MOST_ROWS + 1])
@pytest.mark.one_in(2)
def test_of_many_classes_the_worst_are_told_beside_the_picture(tmp_path, classes):
    names = [f"class {number}" for number in range(classes)]
    matrix = np.diag(np.full(classes, 9))
    matrix[3, 40], matrix[40, 7], matrix[8, 9] = 5, 2, 6
    scores = result(matrix.tolist(), names)
    if classes > MOST_ROWS:
        del scores["confusion_matrix"]
        told = zip(("true", "predicted", "images"), report_runs.cells(matrix), strict=True)
        scores["confusion_cells"] = {name: values.tolist() for name, values in told}
    scores["per_class"] = {
        name: measures | {"f1": 1 - number / 2000}
        for number, (name, measures) in enumerate(scores["per_class"].items())
    }
    run = make_run(tmp_path, evaluation={"clean": scores})
    report.write(run)
    text = text_of(run)
    assert "class 8 for class 9 (6 of 15), class 3 for class 40 (5 of 14)" in text
    assert run.has("confusion_matrix_clean.png")
    rows = [row for row in table_rows(text) if row and row[0].startswith("class ")]
    pairs = [row for row in rows if len(row) == 4]
    assert pairs == (
        []
        if classes == 50
        else [
            ["class 8", "class 9", "6", "15"],
            ["class 3", "class 40", "5", "14"],
            ["class 40", "class 7", "2", "11"],
        ]
    )
    told = [row[0] for row in rows if len(row) == 5]
    assert sorted(told) == sorted(names[-50:])
    assert (f"the other {classes - 50:,} are in evaluation.json" in text) == (classes > 50)


def test_images_from_elsewhere_are_told_wherever_the_figures_stand(tmp_path):
    """Of another folder than the test split, beside which no figure of the study's belongs."""
    half = result()
    evaluation = {"clean": half, "augmented": half, "path": "my_field"}
    studied = {"augmented_test_accuracy": 0.8675, "macro": {"f1": 0.87}, "val_loss": 0.03}
    run = make_run(tmp_path, evaluation=evaluation, profile=profile(reported=studied))
    text = text_of(run)
    rows = {row[0]: row[1:] for row in table_rows(text)}
    assert rows["accuracy, augmented images of my_field"] == ["83.33 %", "—"]
    assert rows["macro F1, augmented images of my_field"] == ["0.8500", "—"]
    assert rows["loss, validation (nats)"][1] != "—"
    assert "accuracy, clean test images" not in rows
    assert "83.33 % of the clean images of `my_field`, and" in text
    assert text.count("They are those of `my_field`, not of the run's test split.") == 2
    assert "of them" not in text


@pytest.mark.parametrize(
    ("learned", "said"),
    [
        (0, "None of them is a training image of the run, byte for byte."),
        (1, "1 of them is a training image of the run, byte for byte."),
        (1200, "1,200 of them are training images of the run, byte for byte."),
    ],
)
def test_it_is_told_how_many_images_from_elsewhere_a_net_has_learned_from(learned, said, tmp_path):
    evaluation = {"clean": result(), "path": "my_field", "in_training": learned}
    assert f"run's test split. {said}" in text_of(make_run(tmp_path, evaluation=evaluation))


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((None, 0.1, 0.2), "The learning rate went from 0.1 to 0.2 at epoch 3."),
        ((0.1, math.nan, 0.2), ""),
        ((0.2, 0.1, 0.0), "The learning rate went from 0.2 to 0.1 at epoch 2, to 0 at epoch 3."),
        ((*range(9, 1, -1), 0), "9 in the first, 9 at most, 0 in the last."),
    ],
)
def test_rates_that_are_missing_or_nothing(tmp_path, rates, said):
    cells = ["" if rate is None else rate for rate in rates]
    rows = [f"{epoch},1,0.5,1,0.5,{rate}\n" for epoch, rate in enumerate(cells, 1)]
    header = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate\n"
    text = text_of(make_run(tmp_path, history=header + "".join(rows)))
    assert said in text
    assert said or "learning rate went" not in text


@pytest.mark.parametrize(
    ("sizes", "grid", "said"),
    [
        ((112, 112, 224), 0, "It learned from images of 112 x 112 in epochs 1 to 2, of 224 x 224"),
        ((112, 112, 224), 56, "in epoch 3; validation is at 224 x 224."),
        ((224, 224, 224), 0, ""),
        (("", 112, 224), 0, ""),  # begun by an older version
    ],
)
def test_sizes_that_explain_the_curves(tmp_path, sizes, grid, said):
    rows = [f"{epoch},1,0.5,1,0.5,{size}\n" for epoch, size in enumerate(sizes, 1)]
    header = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,image_size\n"
    run = make_run(tmp_path, history=header + "".join(rows))
    config = run.read_json("config.json")
    config["config"]["model"]["grid"] = grid
    config["config"]["data"]["image_size"] = 224
    run.write_json("config.json", config)
    text = text_of(run)
    assert said in text
    assert said or "It learned from" not in text


@pytest.mark.parametrize("rare", [0, 1])
def test_an_accuracy_that_one_answer_to_all_would_have_is_told_as_such(rare, tmp_path):
    clean = supported(((49, 0), (1 - rare, rare)), ("com|mon", "rare"))
    run = make_run(tmp_path, evaluation={"clean": clean, "augmented": clean, "path": "test split"})
    told = "To answer `com|mon` to every clean one would be right for 98.00 %." in text_of(run)
    assert told == (not rare)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("right", [660, 985])
@pytest.mark.parametrize("trained", [False, True])
def test_what_augmented_images_cost_a_net_that_saw_none_is_told_with_a_remedy(
    augment, right, trained, tmp_path
):
    evaluation = {"clean": scored(990), "augmented": scored(right), "path": "test split"}
    history, train = HISTORY if trained else None, {"augment": augment}
    run = make_run(tmp_path, evaluation=evaluation, history=history, train=train)
    told = "cost it 33.0 points: with `--config.train.augment=true`" in text_of(run)
    assert told == (trained and right == 660 and not augment)
