"""Two processes of two devices each train one run; a signal to one ends both; one goes on."""

import signal
import socket
import subprocess
import sys

import pytest
import tiny_training
from test_train_loop import rows

from rice_jax import cluster, train
from rice_jax.run import Run

EPOCHS = 10**4


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(workdir, port, process):
    job = {
        cluster.COORDINATOR: f"localhost:{port}",
        cluster.PROCESSES: "2",
        cluster.PROCESS: str(process),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    return subprocess.Popen(
        [sys.executable, tiny_training.__file__, str(workdir), str(EPOCHS)],
        env=tiny_training.environment(devices=2) | job,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_job_of_two_processes_is_stopped_and_goes_on_as_one(tmp_path):
    run, port = Run(tmp_path / "together"), free_port()
    with start(run.path, port, 0) as first, start(run.path, port, 1) as second:
        for line in first.stdout:
            if line.startswith("epoch   2/"):
                second.send_signal(signal.SIGTERM)
                break
        (said, complaints), (silence, others) = first.communicate(), second.communicate()
        assert first.returncode == second.returncode == 128 + signal.SIGTERM, complaints + others
        assert "and saved" in said
        assert "epoch" not in silence, "the first process alone speaks"
    done = len(rows(run))
    settings = tiny_training.config(epochs=done + 2, save_seconds=0, **tiny_training.ENDLESS)
    train.train(settings, run, tiny_training.dataset())
    whole = Run(tmp_path / "alone")
    train.train(settings, whole, tiny_training.dataset())
    together, alone = rows(run), rows(whole)
    assert len(together) == len(alone) == done + 2
    for ours, theirs in zip(together, alone, strict=True):
        for name in ("epoch", "train_loss", "train_accuracy", "val_loss", "learning_rate"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-5), name
