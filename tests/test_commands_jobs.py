"""What the commands ask the jobs for, out of what is given."""

import functools
import json
from pathlib import Path

import commands
import pytest

from rice_jax import config as configuration
from rice_jax import reproduction, stages
from rice_jax.lighten import pruning, search, suggest, variants
from rice_jax.records import PruneRequest, SearchRequest

ROOT = Path(__file__).parents[1]


def test_a_run_s_own_configuration_is_gone_on_with(tmp_path, monkeypatch):
    saved = configuration.default("cnn")
    saved.train.epochs = 7
    (tmp_path / "config.json").write_text(json.dumps({"config": configuration.to_json(saved)}))
    seen = []
    monkeypatch.setattr(stages, "run_stages", lambda config, *_, **__: seen.append(config))
    done = commands.run("train", f"--workdir={tmp_path}", "--config.train.batch_size=8")
    assert done.returncode == 0, done.stderr
    saved.train.batch_size = 8
    assert seen == [saved]


@pytest.mark.parametrize("stage", ["inspect", "profile"])
def test_a_stage_that_is_taken_for_a_command_tells_how_it_is_asked_for(stage):
    done = commands.run(stage)
    assert done.returncode == 1
    assert f"{stage!r}: there is no such command; give rice-jax train --stages={stage} (" in (
        done.stderr
    )


@pytest.mark.parametrize(
    ("given", "does", "request_"),
    [
        (["--out=x", "--drop=dead", "--images=both"], "prune_run", PruneRequest("dead")),
        (
            ["--out=x", "--max-flops=1.5M", "--convention=xla", "--max_params=2k"],
            "prune_run",
            PruneRequest(budgets={"xla": 1_500_000, "params": 2000}),
        ),
        (  # of the study's 167,860,766 FLOPs, 17,301 parameters and 60 filters
            ["--out=x", "--max_flops=50%", "--max_params=12.5%", "--max_filters=0.1 %"],
            "prune_run",
            PruneRequest(budgets={"study": 83_930_383, "params": 2162, "filters": 1}),
        ),
        (
            ["--out=x", "--filters=conv1:4,conv3:0-2", "--on_unknown=keep"],
            "prune_run",
            PruneRequest(filters={"conv1": [4], "conv3": [0, 1, 2]}, on_unknown="keep"),
        ),
        (["--suggest", "--criterion=l1"], "suggest", PruneRequest(criterion="l1")),
        (
            ["--out=x", "--max_params=9", "--allocation=uniform", "--skip=conv1", "--round_to=8"],
            "prune_run",
            PruneRequest(budgets={"params": 9}, allocation="uniform", skip=("conv1",), round_to=8),
        ),
        (
            ["--out=x", "--max_filters=9", "--finetune_epochs=2", "--steps=3", "--seeds=1,2"],
            "with_baselines",
            PruneRequest(budgets={"filters": 9}, finetune_epochs=2, steps=3),
        ),
        (
            ["--out=x", "--drop=dead", "--drop_layers=auto", "--tail_margin=.1",
             "--on-unknown=keep"],
            "prune_run",
            PruneRequest("dead", drop_layers=("auto",), tail_margin=0.1, on_unknown="keep"),
        ),
    ],
)  # fmt: skip
def test_prune_asks_for_what_is_given(given, does, request_, tmp_path, monkeypatch):
    saved = configuration.to_json(configuration.default("final"))
    (tmp_path / "config.json").write_text(json.dumps({"config": saved}))
    asked = []
    jobs = ((pruning, "prune_run"), (suggest, "suggest"), (variants, "with_baselines"))
    for module, name in jobs:
        note = functools.partial(lambda name, *call: asked.append((name, *call)), name)
        monkeypatch.setattr(module, name, note)
    done = commands.run("prune", f"--workdir={tmp_path}", *given, "--config.train.augment")
    assert done.returncode == 0, done.stderr
    [(name, request, config, parent, out, *rest)] = asked
    assert (name, request, str(parent)) == (does, request_, str(tmp_path))
    assert config.train.augment
    assert str(out) == ("None" if does == "suggest" else "x")
    assert rest == ([(), (1, 2)] if does == "with_baselines" else [])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--out=x --filters=conv1", "--filters=conv1: give layers with numbers of their filters"),
        ("--suggest --filters=conv1:4", "--suggest tries budgets of its own"),
        ("--out=x --filters=conv1:4 --skip=conv2", "--skip changes nothing without --drop or a"),
        (
            "--out=x --filters=conv1:4 --criterion=l1",
            "--criterion changes nothing without a",
        ),
        ("--out=x", "give --drop, --filters, --max_flops"),
    ],
)
def test_what_does_not_go_with_chosen_filters_is_told(given, said, tmp_path):
    saved = configuration.to_json(configuration.default("final"))
    (tmp_path / "config.json").write_text(json.dumps({"config": saved}))
    done = commands.run("prune", f"--workdir={tmp_path}", *given.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_lighten_asks_for_what_is_given(tmp_path, monkeypatch):
    saved = configuration.to_json(configuration.default("final"))
    (tmp_path / "config.json").write_text(json.dumps({"config": saved}))
    asked = []
    monkeypatch.setattr(search, "search", lambda *call, **more: asked.append((*call, more)))
    given = [
        "--out=x",
        "--at-least=.9",
        "--steps=stem,layer,stem",
        "--finetune_epochs=3",
        "--estimate",
    ]
    for teacher in ("", "--config.train.teacher=zoo:micro"):
        done = commands.run("lighten", f"--workdir={tmp_path}", *given, *filter(None, [teacher]))
        assert done.returncode == 0, done.stderr
    (first, config, parent, out, said, more), (_, taught, *_) = asked
    assert first == SearchRequest(at_least=0.9, steps=("stem", "layer"), epochs=3)
    assert (str(parent), str(out), more) == (str(tmp_path), "x", {"estimate_only": True})
    assert (
        {"epochs", "steps", "at_least"} <= {*said} <= {*vars(first), "workdir", "out", "estimate"}
    )
    assert (config.train.teacher, taught.train.teacher) == (str(tmp_path), "zoo:micro")


def test_reproduce_asks_for_what_is_given(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        reproduction, "reproduce", lambda *given, **more: asked.update(given=given, more=more)
    )
    done = commands.run("reproduce", "--nets=cnn,final", "--config.train.epochs=2", "--estimate")
    assert done.returncode == 0, done.stderr
    config, fields, *rest = asked["given"]
    assert (config.train.epochs, fields) == (2, {"train.epochs": 2})
    assert rest == [("cnn", "final"), "runs", ""]
    assert asked["more"] == {"estimate_only": True}


def test_a_configuration_of_ones_own_takes_an_argument(tmp_path, monkeypatch):
    file = tmp_path / "mine"
    file.write_text(
        "from rice_jax.config import default\ndef get_config(net='cnn'):\n    return default(net)\n"
    )
    seen = []
    monkeypatch.setattr(
        stages, "run_stages", lambda config, *_, **__: seen.append(config.model.name)
    )
    for argument in (file, f"{file}:googlenet", "cnn_light", ROOT / "configs" / "final.py"):
        assert commands.run("train", f"--config={argument}").returncode == 0
    assert seen == ["cnn", "googlenet", "cnn_light", "final"]
