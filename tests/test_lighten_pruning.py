"""From a trained run's folder to a lighter run's folder, and what leaves nothing behind."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from report_runs import result

from rice_jax import config as configuration
from rice_jax import data, nets, own_net, records, train
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.lighten.pruning import prune_run
from rice_jax.lighten.suggest import suggest
from rice_jax.lighten.variants import with_baselines
from rice_jax.records import PruneRequest, SuggestionsFile, plain
from rice_jax.run import Run

pytestmark = pytest.mark.usefixtures("drawn_small")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    config = configuration.default("final")
    config.model.update(stages=((4,), (3,)), dense=4)
    config.data.update(
        path="synthetic",
        cache_dir=str(tmp_path_factory.mktemp("cache")),
        synthetic_per_class=10,
        image_size=24,
    )
    config.train.update(epochs=1, batch_size=16)
    config.eval.batch_size = 16
    return config


@pytest.fixture(scope="module")
def parent(settings, tmp_path_factory):
    """A run as training leaves it, two of whose filters no image wakes."""
    run = Run(tmp_path_factory.mktemp("runs") / "whole")
    shapes = variable_shapes(train.build(settings), (1, 24, 24, 3))
    params = prunable.random_variables(shapes, 0)["params"]
    params = jax.tree.map(lambda array: np.abs(array) * 0.3, params)
    params["conv1"]["bias"][[0, 2]] = -100
    dataset = data.load("synthetic", settings.data.cache_dir, seed=0, synthetic_per_class=10)
    train.begin(settings, run, dataset, params)
    about = {"name": dataset.name, "synthetic": True, "fingerprint": dataset.fingerprint}
    about |= {"classes": list(dataset.classes), "images": {}, "skipped": 0}
    content = {"config": configuration.to_json(settings), "versions": {}, "seed": 0, "data": about}
    run.write_json("config.json", content)
    return run


@pytest.fixture(scope="module")
def lighter(settings, parent):
    out = Run(parent.path.parent / "lighter")
    prune_run(PruneRequest(drop="proven"), settings, parent, out)
    return out


def test_the_lighter_run_is_a_run(lighter):
    trained = train.load(lighter)
    assert trained.config.model.stages == ((2,), (3,))
    assert trained.params["conv1"]["kernel"].shape == (3, 3, 3, 2)
    for name in ("evaluation.json", "profile.json", "dead_filters.json", "report.md"):
        assert lighter.has(name)
    assert lighter.read_json("profile.json")["totals"]["filters"] == 5


def test_a_run_of_a_version_with_fewer_fields_is_loaded(settings, parent, tmp_path):
    old = configuration.from_json(configuration.to_json(settings)).unlock()
    del old.model.grid, old.model.stem_stride, old.train.images
    run, content = Run(tmp_path / "old"), parent.read_json("config.json")
    dataset = data.load("synthetic", settings.data.cache_dir, seed=0, synthetic_per_class=10)
    train.begin(old, run, dataset, train.load(parent).params)
    run.write_json("config.json", content | {"config": configuration.to_json(old)})
    assert train.load(run).config.model.grid == 0


def test_prune_json_gives_the_account(lighter):
    account = lighter.read_json("prune.json")
    assert account["removed"] == {"conv1": [0, 2]}
    assert account["kept"]["conv1"] == [1, 3]
    assert account["certificate"]["max_abs_logit_difference"] < 1e-5
    assert account["certificate"]["proven"]
    assert account["certificate"]["images"] == 10  # five validation images, clean and augmented
    assert account["before"]["filters"] == 7
    assert account["after"] == {
        **lighter.read_json("profile.json")["totals"]["flops"],
        "params": 9 * (3 * 2 + 2 * 3) + 2 + 3 + 3 * 4 + 4 + 4 * 5 + 5,
        "filters": 5,
        "uncounted": 0,
    }
    assert lighter.has("filters.png")
    assert lighter.has("pruned_maps/conv1.png")


def test_the_lighter_net_says_what_the_whole_one_says(parent, lighter):
    x = jnp.asarray(np.random.default_rng(0).random((2, 24, 24, 3)), jnp.float32)
    whole, light = (train.load(run) for run in (parent, lighter))
    before, after = (net.module.apply({"params": net.params}, x) for net in (whole, light))
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_the_same_command_goes_on_and_another_is_refused(settings, parent, lighter, monkeypatch):
    done = []
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: done.append(args[2]))
    before = lighter.read_json("prune.json")
    prune_run(PruneRequest(drop="proven"), settings, parent, lighter)
    assert done == [["evaluate", "profile", "inspect"]]
    assert lighter.read_json("prune.json") == before
    with pytest.raises(UserError, match="was pruned with drop=proven, not dead"):
        prune_run(PruneRequest(drop="dead"), settings, parent, lighter)


def changed(config, field, value):
    made = configuration.from_json(configuration.to_json(config))
    with made.unlocked():
        made.update_from_flattened_dict({field: value})
    return made


@pytest.fixture
def pruned(settings, tmp_path):
    """A run's folder and that of its pruning, as far as going on looks at them."""
    run, out = Run(tmp_path / "whole"), Run(tmp_path / "pruned")
    narrow = changed(changed(settings, "model.stages", ((2,), (3,))), "data.split_seed", 0)
    for folder, config in ((run, settings), (out, narrow)):
        folder.create()
        content = {"config": configuration.to_json(config), "data": None}
        folder.write_json("config.json", content)
    out.write_json("prune.json", {"request": plain(PruneRequest(drop="proven", parent=str(run)))})
    return run, out


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("train.learning_rate", 0.5, "was pruned with config.train.learning_rate=0.001, not 0.5"),
        ("data.image_size", 32, "was pruned with config.data.image_size=24, not 32"),
        ("seed", 7, "was pruned with config.seed=0, not 7"),
        ("model.dense", 9, "--config.model fields are the run's own"),
        ("data.split_seed", 7, "--config.data.split_seed is the run's own"),
    ],
)
def test_settings_that_a_pruning_had_otherwise_are_refused(settings, pruned, field, value, said):
    with pytest.raises(UserError, match=said):
        prune_run(PruneRequest(drop="proven"), changed(settings, field, value), *pruned)


@pytest.mark.parametrize(("field", "value"), [("eval.batch_size", 3), ("data.workers", 2)])
def test_settings_that_may_change_are_obeyed_when_a_pruning_goes_on(
    settings, pruned, monkeypatch, field, value
):
    given = []
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda config, *_: given.append(config))
    prune_run(PruneRequest(drop="proven"), changed(settings, field, value), *pruned)
    section, _, name = field.partition(".")
    assert given[0][section][name] == value
    assert given[0].model.stages == ((2,), (3,))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (PruneRequest(budgets={"study": 0}), "a budget of 0 leaves nothing"),
        (PruneRequest(budgets={"filters": 1}), "a budget of 1 cannot be met"),
        (PruneRequest(drop_layers=("head",)), "final can drop conv1, conv2"),
        (PruneRequest(drop="dead", steps=2), "--steps needs a budget and --finetune_epochs"),
        (PruneRequest(drop="dead", finetune_epochs=-1), "--finetune_epochs 0 or more"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(request_, said, settings, parent):
    out = Run(parent.path.parent / "mistake")
    with pytest.raises(UserError, match=said):
        prune_run(request_, settings, parent, out)
    assert not out.path.exists()


@pytest.mark.parametrize("name", ["steps/1/notes.txt", "checkpoints/model.pt", "history.csv"])
def test_what_no_pruning_made_stays(name, settings, parent, tmp_path):
    theirs = tmp_path / name
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_text("theirs")
    with pytest.raises(UserError, match=f"has a {name.partition('/')[0]} that no run made"):
        prune_run(PruneRequest(drop="proven"), settings, parent, Run(tmp_path))
    assert theirs.read_text() == "theirs"


def test_a_pruning_that_broke_off_begins_again(settings, parent, monkeypatch):
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: None)
    out = Run(parent.path.parent / "broken_off")
    with monkeypatch.context() as patch:
        patch.setattr("rice_jax.lighten.pruning._draw", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            prune_run(PruneRequest(drop="proven"), settings, parent, out)
    assert out.has("config.json")
    assert not out.has("prune.json")
    prune_run(PruneRequest(drop="proven"), settings, parent, out)
    assert out.read_json("prune.json")["removed"] == {"conv1": [0, 2]}
    assert not out.has("pruning.json")
    assert train.load(out).params["conv1"]["kernel"].shape == (3, 3, 3, 2)


def test_a_pruning_killed_at_its_last_file_leaves_no_half_behind(settings, pruned, monkeypatch):
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: None)
    _, out = pruned
    out.write_json("pruning.json", {})
    prune_run(PruneRequest(drop="proven"), settings, *pruned)
    assert not out.has("pruning.json")
    assert out.has("prune.json")


def _interrupted(*_):
    raise KeyboardInterrupt


def test_the_page_tells_what_was_removed(lighter):
    page = (lighter.path / "report.md").read_text()
    assert "## Pruning" in page
    assert "| filters | 7 | 5 | 71.43 % |" in page
    assert "| `conv1` | 2 | 0, 2 |" in page
    assert "for every image there can be" in page
    assert "(filters.png)" in page
    assert "(pruned_maps/conv1.png)" in page


def test_the_run_itself_is_never_written_to(settings, parent):
    with pytest.raises(UserError, match="is the run itself"):
        prune_run(PruneRequest(drop="dead"), settings, parent, Run(parent.path))


def test_a_budget_with_a_dropped_layer_keeps_the_original_names(settings, parent, monkeypatch):
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: None)
    out = Run(parent.path.parent / "shorter")
    request = PruneRequest(drop_layers=("conv1",), budgets={"filters": 2}, criterion="l1")
    prune_run(request, settings, parent, out)
    account = out.read_json("prune.json")
    assert account["dropped_layers"] == ["conv1"]
    assert account["started_anew"] == ["conv1"]  # once conv2: it read four channels, now three
    assert account["removed"]["conv1"] == [0, 1, 2, 3]
    assert len(account["kept"]["conv2"]) == 2
    assert account["budgets"]["filters"] == {"asked": 2, "met": 2, "under": 0}
    assert train.load(out).config.model.stages == ((), (2,))


def test_training_after_removal_takes_the_epochs_asked_for_by_either_schedule(
    settings, parent, monkeypatch
):
    trained = []
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda config, *_: trained.append(config))
    quick = configuration.from_json(configuration.to_json(settings))
    quick.train.schedule = "quick"
    out = Run(parent.path.parent / "quick")
    for _ in ("at first", "given again"):
        prune_run(PruneRequest(drop="proven", finetune_epochs=3), quick, parent, out)
    for found in trained:
        assert found.train.schedule == "quick"
        assert train.image_sizes(found) == (24,) * 3
    assert len(trained) == 2


def test_baselines_are_checked_before_anything_is_done(settings, parent):
    out = Run(parent.path.parent / "variants")
    for names, request, said in (
        (["best"], PruneRequest(), "--baselines=best: there are scratch, taylor, l1"),
        (["l1"], PruneRequest(drop="dead"), "need a budget"),
        (["scratch"], PruneRequest(drop="dead"), "give --finetune_epochs"),
    ):
        with pytest.raises(UserError, match=said):
            with_baselines(request, settings, parent, out, names, [0])
    assert not out.path.exists()


@pytest.fixture
def given(monkeypatch):
    """A list of accuracies that runs get, one after the other, instead of training."""
    accuracies = []

    def measured(config, workdir, stages, settled=()):
        run, accuracy = Run(workdir), accuracies.pop(0)
        run.create()
        halves = {
            "clean": result() | {"accuracy": accuracy},
            "augmented": result() | {"accuracy": accuracy / 2},
        }
        run.write_json("evaluation.json", halves)
        time = {"measured": {"median": accuracy / 1000}}
        totals = {"params": 1, "flops": {"study": 1000}}
        run.write_json("profile.json", {"totals": totals, "time": time})
        assert stages[0] == "train"
        scratch = "scratch" in workdir
        assert (config.model.weights == train.RANDOM) == scratch
        assert ("train.epochs" in settled) == scratch  # as many as the others have

    monkeypatch.setattr("rice_jax.stages.run_stages", measured)
    monkeypatch.setattr("rice_jax.profile.latency", lambda *_, **__: {"median": 0.002})
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
    assert "l1: clean 0.8000 +- 0.1414, augmented 0.4000 +- 0.0707, 1,000 FLOPs" in (
        capsys.readouterr().out
    )
    assert reported == [out]


def test_one_seed_has_no_spread_and_dead_filters_no_criterion(
    settings, parent, given, monkeypatch, capsys
):
    given += [0.5, 0.5]
    monkeypatch.setattr("rice_jax.report.write", lambda run: None)
    out = Run(parent.path.parent / "one_seed")
    request = PruneRequest(drop="proven", finetune_epochs=1)
    with_baselines(request, settings, parent, out, ["scratch"], [3])
    variants = out.read_json("variants.json")["variants"]
    assert list(variants) == ["proven", "scratch"]
    assert variants["proven"]["clean"] == {"mean": 0.5, "spread": None}
    assert "proven: clean 0.5000, augmented 0.2500, 1,000 FLOPs, seed 3" in capsys.readouterr().out


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
        patch.setattr("rice_jax.lighten.suggest.prune", refusing)
        suggest(PruneRequest(on_unknown="keep"), reseeded, parent, None)
    assert configuration.split_seed(seen[0]) == 0


def refusing(*_, on_unknown, **__):
    assert on_unknown == "keep"
    raise UserError("cannot be met")


class Convolving(nn.Module):
    """A convolution whose parameters have names of their own."""

    features: int = 6

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.he_normal(), (3, 3, x.shape[-1], self.features))
        named = ("NHWC", "HWIO", "NHWC")
        return nn.relu(jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=named))


class WithItsOwn(nn.Module):
    classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), 2, name="conv")(Convolving(name="own")(x)))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


def test_a_layer_whose_kernel_has_another_name_is_pruned_and_told_of(
    settings, parent, tmp_path, monkeypatch
):
    monkeypatch.setattr(nets, "_OWN", {})
    config = own_net.configuration(WithItsOwn, classes=5)
    with config.unlocked():
        config.data.update(settings.data)
        config.train.update(epochs=1, batch_size=16)
        config.eval.batch_size = 16
    shapes = variable_shapes(train.build(config), (1, 24, 24, 3))
    dataset = data.load("synthetic", settings.data.cache_dir, seed=0, synthetic_per_class=10)
    run, out = Run(tmp_path / "own"), Run(tmp_path / "less")
    train.begin(config, run, dataset, prunable.random_variables(shapes, 0)["params"])
    content = parent.read_json("config.json") | {"config": configuration.to_json(config)}
    run.write_json("config.json", content)
    prune_run(PruneRequest(budgets={"filters": 7}, criterion="l1"), config, run, out)
    account = out.read_json("prune.json")
    kept = {path: len(account["kept"][path]) for path in ("own", "conv")}
    assert sum(kept.values()) == 7
    assert train.load(out).params["own"]["w"].shape == (3, 3, 3, kept["own"])
    gone = {path: len(account["removed"].get(path, ())) for path in kept}
    assert {path: gone[path] + kept[path] for path in kept} == {"own": 6, "conv": 4}


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
