"""Ways to one budget beside each other, and what further removal would cost."""

import dataclasses
import json
import shutil
import types
import unittest.mock

import jax
import numpy as np
import pytest
import whole_run
from report_runs import result

from rice_jax import config as configuration
from rice_jax import identity, records, train
from rice_jax.data import loader
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.lighten import candidate
from rice_jax.lighten.pruning import prune_run
from rice_jax.lighten.search import search
from rice_jax.lighten.suggest import suggest
from rice_jax.lighten.variants import with_baselines
from rice_jax.records import PruneRequest, SearchRequest, Suggestion, SuggestionsFile
from rice_jax.run import Run

pytestmark = pytest.mark.usefixtures("drawn_small")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return whole_run.settings(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def parent(settings, tmp_path_factory):
    return whole_run.made(settings, tmp_path_factory.mktemp("runs") / "whole")


def test_baselines_are_checked_before_anything_is_done(settings, parent):
    out = Run(parent.path.parent / "variants")
    for names, request, said in (
        (["best"], PruneRequest(), "--baselines=best: there are scratch, taylor, l1"),
        (["l1"], PruneRequest(drop="dead"), "need a budget"),
        (["scratch"], PruneRequest(drop="dead"), "give --finetune_epochs"),
    ):
        with pytest.raises(UserError, match=said):
            with_baselines(request, settings, parent, out, names, [0])
    with pytest.raises(UserError, match="--seeds: give one at least"):
        with_baselines(PruneRequest(finetune_epochs=1), settings, parent, out, ["scratch"], [])
    assert not out.path.exists()


@pytest.fixture
def given(parent, monkeypatch):
    """A list of accuracies that runs get, one after the other, instead of training.

    As many thousandths of a second are their latencies, of which none is that of a profile.
    """
    accuracies = []

    def measured(config, workdir, stages, settled=()):
        run, accuracy = Run(workdir), accuracies.pop(0)
        run.create()
        halves = {
            "clean": result() | {"accuracy": accuracy},
            "augmented": result() | {"accuracy": accuracy / 2},
        }
        run.write_json("evaluation.json", halves)
        time = {"measured": {"median": 99}}
        totals = {"params": 1, "flops": {"study": 1000 + 50 * ("random-seed1" in workdir)}}
        run.write_json("profile.json", {"totals": totals, "time": time})
        assert stages[0] == "train"
        scratch = "scratch" in workdir
        assert (config.model.weights == train.RANDOM) == scratch
        assert ("train.epochs" in settled) == scratch  # as many as the others have
        assert not (scratch and config.train.frozen)  # what is random has to learn

    monkeypatch.setattr("rice_jax.stages.run_stages", measured)

    def latency(run, _):
        assert not accuracies  # side by side: no net still trains
        whole = run.path == parent.path
        return 0.002 if whole else run.read_json("evaluation.json")["clean"]["accuracy"] / 1000

    monkeypatch.setattr("rice_jax.lighten.variants._latency", latency)
    return accuracies


@pytest.mark.thorough
def test_ways_to_a_budget_are_compared(settings, parent, given, monkeypatch, capsys):
    given += [0.9, 0.5, 0.6, 0.7, 0.3, 0.6]
    reported = []
    monkeypatch.setattr("rice_jax.report.write", reported.append)
    out = Run(parent.path.parent / "compared")
    request = PruneRequest(budgets={"filters": 5}, criterion="l1", finetune_epochs=2)
    with_baselines(request, settings, parent, out, ["scratch", "random", "l1"], [0, 1])
    content = out.read_json("variants.json")
    assert content["epochs"] == 2
    assert list(content["variants"]) == ["l1", "scratch", "random"]
    l1 = content["variants"]["l1"]
    assert [run["seed"] for run in l1["runs"]] == [0, 1]
    assert l1["clean"] == pytest.approx({"mean": 0.8, "spread": 0.02**0.5})
    assert content["variants"]["random"]["augmented"] == {"mean": 0.3, "spread": 0.0}
    assert content["whole_latency_seconds"] == 0.002
    assert l1["latency"]["mean"] == pytest.approx(0.0008)
    told = capsys.readouterr().out
    assert "l1: clean 0.8000 +- 0.1414, augmented 0.4000 +- 0.0707, 1,000 FLOPs" in told
    assert (
        "random: clean 0.6000 +- 0.0000, augmented 0.3000 +- 0.0000, 1,000 to 1,050 FLOPs" in told
    )
    assert reported == [out]


def test_one_seed_has_no_spread_and_dead_filters_no_criterion(
    settings, parent, given, monkeypatch, capsys
):
    given += [0.5, 0.4]
    monkeypatch.setattr("rice_jax.report.write", lambda run: None)
    out = Run(parent.path.parent / "one_seed")
    request = PruneRequest(drop="proven", finetune_epochs=1)
    frozen = configuration.from_json(configuration.to_json(settings))
    with frozen.unlocked():
        frozen.train.frozen = ("conv1",)
    with_baselines(request, frozen, parent, out, ["scratch"], [3])
    variants = out.read_json("variants.json")["variants"]
    assert list(variants) == ["proven", "scratch"]
    assert variants["proven"]["clean"] == {"mean": 0.5, "spread": None}
    assert variants["scratch"]["latency"]["mean"] == pytest.approx(0.0004)
    assert "proven: clean 0.5000, augmented 0.2500, 1,000 FLOPs, seed 3" in capsys.readouterr().out


@pytest.mark.parametrize("seeds", [[5], [5, 6]])
def test_variants_of_another_seed_and_size_share_the_run_s_images_and_its_own_speed(
    seeds, settings, parent, tmp_path, monkeypatch
):
    """The splits are those of the trained run, and the whole net is timed at the variants' size."""
    given = configuration.from_json(configuration.to_json(settings))
    given.seed, given.data.image_size = seeds[0], 32
    begun, timed = [], []

    def stages(config, *_, **__):
        begun.append((config.seed, configuration.split_seed(config)))

    monkeypatch.setattr("rice_jax.lighten.variants.prune_run", lambda _, each, *__: stages(each))
    monkeypatch.setattr("rice_jax.lighten.variants._measured", lambda _, seed, __: told(seed))
    monkeypatch.setattr("rice_jax.lighten.variants.train.load", lambda _: unittest.mock.Mock())
    monkeypatch.setattr("rice_jax.report.write", lambda _: None)

    def latency(module, variables, shape, **_):
        timed.append(tuple(shape))
        return {"median": 0.002}

    monkeypatch.setattr("rice_jax.profile.latency", latency)
    request = PruneRequest(drop="dead", finetune_epochs=1)
    with_baselines(request, given, parent, Run(tmp_path / "out"), [], seeds)
    assert begun == [(seed, 0) for seed in seeds]
    assert timed == [(32, 32, 3)]


@pytest.mark.parametrize("others", [True, False, None])
def test_seeds_are_not_mixed_with_those_that_were_pruned_from_other_weights(
    others, settings, parent, tmp_path, monkeypatch
):
    """The run may have learned on meanwhile; older versions did not tell which weights it had."""
    out = Run(tmp_path / "out")
    out.create()
    whole = train.load(parent)
    changed = jax.tree.map(lambda leaf: leaf + 1, whole.params)
    made_of = {True: dataclasses.replace(whole, params=changed).digest, False: whole.digest}
    request = PruneRequest(drop="dead", finetune_epochs=1)
    records.write(out, records.PruneFile(request=request, weights=made_of.get(others)))
    reached = unittest.mock.Mock(side_effect=SystemExit)
    monkeypatch.setattr("rice_jax.lighten.variants.prune_run", reached)
    said = f"{out} was begun when {parent} had other weights"
    with pytest.raises(UserError if others else SystemExit, match=said if others else None):
        with_baselines(request, settings, parent, out, ["scratch"], [0, 1])
    assert reached.called != bool(others)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_net_from_random_weights_trains_as_long_as_the_pruned_one_in_all_its_steps(
    steps, settings, parent, tmp_path, monkeypatch
):
    trained = []

    def pruned(request, config, parent, out):
        with config.unlocked():
            configuration.set_epochs(config, request.finetune_epochs)
        out.create()
        changed = {"config": configuration.to_json(config)}
        out.write_json("config.json", parent.read_json("config.json") | changed)

    def stages(config, *_, **__):
        trained.append((config.train.epochs, *config.train.quick.epochs))

    monkeypatch.setattr("rice_jax.lighten.variants.prune_run", pruned)
    monkeypatch.setattr("rice_jax.stages.run_stages", stages)
    monkeypatch.setattr("rice_jax.lighten.variants._measured", lambda _, seed, __: told(seed))
    monkeypatch.setattr("rice_jax.lighten.variants._latency", lambda *_: 0.002)
    monkeypatch.setattr("rice_jax.report.write", lambda _: None)
    request = PruneRequest(budgets={"filters": 5}, steps=steps, finetune_epochs=2)
    out = Run(tmp_path / "out")
    with_baselines(request, settings, parent, out, ["scratch"], [0])
    assert trained == [(2 * steps, 2 * steps)]
    assert out.read_json("variants.json")["epochs"] == 2 * steps


def told(seed):
    return records.SeedTold(seed=seed, clean=0.5, augmented=0.5, flops=1, latency=0.001)


def test_suggestions_are_of_the_run_s_own_net_and_splits(settings, parent):
    for section, change in (("model", {"dense": 5}), ("data", {"split_seed": 7})):
        other = configuration.from_json(configuration.to_json(settings))
        with other.unlocked():
            other[section].update(change)
        with pytest.raises(UserError, match="the run's own"):
            suggest(PruneRequest(), other, parent, None)
    # Its images are split by the seed that it was trained with, whatever the seed is now.
    reseeded = configuration.from_json(configuration.to_json(settings))
    reseeded.seed = 3
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rice_jax.lighten.suggest.SHARES", (0.5,))
        patch.setattr("rice_jax.lighten.suggest._measured", lambda config, *_: seen.append(config))
        patch.setattr("rice_jax.lighten.suggest._print", lambda *_: None)
        patch.setattr("rice_jax.lighten.smaller.prune", refusing)
        suggest(PruneRequest(on_unknown="keep"), reseeded, parent, None)
    assert configuration.split_seed(seen[0]) == 0


@pytest.mark.parametrize("pooling", ["flatten", "average"])
@pytest.mark.parametrize("command", ["suggest", "prune", "lighten"])
def test_images_of_a_size_that_the_run_s_net_does_not_take_are_refused(
    command, pooling, settings, tmp_path, monkeypatch
):
    """One that averages its maps takes any but such as it would pool away."""
    flat = configuration.from_json(configuration.to_json(settings)).unlock()
    flat.model.pooling = pooling
    run, out = whole_run.made(flat, tmp_path / "whole"), Run(tmp_path / "out")
    reached = unittest.mock.Mock(side_effect=SystemExit)  # what comes first then
    monkeypatch.setattr(identity, "load_own", reached)
    for side in (48, 3):
        flat.data.image_size = side
        done = {
            "suggest": lambda: suggest(PruneRequest(), flat, run, None),
            "prune": lambda: prune_run(PruneRequest(drop="dead"), flat, run, out),
            "lighten": lambda: search(SearchRequest(), flat, run, out),
        }
        taken = pooling == "average" and side == 48
        with pytest.raises(SystemExit if taken else UserError) as stopped:
            done[command]()
        assert taken or f"image_size={side}: the run was trained on" in str(stopped.value)


def refusing(*_, on_unknown, **__):
    assert on_unknown == "keep"
    raise UserError("cannot be met")


def test_a_suggestion_is_the_net_that_pruning_leaves_its_norms_measured_anew(
    settings, parent, monkeypatch
):
    monkeypatch.setattr("rice_jax.lighten.suggest.SHARES", (0.5,))
    measured = []

    def settled(config, params, dataset):
        shapes = variable_shapes(train.build(config), train.input_shape(config))["params"]
        assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
        return jax.tree.map(lambda leaf: leaf + 1, params)

    def evaluated(config, module, params, *_):
        measured.append(params)
        told = {"cost": 1, "params": 1, "filters_removed": 0, "clean": 1.0, "augmented": 1.0}
        return Suggestion(**told)

    def prune(module, variables, images, **_):
        return types.SimpleNamespace(module=module, variables=variables, removed={}, after={})

    monkeypatch.setattr("rice_jax.lighten.smaller.prune", prune)
    monkeypatch.setattr("rice_jax.lighten.child.settled", settled)
    monkeypatch.setattr("rice_jax.lighten.suggest._measured", evaluated)
    suggest(PruneRequest(criterion="l1"), settings, parent, None)
    whole, cut = measured
    jax.tree.map(np.testing.assert_array_equal, cut, jax.tree.map(lambda leaf: leaf + 1, whole))


def test_suggestions_leave_the_run_alone(settings, parent, capsys, monkeypatch):
    monkeypatch.setattr("rice_jax.lighten.suggest.SHARES", (0.5, 0.01))

    def files():
        return sorted(path.name for path in parent.path.iterdir())

    before = files()
    out = Run(parent.path.parent / "suggestions")
    suggest(PruneRequest(criterion="l1"), settings, parent, out)
    assert files() == before
    rows = records.read(out, SuggestionsFile).rows
    costs = [row.cost for row in rows]
    assert costs == sorted(costs, reverse=True)
    assert costs[1] <= costs[0] / 2
    assert "cannot be met" in capsys.readouterr().out
    assert json.dumps(rows[1].removed)
    assert out.has("suggestions.png")


@pytest.mark.parametrize("asked", ["suggestions", "a candidate's accuracy", "a candidate"])
def test_images_are_read_by_as_many_threads_as_are_asked_for(
    asked, settings, parent, tmp_path, monkeypatch
):
    """Also of a candidate that was begun by a command that asked for others."""
    threads, in_order = [], loader.in_order

    def watched(*args, workers, **more):
        threads.append(workers)
        return in_order(*args, workers=workers, **more)

    monkeypatch.setattr(loader, "in_order", watched)
    now = configuration.from_json(configuration.to_json(settings)).unlock()
    now.data.workers = 2
    if asked == "suggestions":
        monkeypatch.setattr("rice_jax.lighten.suggest.SHARES", ())
        suggest(PruneRequest(), now, parent, None)
    else:
        dataset = identity.load_own(now, parent)
        workshop = candidate.Workshop(Run(tmp_path), parent, now, dataset, "flops")
        if asked == "a candidate":
            shutil.copytree(parent.path, workshop.folder("+few").path)
            step = {"name": "+few", "out_of": "", "step": "few", "removed": {}, "why": ""}
            records.write(workshop.folder("+few"), records.made(records.StepFile, step))
            learning = []
            monkeypatch.setattr(train, "train", lambda config, *_: learning.append(config))
            workshop.finish("+few")
            assert [config.data.workers for config in learning] == [2]
        else:
            workshop.accuracy(train.load(parent), "validation", "clean")
    assert set(threads) == {2}
