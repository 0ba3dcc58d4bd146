"""Images of a run that are not known yet, or can no longer be read; which of them are shown."""

import types

import data_files
import pytest
from report_runs import HISTORY, make_run, scored, supported
from small_run import read, small

from rice_jax import config, data, evaluate, records
from rice_jax.errors import UserError
from rice_jax.stages import Job, evaluate_stage, run_stages
from rice_jax.stages.train_stage import examples

pytestmark = pytest.mark.usefixtures("drawn_small")


def test_a_folder_s_accuracy_is_kept_where_the_run_s_own_images_cannot_be_read(tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "run"
    run_stages(small("cnn_light", cache, **{"train.epochs": 1}), str(run), ["train"])
    [shard] = cache.glob("*-0/rice_image_dataset/*.*.*/*train*")
    content = bytearray(shard.read_bytes())
    place = content.index(b"JFIF")
    content[place : place + 60] = bytes(60)
    shard.write_bytes(content)
    classes = ("Arborio", "Basmati")
    where = data_files.write_folder(tmp_path / "mine", data_files.pictures(3, classes))
    fields = {"train.epochs": 1, "eval.path": f"{where}/"}
    run_stages(small("cnn_light", cache, **fields), str(run), ["evaluate"])
    evaluation = read(run, "evaluation.json")
    assert evaluation["path"] == str(where)
    assert evaluation["fingerprint"] == data.folder(where, classes).fingerprint
    assert evaluation["clean"]["images"] == 6
    assert "in_training" not in evaluation


def test_a_net_counted_before_its_images_were_known_learns_to_tell_their_classes(tmp_path):
    """Its profile, of another number of them, goes; one of the same number stays."""
    for names in (("a", "b", "c"), ("a", "b", "c", "d", "e")):
        where = data_files.write_folder(tmp_path / f"{len(names)}", data_files.pictures(4, names))
        fields = {"data.path": str(where), "train.epochs": 1}
        settings = small("cnn_light", tmp_path / "cache", **fields)
        run = tmp_path / f"run{len(names)}"
        run_stages(settings.copy_and_resolve_references(), str(run), ["profile"])
        run_stages(settings, str(run), ["train"])
        assert read(run, "config.json")["config"]["model"]["classes"] == len(names)
        assert (run / "profile.json").exists() == (len(names) == 5)


@pytest.mark.parametrize("spelled", ["{}/", "{}//", "./{}", "other/../{}"])
def test_a_folder_is_one_test_however_it_is_spelled(spelled):
    assert records.tested_on(spelled.format("mine")) == "mine"


@pytest.mark.parametrize("bucket", ["gs://images/mine/", "s3://images//mine"])
def test_a_folder_in_a_bucket_is_told_as_it_is_named(bucket):
    assert records.tested_on(bucket) == bucket


def test_images_are_shown_small_however_large_the_net_takes_them():
    """Twenty of 4,096 pixels would take a gigabyte, and minutes to draw."""
    images = [{"image": data_files.picture(i, 2), "label": i % 2, "name": ""} for i in range(8)]
    dataset = types.SimpleNamespace(classes=("a", "b"), splits={"train": images})
    shown = examples(dataset, 4096)
    assert [image.shape for row in shown.values() for image in row] == [(512, 512, 3)] * 8


@pytest.mark.parametrize("rare", [0, 1])
def test_an_accuracy_that_one_answer_to_all_would_have_is_printed_as_such(
    rare, tmp_path, monkeypatch, capsys
):
    found = supported(((49, 0), (1 - rare, rare)), ("common", "rare"))
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: records.made(records.Result, found))
    job = Job(make_run(tmp_path), config.default("final"))
    job.trained = types.SimpleNamespace(module=None, params=None, classes=())
    job.trained_on = types.SimpleNamespace(splits={"test": []})
    evaluate_stage.stage(job)
    told = "to answer 'common' to every clean image would be right for 0.9800" in (
        capsys.readouterr().out
    )
    assert told == (not rare)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("right", [4, 60])
@pytest.mark.parametrize("trained", [False, True])
def test_what_augmented_images_cost_is_printed_where_a_training_had_none(
    augment, right, trained, tmp_path, monkeypatch, capsys
):
    def evaluated(*args, augment_seed, **options):
        return records.made(records.Result, scored(60 if augment_seed is None else right, 64))

    monkeypatch.setattr(evaluate, "evaluate", evaluated)
    history = HISTORY if trained else None
    run = make_run(tmp_path, history=history, train={"augment": augment})
    job = Job(run, config.default("final"))
    job.trained = types.SimpleNamespace(module=None, params=None, classes=())
    job.trained_on = types.SimpleNamespace(splits={"test": []})
    evaluate_stage.stage(job)
    told = "cost it 87.5 points" in capsys.readouterr().out
    assert told == (trained and right == 4 and not augment)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data.path": "no/such/folder"}, "no/such/folder"),
        ({"model.weights": "no/such/weights.h5"}, "no/such/weights.h5"),
    ],
)
def test_a_wrong_path_is_named_and_leaves_no_training_behind(fields, said, tmp_path):
    with pytest.raises(UserError, match=said):
        run_stages(
            small("cnn_light", tmp_path / "cache", **fields), str(tmp_path / "run"), ["train"]
        )
    assert not list(tmp_path.rglob("checkpoints/*"))
