"""The study's figures beside a run's: those that are of such a net, and of such images."""

import pytest
from report_runs import make_run, profile, result, table_rows, text_of

from rice_jax.report import comparison, record


def test_the_study_stands_beside_with_its_erratum(tmp_path):
    reported = {"params": 1234, "filters": 5808, "augmented_test_accuracy": 0.8675}
    erratum = {"model": "googlenet", "field": "filters", "reported": 5808, "correct": 7280}
    content = profile(reported=reported, errata=[erratum | {"why": "reduces_count too"}])
    text = text_of(make_run(tmp_path, "googlenet", profile=content))
    rows = {row[0]: row[2] for row in table_rows(text) if len(row) == 3}
    assert rows["parameters"] == "1,234"
    assert rows["filters"] == "5,808 (correct: 7,280)"
    assert rows["accuracy, augmented test images"] == "86.75 %"
    assert rows["accuracy, clean test images"] == "—"
    assert "reduces\\_count too" in text
    unknown = text_of(make_run(tmp_path / "other"))
    assert not any("the study" in row for row in table_rows(unknown))


@pytest.mark.parametrize("theirs", [None, {"params": 1234}, {"tflops_7500": 7.82}])
def test_flops_for_the_studys_test_images_stand_beside_its_own_alone(theirs, tmp_path):
    content = profile(4_000_000_000, reported=theirs)
    rows = {row[0]: row[1:] for row in table_rows(text_of(make_run(tmp_path, profile=content)))}
    found = rows.get("TFLOPs for 7,500 images, study")
    assert found == (["30", "7.82"] if theirs and "tflops_7500" in theirs else None)


@pytest.mark.parametrize("theirs", [None, {"params": 1234}, {"tflops_7500": 7.82}])
def test_a_comparison_tells_flops_for_the_studys_test_images_beside_its_own_alone(theirs, tmp_path):
    runs = [
        make_run(tmp_path / "run", profile=profile(4_000_000_000, reported=theirs)),
        make_run(tmp_path / "mine", "mine"),
    ]
    comparison.compare([str(run) for run in runs], str(tmp_path / "out"))
    text = (tmp_path / "out" / "report.md").read_text()
    told = theirs is not None and "tflops_7500" in theirs
    assert ("TFLOPs for 7,500 images | the study" in text) == told
    assert ("TFLOPs for 7,500 images" in text) == told


@pytest.mark.parametrize("augmented", [False, True])
def test_no_figure_of_the_study_stands_beside_augmented_validation(tmp_path, augmented):
    content = profile(reported={"val_accuracy": 0.9897, "val_loss": 0.03})
    train = {"validation_augmented": augmented}
    text = text_of(make_run(tmp_path, profile=content, train=train))
    where = "augmented validation images" if augmented else "validation"
    rows = {row[0]: row[1:] for row in table_rows(text)}
    beside = {rows[f"accuracy, {where}"][1], rows[f"loss, {where} (nats)"][1]}
    assert (beside == {"—"}) == augmented
    assert ("lowest validation loss on augmented images" in text) == augmented


GROWING = """epoch,train_loss,val_loss,val_accuracy,image_size,validation_size
1,0.5,0.1,0.99,4,4
2,0.4,0.3,0.9,8,
"""


@pytest.mark.parametrize("rows", [1, 2])
def test_no_figure_of_the_study_stands_beside_validation_at_another_size(tmp_path, rows):
    content = profile(reported={"val_accuracy": 0.9897, "val_loss": 0.03})
    history = "".join(GROWING.splitlines(keepends=True)[: 1 + rows])
    text = text_of(make_run(tmp_path, profile=content, history=history))
    where = "validation" if rows == 2 else "validation at 4 x 4"
    found = {row[0]: row[1:] for row in table_rows(text)}
    own, theirs = found[f"accuracy, {where}"][:2]
    assert (own, theirs) == (("90.00 %", "98.97 %") if rows == 2 else ("99.00 %", "—"))
    assert ("lowest validation loss on whole images" in text) == (rows == 2)


OF_IMAGES = {
    "val_accuracy": 0.9897,
    "val_loss": 0.03,
    "best_epoch": 34,
    "augmented_test_accuracy": 0.8675,
    "macro": {"f1": 0.87},
}
LEFT = {"parameters", "FLOPs for one image, study"}
LEARNED = {"best epoch"}
VALIDATED = {"accuracy, validation", "loss, validation (nats)"}
TESTED = {"accuracy, augmented test images", "macro F1, augmented test images"}


@pytest.mark.parametrize(
    ("parts", "beside"),
    [
        ({}, LEFT | LEARNED | VALIDATED | TESTED),
        ({"classes": ("ARBORIO", "karacadag", "Ipsala")}, LEFT | LEARNED | VALIDATED | TESTED),
        ({"classes": ("daisy", "rose", "tulip")}, LEFT),
        ({"classes": ("Arborio", "Basmati", "tulip")}, LEFT),
        ({"synthetic": True}, LEFT),
        ({"train": {"validation_augmented": True}}, LEFT | LEARNED | TESTED),
        ({"evaluation": {"clean": result(), "augmented": result(), "path": "my_field"}},
         LEFT | LEARNED | VALIDATED),
    ],
)  # fmt: skip
def test_figures_of_the_study_stand_beside_those_of_such_images_alone(tmp_path, parts, beside):
    """In the page, and in a comparison, which reads the same summary."""
    costs = {"params": 1234, "flops": 1000}
    run = make_run(tmp_path, profile=profile(reported=costs | OF_IMAGES), **parts)
    rows = [row for row in table_rows(text_of(run)) if len(row) == 3]
    assert {row[0] for row in rows[1:] if row[2] != "—"} == beside
    told = record.summarize(record.load(run)).reported
    assert (told.params, told.flops) == (1234, 1000)
    assert (told.val_loss is not None) == (beside >= VALIDATED)
    assert (told.augmented_test_accuracy is not None) == (beside >= TESTED)
    assert (told.macro.f1 is not None) == (beside >= TESTED)
