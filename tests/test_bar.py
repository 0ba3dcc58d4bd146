"""How far a long task is, told in a log."""

import types

import pytest

from rice_jax import bar
from rice_jax.data.parallel import progress
from rice_jax.train.display import Display


@pytest.fixture
def clock(monkeypatch):
    """The seconds at which the clock is looked at, to be filled in."""
    seconds = []
    fake = types.SimpleNamespace(monotonic=lambda: seconds.pop(0))
    monkeypatch.setattr(bar, "time", fake)
    return seconds


def test_an_epoch_is_told_of_each_half_minute(clock, capsys):
    clock += [0, 30, 31, 60, 62]
    display = Display(epochs=2)
    display.begin("epoch 1/2", 100, done=10)
    for loss in (0.9, 0.8, 0.7):
        display.advance(20, loss)
    display.advance(10)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/2: 50 of 100 images  loss 0.8000",
        "epoch 1/2: 80 of 100 images",
    ]


def test_images_pass_by_unchanged_and_are_told_of(clock, capsys):
    clock += [0, 10, 31, 40]
    assert list(progress("abc", 3, "checking folder")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "checking folder: 2 of 3 images\n"
