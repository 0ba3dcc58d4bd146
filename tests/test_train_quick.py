"""The quick schedule and restarts in the loop: image sizes, rates, seeds, and going on."""

import math
import signal

import cv2
import jax
import numpy as np
import pytest
from tiny_training import assert_same, config, dataset, newest, rows, watched

from rice_jax import records, train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.report.history import best_row
from rice_jax.run import Run
from rice_jax.train import loop

# Five steps an epoch; sizes change after the first and the second.
STEPS, SIZES = 5, (4, 8, 16)


def quick(**fields):
    tiny = config(schedule="quick", batch_size=20)
    tiny.train.quick.update({"shrink": (4, 2, 1), "epochs": (1, 1, 1), "peak_rate": 0.02} | fields)
    return tiny


def recorded(patch):
    """A list of (image size, rate) of each step that will be done."""
    compiled, steps = loop.train_step, []

    def watching(*args, **kwargs):
        step = compiled(*args, **kwargs)

        def watch(state, batch, index, rate):
            steps.append((batch["image"].shape[1], float(rate)))
            return step(state, batch, index, rate)

        return watch

    patch.setattr(loop, "train_step", watching)
    return steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped, its settings, and its steps."""
    settings, run = quick(warmup=0.2, weight_decay=0.1), Run(tmp_path_factory.mktemp("whole"))
    settings.train.augment = True
    with pytest.MonkeyPatch.context() as patch:
        steps = recorded(patch)
        train.train(settings, run, dataset())
    return settings, run, steps


def test_images_grow_and_the_rate_follows_the_step(whole):
    _, run, steps = whole
    assert [size for size, _ in steps] == [size for size in SIZES for _ in range(STEPS)]
    rising = [0.02 * (step + 1) / 3 for step in range(3)]
    falling = [0.01 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert [rate for _, rate in steps] == pytest.approx(rising + falling)
    last = [float(row["learning_rate"]) for row in rows(run)]
    assert last == pytest.approx([(rising + falling)[step] for step in (4, 9, 14)])


@pytest.mark.parametrize("reading", [115, 190, 215])
@pytest.mark.one_in(3)
def test_a_run_stopped_near_a_switch_of_sizes_ends_as_if_it_never_was(whole, tmp_path, reading):
    settings, undisturbed, _ = whole
    run = Run(tmp_path / "run")
    images = watched("train", reading, lambda: signal.raise_signal(signal.SIGTERM))
    images.workers = 1
    with pytest.raises(SystemExit):
        train.train(settings, run, images)
    assert len(rows(run)) < 3
    train.train(settings, run, dataset())
    assert_same(newest(run, settings), newest(undisturbed, settings))
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]


def test_a_net_is_validated_on_images_of_the_size_that_it_has_learned_from(tmp_path):
    settings, run = quick(shrink=(2, 1), epochs=(1, 1)), Run(tmp_path)
    with pytest.raises(SystemExit):  # the first epoch is the best one yet
        train.train(settings, run, dataset(), on_epoch=lambda: signal.raise_signal(signal.SIGTERM))
    run.write_json("config.json", {"config": to_json(settings)})
    net, source = train.load(run), dataset().splits["validation"]
    (row,) = rows(run)
    assert (net.epoch, row["image_size"], row["validation_size"]) == (1, "8", "8")
    files = [np.frombuffer(source[index]["image"], np.uint8) for index in range(len(source))]
    images = np.stack([cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1] for file in files])
    labels = np.array([source[index]["label"] for index in range(len(source))])
    averages = np.floor(images.reshape(-1, 8, 2, 8, 2, 3).mean((2, 4)) + 0.5)  # stored as bytes
    losses = [loss_of(net, each, labels) for each in (averages, images)]
    assert losses[0] == pytest.approx(float(row["val_loss"]), abs=1e-4)
    assert losses[1] != pytest.approx(float(row["val_loss"]), abs=1e-3)


def loss_of(net, pixels, labels):
    logits = net.module.apply({"params": net.params}, np.float32(pixels) / 255)
    return -float(np.mean(jax.nn.log_softmax(logits)[np.arange(len(labels)), labels]))


def test_the_best_epoch_is_one_of_whole_images_however_well_smaller_ones_went(tmp_path):
    settings = quick(shrink=(2, 1), epochs=(20, 2), peak_rate=0.1, warmup=0.0)
    run = Run(tmp_path)
    train.train(settings, run, dataset())
    losses = [float(row["val_loss"]) for row in rows(run)]
    assert [row["validation_size"] for row in rows(run)] == ["8"] * 20 + [""] * 2
    assert min(losses[:20]) < min(losses[20:])  # or there would be nothing to see
    run.write_json("config.json", {"config": to_json(settings)})
    assert train.load(run).epoch == 21 + losses[20:].index(min(losses[20:]))
    assert best_row(records.read_history(run)).epoch == train.load(run).epoch


def test_patience_and_plateaus_are_the_study_s_alone(tmp_path, monkeypatch):
    steps = recorded(monkeypatch)
    settings = quick(shrink=(4,), epochs=(4,), warmup=0.0)
    settings.train.update(stop_patience=1, plateau_patience=1, plateau_min_delta=100.0, epochs=1)
    run = Run(tmp_path)
    train.train(settings, run, dataset())
    assert len(rows(run)) == 4
    expected = [0.01 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert [rate for _, rate in steps] == pytest.approx(expected)


def test_another_schedule_in_the_same_folder_is_refused(tmp_path):
    settings = quick(shrink=(4,), epochs=(1,))
    train.train(settings, Run(tmp_path), dataset())
    settings.train.quick.peak_rate = 0.5
    with pytest.raises(UserError, match=r"config\.train\.quick\.peak_rate=0\.02, not 0\.5"):
        train.train(settings, Run(tmp_path), dataset())


@pytest.fixture
def dead_at_first(monkeypatch):
    """Nets of seed 0 are born dead."""
    random = loop.weights.initial_params

    def born(config, module, *, seed, given):
        params = jax.tree.map(np.array, random(config, module, seed=seed))
        if seed == 0:
            params["conv1"]["bias"][:] = -100
        return params

    monkeypatch.setattr(loop.weights, "initial_params", born)


@pytest.mark.usefixtures("dead_at_first")
@pytest.mark.parametrize("slower", [" at half the rate", ""], ids=["quick", "study"])
@pytest.mark.one_in(2)
def test_a_net_that_cannot_learn_begins_again_with_the_next_seed(slower, tmp_path, capsys):
    """As if it had begun so: by the quick schedule more slowly, for the rate may be the reason."""
    settings, other = (config(batch_size=20) for _ in range(2))
    if slower:
        settings, other = (quick(shrink=(1, 1, 1), peak_rate=peak) for peak in (0.02, 0.01))
    other.seed = 1
    run, alone = Run(tmp_path / "run"), Run(tmp_path / "alone")
    images = watched("train", 250, lambda: signal.raise_signal(signal.SIGTERM))
    images.workers = 1
    with pytest.raises(SystemExit):  # in the second try
        train.train(settings, run, images)
    assert f"beginning again with seed 1{slower} (restart 1)" in capsys.readouterr().out
    train.train(settings, run, dataset())
    train.train(other, alone, dataset())
    (ours, progress), (theirs, _) = newest(run, settings), newest(alone, other)
    assert_same(ours, theirs)
    assert progress["restarts"] == 1
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert {row["seed"] for row in rows(run)} == {"1"}
    assert [row["learning_rate"] for row in rows(run)] == [
        row["learning_rate"] for row in rows(alone)
    ]
    assert train.load(run).epoch == train.load(alone).epoch


def test_a_net_that_began_with_given_parameters_does_not_lose_them(tmp_path, capsys):
    settings = config(epochs=2, batch_size=20)
    params = jax.tree.map(np.array, train.initial_params(settings, train.build(settings)))
    params["conv1"]["bias"][:] = -100
    run = Run(tmp_path)
    train.begin(settings, run, dataset(), params)
    train.train(settings, run, dataset())
    assert "trained: the net does not learn" in capsys.readouterr().out
    assert len(rows(run)) == 1
    np.testing.assert_array_equal(newest(run, settings)[0].params["conv1"]["bias"], -100)


@pytest.mark.usefixtures("dead_at_first")
def test_rows_of_a_try_that_did_not_learn_go_also_where_it_was_killed(tmp_path, monkeypatch):
    """Between the checkpoint of a training that begins again and the end of the older rows."""
    settings, run = config(batch_size=20), Run(tmp_path)
    save, kept = loop.Checkpoints.save, []

    def killed(checkpoints, checkpoint):
        save(checkpoints, checkpoint)
        if checkpoint.progress.restarts:
            checkpoints.wait()
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(loop.Checkpoints, "save", killed)
        with pytest.raises(SystemExit):
            train.train(settings, run, dataset())
    run.write_text("history.csv", "epoch,train_loss\n1,1.6\n")
    images = watched("train", 1, lambda: kept.append(run.has("history.csv")))
    train.train(settings, run, images)
    assert kept == [False]
    assert [(row["epoch"], row["seed"]) for row in rows(run)] == [
        ("1", "1"),
        ("2", "1"),
        ("3", "1"),
    ]
