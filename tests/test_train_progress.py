"""What an epoch does to the learning rate and to patience: as Keras's callbacks do it."""

import dataclasses
import json
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax import records
from rice_jax.report.history import best_row
from rice_jax.train.progress import Progress

keras = pytest.importorskip("keras_nets").keras  # it sets the backend first

RECIPE = types.SimpleNamespace(
    epochs=50,
    plateau_patience=3,
    plateau_factor=0.2,
    plateau_min_delta=1e-4,
    stop_patience=5,
    schedule="study",
    on_collapse="restart",
    learning_rate=1e-3,
)


def end(progress, val_loss, recipe=RECIPE, **sizes):
    progress.add(loss=6.0, correct=3, images=4)
    return progress.end_epoch(recipe, val_loss, 0.5, seed=0, image_size=8, **sizes)


class Model:
    """As much of a Keras model as its callbacks ask for."""

    def __init__(self):
        self.optimizer = types.SimpleNamespace(learning_rate=1e-3)
        self.stop_training = False


@settings(max_examples=100)
@given(
    # To seven digits: Keras compares in float32.
    st.lists(
        st.integers(1000000, 1008000).map(lambda n: n / 1e7) | st.sampled_from([0.1, 0.1001, 0.2]),
        min_size=1,
        max_size=50,
    )
)
def test_plateau_and_early_stopping_are_those_of_keras(losses):
    model = Model()
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss", factor=0.2, patience=3, min_delta=1e-4
    )
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=5)
    for callback in (plateau, stopping):
        callback.set_model(model)
        callback.on_train_begin()
    progress = Progress(learning_rate=1e-3)
    for epoch, loss in enumerate(losses):
        for callback in (plateau, stopping):
            callback.on_epoch_end(epoch, {"val_loss": loss})
        end(progress, loss)
        assert progress.learning_rate == pytest.approx(model.optimizer.learning_rate, rel=1e-6)
        assert progress.best_epoch == stopping.best_epoch + 1
        assert (progress.finished(RECIPE) is not None) == (
            model.stop_training or progress.epoch == 50
        )
        if model.stop_training:
            break


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([4, None]))))
def test_the_best_row_of_a_history_is_of_the_epoch_whose_weights_are_the_run_s(epochs):
    """Also where an older version's rows, of whole images from the first on, come before."""
    progress = Progress(learning_rate=1e-3)
    for loss, size in epochs:
        end(progress, loss, validation_size=size)
        assert best_row(progress.history).epoch == progress.best_epoch


def test_a_row_holds_the_means_over_the_images_and_the_rate_that_was_used():
    progress = Progress(learning_rate=1e-3)
    progress.add(loss=6.0, correct=3, images=4)
    progress.add(loss=1.0, correct=1, images=1)
    progress.seconds = 2.0
    progress.spent = {"validation": 0.5, "step": 1.75}
    row = progress.end_epoch(RECIPE, 0.7, 0.25, seed=7, image_size=32)
    assert records.plain(row) == {
        "epoch": 1,
        "train_loss": 7 / 5,
        "train_accuracy": 4 / 5,
        "val_loss": 0.7,
        "val_accuracy": 0.25,
        "learning_rate": 1e-3,
        "seconds": 2.5,
        "images_per_second": 2.5,
        "seed": 7,
        "image_size": 32,
        "compiling_seconds": 0.0,
        "decoding_seconds": 0.0,
        "feeding_seconds": 0.0,
        "step_seconds": 1.75,
        "validation_seconds": 0.5,
        "saving_seconds": 0.0,
        "drawing_seconds": 0.0,
    }
    assert progress.spent == {}
    assert progress.history == [row]
    assert (progress.step, progress.batch, progress.images) == (2, 0, 0)


def test_seconds_are_counted_by_what_they_went_to(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 10.5, 20.0, 24.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress(learning_rate=1e-3)
    for part in ("step", "saving", "step"):
        with progress.timed(part):
            pass
    assert progress.spent == {"step": 2.0 + 4.0, "saving": 0.5, "compiling": 0.0}


def test_an_older_version_s_progress_is_gone_on_with():
    progress = Progress(learning_rate=1e-3)
    end(progress, 0.5)
    older = progress.to_json()
    del older["spent"]
    older["history"] = [
        {k: v for k, v in row.items() if "second" not in k} for row in older["history"]
    ]
    assert Progress.is_told_by(older)
    assert end(Progress.from_json(older), 0.4).epoch == 2


def test_no_other_seed_is_tried_where_none_would_help():
    for hopeless in (False, True):
        progress = Progress(learning_rate=1e-3)
        end(progress, 1.6)
        progress.rest(9, silent=True, hopeless=hopeless)
        assert progress.collapsed
        assert (progress.restarted(RECIPE) is None) == hopeless
        assert progress.finished(RECIPE) == ("the net does not learn" if hopeless else None)


def test_no_two_moments_have_checkpoints_of_one_number():
    progress, numbers = Progress(learning_rate=1e-3), []
    for loss in (0.3, 0.2):
        for _ in range(2):
            progress.add(1.0, 1, 1)
            numbers.append(progress.checkpoint)
        progress.end_epoch(RECIPE, loss, 0.5, seed=0, image_size=8)
        numbers.append(progress.checkpoint)
        assert progress.best_checkpoint == progress.checkpoint
    assert numbers == sorted(set(numbers))


def test_progress_survives_json_to_the_last_bit():
    progress = Progress(learning_rate=1e-3 * 0.2 * 0.2)
    end(progress, 1 / 3)
    progress.add(loss=0.1 + 0.2, correct=1, images=3)
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


def asked(on_collapse):
    return types.SimpleNamespace(**{**vars(RECIPE), "on_collapse": on_collapse})


def test_a_net_that_cannot_learn_ends_training_unless_a_warning_is_all_that_is_asked_for():
    progress = Progress(learning_rate=1e-3, collapsed=True)
    assert progress.finished(asked("warn")) is None
    assert progress.finished(asked("stop")) == "the net does not learn"


def test_a_patience_of_one_epoch_is_told_as_one():
    for epochs, told in ((1, "an epoch"), (2, "2 epochs")):
        recipe = types.SimpleNamespace(**{**vars(RECIPE), "stop_patience": epochs})
        progress = Progress(learning_rate=1e-3, epoch=3, stop_wait=epochs)
        assert progress.finished(recipe) == f"no better validation loss for {told}"


def test_what_ended_is_not_finished_where_it_is_to_begin_again():
    """Whatever it was told when it ended, and however many epochs it had."""
    progress = Progress(learning_rate=1e-3, collapsed=True, epoch=50, stop_wait=5)
    assert progress.finished(asked("restart")) is None
    for no_more in ({"given": True}, {"hopeless": True}, {"restarts": 5}):
        stays = dataclasses.replace(progress, **no_more)
        assert stays.finished(asked("restart")).startswith("the net does not learn")


def test_a_net_with_gradients_may_rest_at_chance_for_some_hundred_steps():
    progress = Progress(learning_rate=1e-3)
    for steps, collapsed in ((400, False), (400, False), (0, False), (800, False), (100, True)):
        progress.rest(steps, silent=False)
        assert progress.collapsed == collapsed
    dead = Progress(learning_rate=1e-3)
    dead.rest(1, silent=True)
    assert dead.collapsed


def test_a_net_begins_again_five_times_at_most_and_its_checkpoints_keep_their_order():
    progress, numbers = Progress(learning_rate=1e-3), []
    while True:
        end(progress, 1.6)
        progress.rest(1, silent=True)
        numbers += [progress.checkpoint]
        if (again := progress.restarted(RECIPE)) is None:
            break
        assert again.learning_rate == RECIPE.learning_rate
        assert (again.epoch, again.step, again.history) == (0, 0, [])
        assert again.checkpoint == progress.checkpoint
        progress = again
    assert numbers == [2, 4, 6, 8, 10, 12]
    assert progress.finished(RECIPE) == "the net does not learn, with 6 seeds"


@pytest.mark.parametrize("wish", ["stop", "warn"])
def test_a_net_begins_again_only_where_that_is_asked_for(wish):
    assert Progress(1e-3, collapsed=True).restarted(asked(wish)) is None
    assert Progress(1e-3, collapsed=True, given=True).restarted(RECIPE) is None
    assert Progress(1e-3).restarted(RECIPE) is None


def test_an_older_version_s_checkpoint_is_read_and_an_unknown_one_is_not():
    content = Progress(learning_rate=1e-3, epoch=3).to_json()
    older = {name: content[name] for name in content.keys() - {"rested", "restarts", "begun"}}
    assert Progress.is_told_by(older)
    assert Progress.from_json(older) == Progress(learning_rate=1e-3, epoch=3)
    assert not Progress.is_told_by(content | {"mood": 1})
    assert not Progress.is_told_by({name: content[name] for name in content.keys() - {"epoch"}})


@pytest.mark.parametrize(
    ("epochs", "said"), [(1, "its one epoch is done"), (2, "all 2 epochs done")]
)
def test_a_training_ends_with_the_epochs_that_were_asked_for(epochs, said):
    recipe = types.SimpleNamespace(**{**vars(RECIPE), "epochs": epochs})
    assert Progress(learning_rate=1e-3, epoch=epochs).finished(recipe) == said
    assert Progress(learning_rate=1e-3, epoch=epochs - 1).finished(recipe) is None
