"""A pruning in steps that was stopped: it goes on where it stood, and mixes with no other."""

import dataclasses
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import whole_run

from rice_jax import config as configuration
from rice_jax import data, stages, train
from rice_jax.errors import UserError
from rice_jax.lighten.pruning import prune_run
from rice_jax.records import PruneRequest
from rice_jax.run import Run

pytestmark = pytest.mark.usefixtures("drawn_small")
REQUEST = PruneRequest(
    budgets={"filters": 3}, criterion="l1", kinds=("clean",), steps=3, finetune_epochs=1
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return whole_run.settings(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def parent(settings, tmp_path_factory):
    return whole_run.made(settings, tmp_path_factory.mktemp("runs") / "whole")


def larger(config, folder, _):
    """Stands for a training: all weights larger by a tenth, once."""
    run = Run(folder)
    if not run.has("history.csv"):
        params = jax.tree.map(lambda array: array * 1.1, train.load(run).params)
        (run.path / "checkpoints").rmtree()
        dataset = data.load("synthetic", config.data.cache_dir, seed=0, synthetic_per_class=10)
        train.begin(config, run, dataset, params)
        run.write_bytes("history.csv", os.urandom(8))


def training(patch, *, stop="", before=True, learn=larger):
    """Let steps learn and nothing else; a Ctrl-C comes before or after a step."""
    trained = []

    def run(config, folder, names):
        if names != ["train"]:
            return
        number = Run(folder).path.name
        if (number, before) == (stop, True):
            raise KeyboardInterrupt
        learn(config, folder, names)
        trained.append(number)
        if number == stop:
            raise KeyboardInterrupt

    patch.setattr("rice_jax.stages.run_stages", run)
    return trained


@pytest.fixture(scope="module")
def undisturbed(settings, parent):
    out = Run(parent.path.parent / "undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        assert training(patch) == []
        prune_run(REQUEST, settings, parent, out)
    return out


def stopped(out, settings, parent, *, request=REQUEST, **when):
    with pytest.MonkeyPatch.context() as patch:
        training(patch, **when)
        with pytest.raises(KeyboardInterrupt):
            prune_run(request, settings, parent, out)
    return out


@pytest.mark.parametrize(
    ("when", "again"),
    [
        ({"stop": "1"}, ["1", "2"]),
        ({"stop": "1", "before": False}, ["1", "2"]),
        ({"stop": "2"}, ["2"]),
        ({"stop": "2", "before": False}, ["2"]),
    ],
)
@pytest.mark.one_in(2)
def test_steps_that_are_done_stay(when, again, undisturbed, settings, parent, tmp_path, capsys):
    out = stopped(Run(tmp_path / "out"), settings, parent, **when)
    done = {path: path.read_bytes() for path in (out.path / "steps").glob("*/history.csv")}
    (out.path / "steps" / "3").mkdir()  # as a kill may leave it
    out.write_bytes("steps/.DS_Store", b"a file manager left it")
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        trained = training(patch)
        prune_run(REQUEST, settings, parent, out)
    assert trained == again
    printed = capsys.readouterr().out
    assert f"going on from step {when['stop']} of 3" in printed
    assert "; between its 3 cuts the net trained\n" in printed
    headings = [line for line in printed.splitlines() if line.startswith("===")]
    assert headings == [f"=== step {number} of 3 ===" for number in again]
    assert all(path.read_bytes() == content for path, content in done.items())
    assert out.read_json("prune.json") == undisturbed.read_json("prune.json")
    found, expected = (train.load(run).params for run in (out, undisturbed))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not out.has("pruning.json")
    assert sorted(each.name for each in (out.path / "steps").glob("[!.]*")) == ["1", "2"]


@pytest.mark.parametrize(
    ("asked", "fields", "told"),
    [
        ({"budgets": {"filters": 2}}, {}, r"pruned with budgets=\{'filters': 3\}, not"),
        ({"steps": 2}, {}, "pruned with steps=3, not 2"),
        ({"criterion": "random"}, {}, "pruned with criterion=l1, not random"),
        ({}, {"train.learning_rate": 0.5}, r"pruned with config\.train\.learning_rate=0\.\d+, not"),
        ({}, {"seed": 1}, r"pruned with config\.seed=0, not 1"),
    ],
)
def test_steps_of_another_pruning_are_refused_and_stay(
    asked, fields, told, settings, parent, tmp_path
):
    out = stopped(Run(tmp_path / "out"), settings, parent, stop="1")
    before = files_of(out)
    config = configuration.from_json(configuration.to_json(settings)).unlock()
    config.update_from_flattened_dict(fields)
    request = PruneRequest(**{**vars(REQUEST), **asked})
    with pytest.raises(UserError, match=told):
        prune_run(request, config, parent, out)
    assert files_of(out) == before


def test_steps_of_a_run_that_has_learned_otherwise_since_are_refused(settings, tmp_path):
    parent = whole_run.made(settings, tmp_path / "whole")
    out = stopped(Run(tmp_path / "out"), settings, parent, stop="1")
    shutil.rmtree(parent.path)
    parent, before = whole_run.made(settings, parent.path, scale=0.2), files_of(out)
    with pytest.raises(UserError, match=r"when .* had other weights"):
        prune_run(REQUEST, settings, parent, out)
    assert files_of(out) == before


@pytest.mark.parametrize("content", [b"", b"{}", b'{"request": {}, "config": {}, "weights": 1}'])
@pytest.mark.one_in(2)
def test_what_is_told_of_no_step_begins_again(content, settings, parent, tmp_path, monkeypatch):
    """As of an older version, or cut off."""
    out = stopped(Run(tmp_path / "out"), settings, parent, stop="1")
    out.write_bytes("pruning.json", content)
    assert training(monkeypatch) == []
    (out.path / "steps" / "1" / "config.json").write_text("older")
    prune_run(REQUEST, settings, parent, out)
    assert out.read_json("prune.json")["after"]["filters"] == 3


@pytest.mark.parametrize("frozen", [(), ("conv2",)])
@pytest.mark.one_in(2)
def test_a_pruning_that_dropped_a_block_goes_on(frozen, settings, parent, tmp_path, capsys):
    """The layers that are left have other names, by which they are frozen as before."""
    config = configuration.from_json(configuration.to_json(settings)).unlock()
    config.train.frozen = frozen
    request = dataclasses.replace(REQUEST, drop_layers=("conv1",), budgets={"filters": 2}, steps=2)
    learn = stages.run_stages
    out = stopped(Run(tmp_path / "out"), config, parent, request=request, stop="1", learn=learn)
    with pytest.MonkeyPatch.context() as patch:
        assert training(patch, learn=learn) == []
        prune_run(request, config, parent, out)
    account = out.read_json("prune.json")
    assert account["dropped_layers"] == ["conv1"]
    assert account["renamed"] == {"conv2": "conv1"}
    assert account["removed"]["conv1"] == [0, 1, 2, 3]
    assert len(account["kept"]["conv2"]) == 2
    assert configuration.read(out).config["train"]["frozen"] == ["conv1"] * len(frozen)


def files_of(run):
    """All but who holds it."""
    return {path: path.read_bytes() for path in Path(run.path).rglob("[!.]*") if path.is_file()}
