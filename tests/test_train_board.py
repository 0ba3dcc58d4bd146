"""TensorBoard's event file of a training, read back by TensorBoard itself."""

import builtins

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import ENDLESS, config, dataset

from rice_jax.errors import UserError
from rice_jax.records import EpochRow, read_history
from rice_jax.run import Run
from rice_jax.train import forget, train
from rice_jax.train.board import Board

TAGS = {
    "loss/train": "train_loss",
    "loss/validation": "val_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/validation": "val_accuracy",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}


def scalars(run):
    """(epoch, value) by tag."""
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_each_epoch_is_there_once_also_after_going_on(tmp_path):
    run = Run(tmp_path)
    for epochs in (1, 2):
        train(config(epochs=epochs, tensorboard=True, **ENDLESS), run, dataset())
    rows = read_history(run)
    assert scalars(run) == {
        tag: [(row.epoch, pytest.approx(getattr(row, column))) for row in rows]
        for tag, column in TAGS.items()
    }
    assert [row.epoch for row in rows] == [1, 2]


def test_what_a_run_has_forgotten_is_in_no_event_file(tmp_path):
    run = Run(tmp_path)
    board = Board(run, [EpochRow(epoch=1, train_loss=1.0)], wanted=True)
    board.close()
    assert scalars(run)["loss/train"] == [(1, 1.0)]
    run.write_text("tensorboard/notes.txt", "of the user's own")
    forget(run)
    assert [path.name for path in (run.path / "tensorboard").iterdir()] == ["notes.txt"]


def test_nothing_is_written_unasked(tmp_path):
    with_rows = Board(Run(tmp_path), [EpochRow(epoch=1)], wanted=False)
    with_rows.epoch(EpochRow(epoch=2))
    with_rows.close()
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    found = builtins.__import__

    def missing(name, *rest, **more):
        if name == "tensorboardX":
            raise ImportError("No module named 'tensorboardX'")
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'rice_jax\[tensorboard\]'"):
        Board(Run(tmp_path), [], wanted=True)
