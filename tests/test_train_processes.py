"""Devices and processes: their number changes no result, and a signal to one process ends all."""

import json
import signal

import many_devices
import numpy as np
import pytest
import tiny_training
from processes import ended, start, start_two
from tiny_training import rows

from rice_jax import train
from rice_jax.run import Run


@pytest.mark.thorough
def test_the_number_of_devices_and_processes_does_not_matter():
    program = many_devices.__file__
    with start([program, 1, 2, 3, 5, 8], 8) as alone:
        first, second = start_two(program, 4)
        with first, second:
            shared, silence = ended(first), ended(second)
        found = json.loads(ended(alone)) | json.loads(shared.splitlines()[-1])
    assert "{" not in silence
    losses, confusion, _ = found.pop("1")
    assert len(losses) == 51
    assert np.sum(confusion) == 28, "the padding counts for nothing"
    assert set(found) == {"2", "3", "5", "8", "4"}
    for count, (others, counted, exchanges) in found.items():
        np.testing.assert_allclose(others, losses, rtol=1e-5, err_msg=f"{count} devices")
        assert counted == confusion
        assert exchanges == 1, "devices that wait for others are few threads for these"


def test_a_job_of_two_processes_is_stopped_and_goes_on_as_one(tmp_path):
    run = Run(tmp_path / "together")
    first, second = start_two(tiny_training.__file__, run.path, 10**4)
    with first, second:
        for line in first.stdout:
            if "epoch   2/" in line:
                second.send_signal(signal.SIGTERM)
                break
        (said, complaints), (silence, others) = first.communicate(), second.communicate()
        assert first.returncode == second.returncode == 128 + signal.SIGTERM, complaints + others
        assert "and saved" in said
        assert "epoch" not in silence, "the first process alone speaks"
    done = len(rows(run))
    settings = tiny_training.config(epochs=done + 2, **tiny_training.ENDLESS)
    train.train(settings, run, tiny_training.dataset())
    whole = Run(tmp_path / "alone")
    train.train(settings, whole, tiny_training.dataset())
    together, alone = rows(run), rows(whole)
    assert len(together) == len(alone) == done + 2
    for ours, theirs in zip(together, alone, strict=True):
        for name in ("epoch", "train_loss", "train_accuracy", "val_loss", "learning_rate"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-5), name
