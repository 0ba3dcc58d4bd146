"""From a trained run's folder to a lighter run's folder, and what leaves nothing behind."""

import dataclasses
import os
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import whole_run

from rice_jax import config as configuration
from rice_jax import data, nets, train
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.lighten.pruning import prune_run
from rice_jax.lighten.remainder import Remainder
from rice_jax.records import PruneRequest, plain
from rice_jax.run import Run

pytestmark = pytest.mark.usefixtures("drawn_small")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return whole_run.settings(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def parent(settings, tmp_path_factory):
    return whole_run.made(settings, tmp_path_factory.mktemp("runs") / "whole")


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


def test_prune_json_gives_the_account(parent, lighter):
    account = lighter.read_json("prune.json")
    assert account["weights"] == train.load(parent).digest
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


@pytest.mark.parametrize("place", ["whole", "../whole", "{}/whole", "{}/link/whole"])
def test_a_pruning_goes_on_however_its_folders_are_spelled(settings, pruned, place, monkeypatch):
    run, out = pruned
    folder = run.path.parent
    told = {"request": plain(PruneRequest(drop="proven", parent=f"{folder.name}/whole"))}
    out.write_json("prune.json", told)
    narrow = configuration.from_json(out.read_json("config.json")["config"])
    taught = changed(narrow, "train.teacher", f"{folder.name}/whole")
    out.write_json("config.json", {"config": configuration.to_json(taught), "data": None})
    os.symlink(folder, folder / "link")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere" if place.startswith("..") else folder)
    given, place = [], place.format(folder)
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: given.append(args[0]))
    request, now = PruneRequest(drop="proven"), changed(settings, "train.teacher", place)
    prune_run(request, now, Run(place), out)
    assert given[0].train.teacher == place
    other = folder / "elsewhere" / "another"
    other.mkdir(parents=True)
    (other / "config.json").write_bytes((run.path / "config.json").read_bytes())
    with pytest.raises(UserError, match="was pruned with parent="):
        prune_run(request, now, Run(other), out)


@pytest.mark.parametrize("told", ["{}/whole", "whole", "runs/whole"])
def test_a_pruning_whose_run_was_moved_goes_on_as_it_says(settings, pruned, told, monkeypatch):
    run, out = pruned
    folder, told = run.path.parent, told.format(run.path.parent)
    request = PruneRequest(drop="proven")
    out.write_json("prune.json", {"request": plain(dataclasses.replace(request, parent=told))})
    monkeypatch.chdir(folder)
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *_: None)
    os.rename(run.path, folder / "moved")
    with pytest.raises(UserError, match=f"; if that run was moved, make {told} a link to where"):
        prune_run(request, settings, Run("moved"), out)
    os.makedirs(os.path.dirname(told) or ".", exist_ok=True)
    os.symlink(folder / "moved", told)
    for place in ("moved", folder / "moved", told):
        prune_run(request, settings, Run(place), out)
    with pytest.raises(UserError, match=r"remove that folder$"):  # that is another run
        prune_run(request, settings, Run(shutil.copytree("moved", "another")), out)


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


@pytest.mark.parametrize(("field", "value"), [("teacher", "nowhere"), ("frozen", ("conv9",))])
def test_what_training_would_refuse_is_told_before_a_pruning(field, value, settings, parent):
    out, asked = Run(parent.path.parent / "mistake"), changed(settings, f"train.{field}", value)
    with pytest.raises(UserError, match=r"nowhere': there is no such|conv9"):
        prune_run(PruneRequest(drop="proven", finetune_epochs=1), asked, parent, out)
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
        patch.setattr("rice_jax.lighten.removal.draw", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            prune_run(PruneRequest(drop="proven"), settings, parent, out)
    assert out.has("config.json")
    assert not out.has("prune.json")
    out.write_bytes("pruned_maps/conv3.png", b"of what was asked for before")
    prune_run(PruneRequest(drop="proven"), settings, parent, out)
    assert out.read_json("prune.json")["removed"] == {"conv1": [0, 2]}
    assert not out.has("pruning.json")
    assert out.has("pruned_maps/conv1.png")
    assert not out.has("pruned_maps/conv3.png")
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
    assert account["renamed"] == {"conv2": "conv1"}
    assert account["removed"]["conv1"] == [0, 1, 2, 3]
    assert len(account["kept"]["conv2"]) == 2
    assert account["budgets"]["filters"] == {"asked": 2, "met": 2, "under": 0}
    assert train.load(out).config.model.stages == ((), (2,))


def test_layers_are_told_in_the_order_in_which_they_run(settings, tmp_path):
    """Also the tenth convolution, and beside a stage that has none."""
    config = configuration.from_json(configuration.to_json(settings)).unlock()
    config.model.stages = ((2,) * 9, (), (3, 2))
    net = train.build(config)
    params = variable_shapes(net, train.input_shape(config))["params"]
    whole = Remainder.whole(config, dict(sorted(params.items())))  # as a checkpoint has them
    in_order = [*(f"conv{number}" for number in range(1, 12)), "dense", "head"]
    assert list(whole.kept) == list(whole.left_of(whole)) == in_order
    less = dataclasses.replace(whole, kept={path: [0] for path in sorted(in_order)})
    assert list(less.gone_from(whole)) == in_order


def test_a_pruning_that_dropped_a_frozen_layer_s_neighbour_goes_on(settings, parent, monkeypatch):
    """The layers that are left have other names, by which they are frozen as before."""
    done = []
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda config, *_: done.append(config))
    frozen = changed(settings, "train.frozen", ("conv1", "conv2"))
    out, request = Run(parent.path.parent / "frozen"), PruneRequest(drop_layers=("conv1",))
    for _ in ("at first", "given again"):
        prune_run(request, frozen, parent, out)
    assert [config.train.frozen for config in done] == [("conv1",)] * 2  # once conv2
    with pytest.raises(UserError, match=r"was pruned with config\.train\.frozen="):
        prune_run(request, changed(settings, "train.frozen", ("conv1",)), parent, out)


@pytest.mark.parametrize(("budget", "said"), [(7, True), (6, False)])
def test_a_budget_that_takes_nothing_is_told(
    budget, said, settings, parent, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: None)
    request = PruneRequest(budgets={"filters": budget}, criterion="l1")
    prune_run(request, settings, parent, Run(tmp_path / "out"))
    assert ("no filter was removed" in capsys.readouterr().out) == said


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


class CalledTwice(nn.Module):
    classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(6, (3, 3), name="block")(Convolving(name="own")(x)))
        again = nn.Conv(6, (3, 3), name="again")
        x = nn.relu(again(nn.relu(again(x))))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


@pytest.fixture
def own_run(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(nets, "_OWN", {})
    monkeypatch.setattr("rice_jax.stages.run_stages", lambda *args: None)
    return lambda module: whole_run.of_ones_own(module, settings, tmp_path / "own")


def test_a_layer_whose_kernel_has_another_name_is_pruned_and_told_of(own_run, tmp_path):
    (config, run), out = own_run(WithItsOwn), Run(tmp_path / "less")
    prune_run(PruneRequest(budgets={"filters": 7}, criterion="l1"), config, run, out)
    account = out.read_json("prune.json")
    kept = {path: len(account["kept"][path]) for path in ("own", "conv")}
    assert sum(kept.values()) == 7
    assert train.load(out).params["own"]["w"].shape == (3, 3, 3, kept["own"])
    gone = {path: len(account["removed"].get(path, ())) for path in kept}
    assert {path: gone[path] + kept[path] for path in kept} == {"own": 6, "conv": 4}


@pytest.mark.parametrize("ways", [{"budgets": {"filters": 9}}, {"drop_layers": ("block",)}])
@pytest.mark.one_in(2)
def test_layers_have_a_picture_each_but_for_those_whose_filters_no_account_tells(
    ways, own_run, tmp_path
):
    """A second call has none, nor have kernels of other names where layers alone were dropped."""
    (config, run), out = own_run(CalledTwice), Run(tmp_path / "less")
    prune_run(PruneRequest(**ways, criterion="l1"), config, run, out)
    kept = out.read_json("prune.json")["kept"]
    drawn = {each.stem for each in (out.path / "pruned_maps").iterdir()}
    assert drawn == {path for path, left in kept.items() if left} - {"head"}
    assert "again" in drawn
