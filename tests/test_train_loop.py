"""The recipe from start to end, and what befalls it on the way: nothing is lost, all is said."""

import io
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training
from processes import alike
from tiny_training import assert_same, config, dataset, newest, rows, watched

from rice_jax import bar, evaluate, train
from rice_jax.commands import process
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train import loop

# A plateau after every epoch, so that a state lost on the way would show.
RECIPE = {"plateau_patience": 1, "plateau_min_delta": 1.0, "batch_size": 20}


def store_config(run, settings):
    run.write_json("config.json", {"config": to_json(settings)})


@pytest.fixture(scope="module")
def settings():
    return config(**RECIPE)


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """A run of three epochs that nothing befell."""
    run = Run(tmp_path_factory.mktemp("finished"))
    store_config(run, settings)
    written = []
    train.train(settings, run, dataset(), lambda: written.append(len(rows(run))))
    assert written == [1, 2, 3]  # rows of history.csv as each epoch was told
    return run


def copied(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    return Run(tmp_path / "copy")


def test_history_has_a_row_for_each_epoch(finished):
    history = rows(finished)
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert [float(row["learning_rate"]) for row in history] == pytest.approx([0.01, 0.01, 0.002])
    assert all(float(row["images_per_second"]) > 0 for row in history)
    parts = ("decoding", "feeding", "step", "validation")
    for row in history:
        spent = [float(row[f"{part}_seconds"]) for part in parts]
        assert min(spent) > 0
        assert sum(spent) <= float(row["seconds"]) + 0.005  # rounded, each
    assert [float(row["saving_seconds"]) > 0 for row in history] == [False, True, True]


def test_weights_that_take_long_to_prepare_are_told_of(settings, tmp_path, monkeypatch):
    """Those of a net of fifty layers take seconds, before any image is counted."""
    told = threading.Event()
    stderr = io.StringIO()
    stderr.write = lambda text: "preparing the first weights: " in text and told.set()

    def slowly(*args, **fields):
        assert told.wait(60)
        raise UserError("they are not to be had")

    monkeypatch.setattr(loop.weights, "initial_params", slowly)
    monkeypatch.setattr(sys, "stderr", stderr)
    for seconds in ("_OFTEN", "_SHORT", "_LOOK_SECONDS"):
        monkeypatch.setattr(bar, seconds, 0.001)
    before = threading.active_count()
    with pytest.raises(UserError, match="not to be had"):
        train.train(settings, Run(tmp_path), dataset())
    assert threading.active_count() == before


def test_the_best_epoch_is_what_is_loaded(finished, settings):
    history = rows(finished)
    trained = train.load(finished)
    best = min(history, key=lambda row: float(row["val_loss"]))
    assert trained.epoch == int(best["epoch"])
    assert trained.classes == tiny_training.CLASSES
    found = evaluate.evaluate(
        trained.module,
        trained.params,
        dataset().splits["validation"],
        classes=trained.classes,
        image_size=tiny_training.SIZE,
        batch_size=64,
    )
    assert found.loss == pytest.approx(float(best["val_loss"]), rel=1e-6)
    assert found.accuracy == float(best["val_accuracy"])


def test_a_finished_run_is_not_trained_again(finished, settings, capsys):
    before = newest(finished, settings)
    train.train(settings, finished, watched("train", 1, pytest.fail))
    assert_same(newest(finished, settings), before)
    assert "all 3 epochs done; best is epoch 3" in capsys.readouterr().out


def test_more_epochs_go_on_where_the_run_ended(finished, settings, tmp_path):
    longer = config(**RECIPE | {"epochs": 4})
    train.train(longer, Run(tmp_path / "at once"), dataset())
    later = copied(finished, tmp_path)
    train.train(longer, later, dataset())
    assert_same(newest(later, longer), newest(Run(tmp_path / "at once"), longer))
    assert [row["epoch"] for row in rows(later)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("epochs", [3, 4])
def test_what_was_measured_of_other_weights_goes_before_a_run_learns_on(finished, tmp_path, epochs):
    """Also where it is stopped at its first image; what is of the net alone stays."""
    of_weights = {"evaluation.json", "dead_filters.json", "feature_maps.json", "summary.json"}
    of_weights |= {"confusion_matrix_clean.png", "confusion_matrix_augmented.png"}
    of_weights |= {"dead_filters.png", "report.md"}
    later = copied(finished, tmp_path)
    for name in (*of_weights, "profile.json", "prune.json", "flops.png", "report.html"):
        later.write_text(name, "{}")
    before = {path.name for path in later.path.iterdir()}

    def stop():
        raise MemoryError

    images = watched("train", 1, stop)
    if epochs == 3:
        train.train(config(**RECIPE), later, images)
    else:
        with pytest.raises(MemoryError):
            train.train(config(**RECIPE | {"epochs": epochs}), later, images)
    left = {path.name for path in later.path.iterdir()}
    assert before - left == (set() if epochs == 3 else of_weights)


@pytest.mark.parametrize(
    ("split", "reading", "number", "ending"),
    [
        ("train", 190, signal.SIGTERM, SystemExit),
        ("train", 101, signal.SIGINT, KeyboardInterrupt),
        ("validation", 25, signal.SIGTERM, SystemExit),
    ],
)
@pytest.mark.one_in(2)
def test_an_interrupted_run_ends_as_if_it_never_was(
    finished, settings, tmp_path, split, reading, number, ending
):
    run = Run(tmp_path)
    if number == signal.SIGINT:  # ignored where a shell started the tests in the background
        signal.signal(number, signal.default_int_handler)
    images = watched(split, reading, lambda: signal.raise_signal(number))
    images.workers = 1
    with pytest.raises(ending) as stopped:
        train.train(settings, run, images)
    assert getattr(stopped.value, "code", 143) == 143
    assert signal.getsignal(number) not in (None, signal.SIG_IGN)
    assert len(rows(run)) < 3
    train.train(settings, run, dataset())
    assert_same(newest(run, settings), newest(finished, settings))
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]


ALONE = """
import sys
import test_train_loop as here
from rice_jax import train
from rice_jax.commands import process
from rice_jax.run import Run
"""
KILLED = f"""{ALONE}
train.train(here.config(**here.RECIPE, save_seconds=0), Run(sys.argv[1]), here.dataset())
"""
FULL = f"""{ALONE}
import resource

def fill():  # no file may grow beyond 200 bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))

images = here.watched("train", 140, fill)
process.run(lambda: train.train(here.config(**here.RECIPE), Run(sys.argv[1]), images))
"""


def begun(program, run):
    """A process of its own that trains."""
    return subprocess.Popen(
        [sys.executable, "-c", program, str(run)],
        env=alike(),
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_it_went_on(run, settings, finished):
    train.train(settings, run, dataset())
    assert_same(newest(run, settings), newest(finished, settings))
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]


def test_a_killed_run_ends_as_if_it_never_was(finished, settings, tmp_path):
    run = Run(tmp_path / "run")
    with begun(KILLED, run) as child:
        assert any(line.startswith("epoch   1/3") for line in child.stdout)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert_it_went_on(run, settings, finished)


def test_another_training_is_refused_in_the_same_folder(finished):
    with pytest.raises(UserError, match=r"config\.train\.batch_size=20, not 25"):
        train.train(config(**RECIPE | {"batch_size": 25}), finished, dataset())
    images = dataset()
    images.fingerprint = "others"
    with pytest.raises(UserError, match="other images"):
        train.train(config(**RECIPE), finished, images)


def test_a_loss_that_is_not_finite_ends_the_run_and_says_where(settings, tmp_path, monkeypatch):
    compiled = loop.train_step

    def exploding(*args, **kwargs):
        step = compiled(*args, **kwargs)

        def explode_once(state, batch, index, rate):
            if index == 7:
                huge = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e30), state.trainable)
                state = state.replace(trainable=huge)
            return step(state, batch, index, rate)

        return explode_once

    monkeypatch.setattr(loop, "train_step", exploding)
    run = Run(tmp_path)
    store_config(run, settings)
    with pytest.raises(UserError) as stopped:
        train.train(settings, run, dataset())
    text = str(stopped.value)
    assert "not finite at step 8 (epoch 2, batch 3), at a learning rate of 0.01" in text
    assert "it first shows in dense; epoch 1 stays the best" in text
    assert train.load(run).epoch == 1


def test_a_net_that_cannot_learn_is_named_and_stopped(tmp_path, monkeypatch, capsys):
    settings = config(**RECIPE | {"on_collapse": "stop"})
    random = loop.weights.initial_params

    def dead(config, module, *, seed, given):
        params = jax.tree.map(np.array, random(config, module, seed=seed))
        params["conv1"]["bias"][:] = -100
        return params

    monkeypatch.setattr(loop.weights, "initial_params", dead)
    run = Run(tmp_path)
    train.train(settings, run, dataset())
    said = capsys.readouterr().out
    assert "conv1 is the first layer whose maps are all dead" in said
    assert "no gradient reaches conv1, dense: this net cannot learn" in said
    assert "trained: the net does not learn" in said
    assert len(rows(run)) == 1
    # The field may change in the same folder.
    monkeypatch.setattr(loop.weights, "initial_params", random)
    again = config(**RECIPE | {"on_collapse": "restart", "epochs": 1})
    train.train(again, run, dataset())
    assert (
        "epoch 1 ends the try with seed 0: beginning again with seed 1" in capsys.readouterr().out
    )
    assert [row["seed"] for row in rows(run)] == ["1"]


def assert_ends_with(line, said):
    *progress, last = said.splitlines()
    assert re.fullmatch(line, last)
    assert all(re.match(r"epoch \d/\d: |validation: ", told) for told in progress)


@pytest.mark.thorough
def test_a_full_disk_ends_the_run_with_a_line(finished, settings, tmp_path):
    run = Run(tmp_path / "run")
    with begun(FULL, run) as child:
        _, said = child.communicate()
    assert child.returncode == 1
    ending = r"the same command \(of train without --restart\) goes on"
    assert_ends_with(f"error: .*cannot save in .*: .*{ending}.*", said)
    assert_it_went_on(run, settings, finished)


def remove(path):
    path.rename(path.with_name("elsewhere"))


def replace(path):  # as by a checkpoint that was being written
    remove(path)
    (path / "checkpoints").mkdir(parents=True)


@pytest.mark.parametrize("trouble", [replace, remove])
@pytest.mark.one_in(2)
def test_a_folder_removed_ends_the_run_with_a_line(finished, settings, tmp_path, trouble, capsys):
    run = Run(tmp_path / "run")
    images = watched("train", 140, lambda: trouble(run.path))
    with pytest.raises(SystemExit) as left:
        process.run(lambda: train.train(config(**RECIPE), run, images))
    assert left.value.code == 1
    line = "error: .*(was removed while the run was at work|cannot save in .*).*"
    assert_ends_with(line, capsys.readouterr().err)
    assert_it_went_on(run, settings, finished)


def test_a_run_of_the_same_net_gives_its_weights(finished, settings):
    again = config(**RECIPE)
    again.model.weights = str(finished)
    given = train.initial_params(again, train.build(again))
    jax.tree.map(np.testing.assert_array_equal, given, train.load(finished).params)


def test_a_run_of_another_net_gives_its_frozen_layers_or_is_refused(finished):
    other = config(stages=((4,),), dense=6)
    other.model.weights = str(finished)
    with pytest.raises(
        UserError, match=r"another net: .*dense/kernel is \(4, 8\) there and \(4, 6"
    ):
        train.initial_params(other, train.build(other))
    other.train.frozen = ("conv1",)
    given = train.initial_params(other, train.build(other))
    taken = train.load(finished).params
    jax.tree.map(np.testing.assert_array_equal, given["conv1"], taken["conv1"])
    assert given["dense"]["kernel"].shape == (4, 6)
    other.train.frozen = ("dense",)
    with pytest.raises(UserError, match="another net"):
        train.initial_params(other, train.build(other))


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.one_in(2)
def test_validation_is_of_the_images_that_are_asked_for(augmented, tmp_path):
    settings = config(epochs=1, validation_augmented=augmented)
    images, run = dataset(), Run(tmp_path / "run")
    run.create()
    store_config(run, settings)
    train.train(settings, run, images)
    (row,) = rows(run)
    net = train.load(run)
    measured = evaluate.evaluate(
        net.module,
        net.params,
        images.splits["validation"],
        classes=images.classes,
        image_size=tiny_training.SIZE,
        batch_size=20,
        augment_seed=settings.seed if augmented else None,
    )
    assert float(row["val_loss"]) == pytest.approx(measured.loss, rel=1e-5)
    assert float(row["val_accuracy"]) == pytest.approx(measured.accuracy)
