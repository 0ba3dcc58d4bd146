"""What an epoch took, by a clock that goes on where the test says: each second counts once."""

import signal
import types

import jax
import pytest
from tiny_training import config, dataset

from rice_jax.records import read_history
from rice_jax.run import Run
from rice_jax.train import compiling, loop, progress

STEP, VALIDATION, SAVING, DRAWING = 2.0, 1_000.0, 20_000.0, 300_000.0
STEPS = 5  # of an epoch: 100 images in batches of 20


class Clock:
    """Seconds that pass where something is `taking` them."""

    def __init__(self):
        self.now = self.compiled = 0.0

    def taking(self, seconds, function, *before):
        """The function, which also does what comes `before` it and takes so long."""

        def timed(*args, **kwargs):
            for each in before:
                each()
            self.now += seconds
            return function(*args, **kwargs)

        return timed


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(compiling, "seconds", lambda: clock.compiled)
    for module in (compiling, loop, progress):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    for owner, name, seconds in (
        (loop.Evaluator, "__call__", VALIDATION),
        (loop.Checkpoints, "save", SAVING),
    ):
        monkeypatch.setattr(owner, name, clock.taking(seconds, getattr(owner, name)))
    compiled = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *a, **k: clock.taking(STEP, compiled(*a, **k)))
    return clock


def train(clock, run, **recipe):
    settings = config(**{"batch_size": 20, "save_seconds": 1e9} | recipe)
    loop.train(settings, run, dataset(), clock.taking(DRAWING, lambda: None))
    return read_history(run)


def test_each_epoch_took_its_own_steps_and_validation(clock, tmp_path):
    for row in train(clock, Run(tmp_path)):
        assert row.seconds == STEPS * STEP + VALIDATION
        assert row.step_seconds == STEPS * STEP
        assert row.validation_seconds == VALIDATION
        assert row.images_per_second == 100 / (STEPS * STEP)


@pytest.mark.parametrize(
    ("owner", "name", "part"),
    [(loop, "train_step", "step"), (loop.Evaluator, "__call__", "validation")],
)
def test_what_is_compiled_in_an_epoch_is_neither_its_speed_nor_what_the_next_one_takes(
    clock, tmp_path, monkeypatch, capsys, owner, name, part
):
    """The first call takes 5,000,000 s more, as JAX says."""
    own, calls = getattr(owner, name), []

    def compiles():
        if not calls:
            clock.now += 5e6
            clock.compiled += 5e6
        calls.append(name)

    def made(*args, **kwargs):  # a step is made, then called; an evaluator only called
        step = own(*args, **kwargs)
        return clock.taking(0.0, step, compiles)

    monkeypatch.setattr(owner, name, made if part == "step" else clock.taking(0.0, own, compiles))
    first, second = train(clock, Run(tmp_path), epochs=2)
    assert (first.compiling_seconds, second.compiling_seconds) == (5e6, 0.0)
    assert (first.step_seconds, first.validation_seconds) == (STEPS * STEP, VALIDATION)
    assert first.seconds == 5e6 + STEPS * STEP + VALIDATION
    assert first.images_per_second == second.images_per_second == 100 / (STEPS * STEP)
    assert "at most 17 min left" in capsys.readouterr().out  # 1,010 s


def test_what_jax_compiles_is_told():
    before = compiling.seconds()
    jax.jit(lambda x: x * 3.0 + 1.0)(jax.numpy.ones(7)).block_until_ready()
    assert compiling.seconds() > before


def test_what_is_traced_within_a_trace_counts_once():
    """By hand: 1 to 2 and 3 to 5 within 0 to 6; then 7 to 8, and 8 to 9 right after it."""
    covered = compiling.Covered()
    for begin, end in [(1, 2), (3, 5), (0, 6), (7, 8), (8, 9)]:
        covered.add(begin, end)
    assert covered.seconds == 6 + 1 + 1


def test_what_is_saved_amid_an_epoch_counts_to_it(clock, tmp_path):
    (row,) = train(clock, Run(tmp_path), save_seconds=1.5 * STEP, epochs=1)
    assert row.saving_seconds == 2 * SAVING  # after the second and the fourth step
    assert row.seconds == STEPS * STEP + 2 * SAVING + VALIDATION


def test_a_validation_that_was_stopped_counts_once(clock, tmp_path, monkeypatch):
    stopped = clock.taking(0.0, loop.Evaluator.__call__, lambda: signal.raise_signal(2))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by a background job
    with monkeypatch.context() as patched:
        patched.setattr(loop.Evaluator, "__call__", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(clock, Run(tmp_path), epochs=1)
    signal.signal(signal.SIGINT, before)
    (row,) = train(clock, Run(tmp_path), epochs=1)
    assert row.validation_seconds == 2 * VALIDATION
    assert row.seconds == STEPS * STEP + 2 * VALIDATION
