"""A wish to stop is granted wherever it comes."""

import gc
import signal
import sys
import threading

import pytest

from rice_jax.commands import process
from rice_jax.train import interrupt


class Interrupted:
    """An object whose end is when the signal comes."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def in_a_callback_of_the_garbage_collector():
    def interrupt(phase, info):
        gc.callbacks.remove(interrupt)
        signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(interrupt)
    gc.collect()


@pytest.mark.parametrize("dropped", [Interrupted, in_a_callback_of_the_garbage_collector])
def test_an_interrupt_that_python_drops_comes_again(dropped, monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", lambda other: pytest.fail(str(other)))
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    waited = []

    def action():
        process.heed_interrupts.__wrapped__()
        dropped()
        waited.append(threading.Event().wait(20))

    assert process.guarded(action) == 130
    signal.signal(signal.SIGINT, usual)
    assert not waited
    assert "stopped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "ended"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_that_comes_after_the_last_step_is_obeyed_at_the_end(number, ended):
    closed = []

    def closing():
        with interrupt.interruptible() as wish:
            wish.arm()
            signal.raise_signal(number)
            closed.append("all that was open")

    with pytest.raises(ended):
        closing()
    assert closed
