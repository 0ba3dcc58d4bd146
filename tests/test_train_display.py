"""What a training says while an epoch is under way."""

import types

from rice_jax.train.display import Display


def test_a_log_gets_a_line_each_minute(monkeypatch, capsys):
    seconds = iter([0, 59, 61, 100, 121])
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("rice_jax.train.display.time", clock)
    display = Display(epochs=2)
    display.begin("epoch 1/2", 100, done=10)
    for loss in (0.9, 0.8, 0.7):
        display.advance(20, loss)
    display.advance(10)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/2: 50 of 100 images  loss 0.8000",
        "epoch 1/2: 80 of 100 images",
    ]
