"""Every net after the other: what is done stays, what fails stops no other."""

import dataclasses
import json
import os
import re

import pytest

from rice_jax import config as configuration
from rice_jax import first_run, identity, reproduction
from rice_jax.errors import UserError
from rice_jax.train.prepared import load_images

pytestmark = pytest.mark.usefixtures("drawn_small")

FIELDS = {
    "data.image_size": 32,
    "data.path": "synthetic",
    "data.synthetic_per_class": 10,
    "data.keep_decoded": False,
    **{"model.stages": ((4,),), "model.dense": 4},
    "train.epochs": 1,
    "train.batch_size": 16,
}


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    return FIELDS | {"data.cache_dir": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def dataset(fields):
    settings = configuration.default("final")
    settings.update_from_flattened_dict(fields)
    return load_images(settings)


@pytest.fixture(scope="module")
def made(fields, dataset, tmp_path_factory):
    """A folder after two nets, of which the first failed: its folder holds another run."""
    out = tmp_path_factory.mktemp("runs")
    (out / "final").mkdir()
    other = {"config": configuration.to_json(configuration.default("final")), "data": None}
    (out / "final" / "config.json").write_text(json.dumps(other))
    plans = [reproduction.plan(name, str(out), fields, dataset) for name in ("final", "cnn_light")]
    with pytest.raises(UserError, match="final failed"):
        reproduction.make(plans, str(out))
    return out


def test_the_others_go_on_and_are_compared(made):
    compared = json.loads((made / "comparison" / "comparison.json").read_text())
    assert [net["model"] for net in compared["nets"]] == ["cnn_light"]
    assert (made / "comparison" / "report.html").is_file()


def test_a_finished_net_is_not_made_again(made, fields, dataset, monkeypatch, capsys):
    def fail(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(reproduction, "run_stages", fail)
    plan = reproduction.plan("cnn_light", str(made), fields, dataset)
    assert plan.finished
    reproduction.estimate([plan], dataset)
    assert plan.hours == 0
    reproduction.make([plan], str(made))
    assert "cnn_light is finished" in capsys.readouterr().out


def test_a_net_whose_report_was_not_written_to_its_end_is_not_finished(made, fields, dataset):
    report, last = (made / "cnn_light" / name for name in ("report.md", "dead_filters.json"))
    told = report.stat()
    assert reproduction.plan("cnn_light", str(made), fields, dataset).finished
    os.utime(report, ns=(told.st_atime_ns, last.stat().st_mtime_ns - 1))
    assert not reproduction.plan("cnn_light", str(made), fields, dataset).finished
    os.utime(report, ns=(told.st_atime_ns, told.st_mtime_ns))


@pytest.mark.parametrize("kept", [0, 0.5, 1])
def test_a_net_whose_history_is_damaged_is_told_of_and_made_again(
    kept, made, fields, dataset, monkeypatch, capsys
):
    history = made / "cnn_light" / "history.csv"
    whole, told = history.read_text(), history.stat()
    history.write_text(whole[: int(kept * len(whole))] + "[]")
    monkeypatch.setattr(reproduction.train, "images_per_second", lambda *_: 100.0)
    try:
        reproduction.estimate([reproduction.plan("cnn_light", str(made), fields, dataset)], dataset)
    finally:
        history.write_text(whole)
        os.utime(history, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert re.search(r"cnn_light +100\.0 +1 ", capsys.readouterr().out)


@pytest.mark.parametrize("first", [0, 1_000_000, 999_000_000])
def test_a_net_whose_files_are_of_one_moment_is_finished(first, made, fields, dataset):
    """Small nets' are: a millisecond apart, within a second or over the end of one."""
    folder = made / "cnn_light"
    told = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    in_order = sorted(told, key=lambda path: told[path].st_mtime_ns)
    try:
        for place, path in enumerate(in_order):
            moment = 1_700_000_000_000_000_000 + first + place * 1_000_000
            os.utime(path, ns=(moment, moment))
        assert reproduction.plan("cnn_light", str(made), fields, dataset).finished
    finally:
        for path, status in told.items():
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_was_asked_for_is_not_settled_anew(tmp_path, dataset, monkeypatch):
    """Also where it is what the sample would replace: the recipe's own 50 epochs."""
    usual = configuration.default("cnn_light").train.epochs
    fields = {"data.path": "sample", "train.epochs": usual}
    plan = reproduction.plan("cnn_light", str(tmp_path), fields, dataset)
    settled = []

    def run_stages(config, workdir, stages, given=()):
        first_run.settle(config, given)
        settled.append(config.train.epochs)

    monkeypatch.setattr(reproduction, "run_stages", run_stages)
    monkeypatch.setattr(reproduction.comparison, "compare", lambda *_: None)
    reproduction.make([plan], str(tmp_path))
    assert settled == [usual]


_SUMMED = ("summary.json", "evaluation.json", "profile.json", "history.csv")
"""What each figure of the summary stands in."""
_DRAWN = ("report.html", "report.md")


@pytest.mark.parametrize("name", [*_SUMMED, *_DRAWN, "feature_maps.json", "dead_filters.json"])
def test_a_net_of_which_a_file_was_lost_afterwards_is_not_finished(name, made, fields, dataset):
    """Gone, damaged, or with other figures, at its old time."""
    file = made / "cnn_light" / name
    whole, told = file.read_bytes(), file.stat()

    def put(content):
        file.write_bytes(content)
        os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))

    def finished():
        return reproduction.plan("cnn_light", str(made), fields, dataset).finished

    file.unlink()
    assert not finished()
    for content in () if name in _DRAWN else (whole[: len(whole) // 2], b"[]", b"{}"):
        put(content)
        assert not finished(), content
    if name in _SUMMED:
        put(re.sub(rb"\.(\d)", rb".1\1", whole))  # also of 8.1e-05
        assert not finished()
    put(whole)
    assert finished()


@pytest.mark.parametrize("field", ["train.images", "model.grid", "profile.runtimes"])
def test_a_net_that_an_older_version_finished_is_finished(field, made, fields, dataset):
    """Its config.json lacks fields that this one has: they have their defaults."""
    file = made / "cnn_light" / "config.json"
    whole, told = file.read_bytes(), file.stat()
    content = json.loads(whole)
    section, _, name = field.partition(".")
    del content["config"][section][name]
    file.write_text(json.dumps(content))
    os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))
    try:
        assert reproduction.plan("cnn_light", str(made), fields, dataset).finished
    finally:
        file.write_bytes(whole)
        os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))


@pytest.mark.parametrize("change", [{"train.epochs": 2}, {"eval.batch_size": 8}])
def test_with_other_settings_it_is_not_finished(change, made, fields, dataset):
    assert not reproduction.plan("cnn_light", str(made), fields | change, dataset).finished


def test_hours_follow_from_speed_epochs_and_images(fields, dataset, monkeypatch, tmp_path, capsys):
    plan = reproduction.plan("cnn_light", str(tmp_path), fields | {"train.epochs": 8}, dataset)
    reproduction.estimate([plan], dataset)
    assert plan.hours > 0
    monkeypatch.setattr(reproduction.train, "images_per_second", lambda *_: 0.5)
    reproduction.estimate([plan], dataset)
    assert plan.hours == pytest.approx(8 * (40 + 5) / 0.5 / 3600)  # 40 to learn from, 5 to validate
    told = capsys.readouterr().out
    assert told.count("cnn_light") == 2
    assert told.count("and tries of nets that rest at chance and begin again.") == 2
    stops = fields | {"train.epochs": 8, "train.on_collapse": "stop"}
    plan = reproduction.plan("cnn_light", str(tmp_path), stops, dataset)
    reproduction.estimate([plan], dataset)
    assert "inspection come on top." in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "told"), [(3, "< 0.01"), (90, "0.03"), (7200, "2.00")])
def test_time_that_is_to_come_is_not_told_as_none(
    seconds, told, fields, dataset, monkeypatch, tmp_path, capsys
):
    speed = (40 + 5) / seconds  # of one epoch: 40 to learn from, 5 to validate
    monkeypatch.setattr(reproduction.train, "images_per_second", lambda *_: speed)
    plan = reproduction.plan("cnn_light", str(tmp_path), fields, dataset)
    reproduction.estimate([plan], dataset)
    _, net, together, _ = capsys.readouterr().out.splitlines()
    assert net.endswith(f"  {told}")
    assert together.endswith(f"  {told}")
    assert len(net) == len(together)


@pytest.mark.parametrize(
    ("name", "field", "said"),
    [
        ("nano", {"train.epochs": 1}, "nano: --config.train.epochs changes nothing"),
        ("final", {"train.quick.warmup": 0.1}, "final: --config.train.quick.warmup changes"),
        ("final", {"train.distill.weight": 0.1}, "final: --config.train.distill.weight changes"),
    ],
)
def test_a_field_that_changes_nothing_in_a_net_s_training_is_refused(
    name, field, said, dataset, tmp_path
):
    fields = {"data.path": "synthetic", "data.image_size": 32, **field}
    with pytest.raises(UserError, match=said):
        reproduction.plan(name, str(tmp_path), fields, dataset)


@pytest.mark.parametrize(
    ("fewer", "images"),
    [
        ({}, 40 + 5),
        ({"train.images": 30}, 30 + 5),
        ({"train.validation_images": 2}, 40 + 2),
        ({"train.images": 10**6, "train.validation_images": 10**6}, 40 + 5),
    ],
)
def test_hours_are_of_the_images_that_are_looked_at(
    fewer, images, fields, dataset, monkeypatch, tmp_path
):
    plan = reproduction.plan("cnn_light", str(tmp_path), fields | fewer, dataset)
    monkeypatch.setattr(reproduction.train, "images_per_second", lambda *_: 2.0)
    reproduction.estimate([plan], dataset)
    assert plan.hours == pytest.approx(images / 2 / 3600)


def test_quickest_first_and_no_defect_stops_the_others(
    fields, dataset, monkeypatch, tmp_path, capsys
):
    order = []

    def stage(config, workdir, stages, given):
        order.append(config.model.name)
        raise RuntimeError(f"no luck with {workdir}")

    monkeypatch.setattr(reproduction, "run_stages", stage)
    plans = [reproduction.plan(name, str(tmp_path), fields, dataset) for name in ("cnn", "final")]
    plans[0].hours, plans[1].hours = 2, 1
    with pytest.raises(UserError, match="final, cnn failed"):
        reproduction.make(plans, str(tmp_path))
    assert order == ["final", "cnn"]
    assert "no luck with" in capsys.readouterr().err


def test_a_net_that_is_named_twice_is_made_once(fields, monkeypatch, tmp_path, capsys):
    """Twice in a comparison it would be refused there, after all trainings."""
    settings = configuration.default("final")
    settings.update_from_flattened_dict(fields)
    monkeypatch.setattr(reproduction.train, "images_per_second", lambda *_: 0.5)
    nets = ["final", "cnn_light", "final"]
    reproduction.reproduce(settings, fields, nets, str(tmp_path), estimate_only=True)
    said = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert said[:4] == ["net", "final", "cnn_light", "together"]


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ("runs", "cannot make the folder"),
        ("runs/cnn_light", "cannot make the folder"),
        ("runs/comparison", "cannot make the folder"),
        ("runs/comparison/config.json", "is a run's folder"),
        ("runs/comparison/report.md", "no comparison made"),
    ],
)
def test_a_place_that_is_taken_is_told_before_anything_is_measured(
    taken, said, fields, monkeypatch, tmp_path
):
    settings = configuration.default("final")
    settings.update_from_flattened_dict(fields)
    monkeypatch.setattr(reproduction.train, "images_per_second", lambda *_: pytest.fail("measured"))
    place = tmp_path / taken
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file")
    nets = ["final", "cnn_light"]
    with pytest.raises(UserError, match=said):
        reproduction.reproduce(settings, fields, nets, str(tmp_path / "runs"))


@pytest.mark.parametrize("estimate_only", [True, False])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": 1}, "with seed=1, not 0: give the same, or another folder"),
        ({"train.schedule": "quick"}, "with train.schedule='quick', not 'study'"),
        ({"data.image_size": 99}, "with data.image_size=99, not "),
        ({"model.dense": 5}, "with model.dense=5, not 4"),
        ({}, "on other images (another, now "),
    ],
)
def test_a_folder_that_holds_another_run_is_told_before_anything_is_measured(
    other, said, estimate_only, fields, dataset, monkeypatch, tmp_path
):
    """Its net failed when its turn came, and was estimated as one that goes on there."""
    settings = configuration.default("final")
    settings.update_from_flattened_dict(fields)
    monkeypatch.setattr(reproduction.train, "images_per_second", lambda *_: pytest.fail("measured"))
    plan = reproduction.plan("cnn_light", str(tmp_path), fields, dataset)
    identity.record(plan.run, plan.config, dataset)
    identity.require_same(plan.run, plan.config, dataset)  # the same may go on
    plan.config.update_from_flattened_dict(other)
    images = dataset if other else dataclasses.replace(dataset, name="another", fingerprint="f00d")
    identity.record(plan.run, plan.config, images, anew=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=re.escape(f"cnn_light holds a run {said}")):
        reproduction.reproduce(
            settings, fields, ["final", "cnn_light"], str(tmp_path), estimate_only=estimate_only
        )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_nets_with_pretrained_weights_wait_for_them(fields, dataset, tmp_path, capsys):
    without = reproduction.trainable("")
    assert len(without) == 6
    assert "vgg16, vgg_light" in capsys.readouterr().out
    assert set(reproduction.trainable("weights.h5")) == {*without, "vgg16", "vgg_light"}
    for name, weights in (("vgg_light", "weights.h5"), ("final", "")):
        plan = reproduction.plan(name, str(tmp_path), fields, dataset, weights="weights.h5")
        assert plan.config.model.weights == weights


@pytest.mark.parametrize("name", ["vgg16", "vgg_light"])
def test_a_named_net_without_the_weights_that_it_starts_from_is_refused_at_once(
    name, fields, monkeypatch, tmp_path
):
    """It was measured, had its hours told, and failed after all the others were trained."""
    settings = configuration.default("final")
    settings.update_from_flattened_dict(fields)
    monkeypatch.setattr(reproduction.train, "images_per_second", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match=f"{name} starts from trained weights: give --imagenet"):
        reproduction.reproduce(settings, fields, ["cnn_light", name], str(tmp_path / "runs"))
