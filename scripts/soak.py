"""Kill a training again and again, and show that nothing of it is lost.

  python scripts/soak.py --out=DIR [--kills=30] [--signals=KILL,TERM,INT] [--seed=0]

Trains the same small run twice by the real command: once in peace, once with a signal at random
instants (start-up, steps, validation, saving; a checkpoint is due at every step). At the end both
must have the same parameters and moments, bit for bit, and each epoch once. DIR/soak.json has the
figures.
"""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from rice_jax import train
from rice_jax.run import Run

_OUT = flags.DEFINE_string("out", None, "Folder for both runs and soak.json.", required=True)
_KILLS = flags.DEFINE_integer("kills", 30, "How often to kill.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 40, "Epochs of the training.", lower_bound=2)
_SIGNALS = flags.DEFINE_list("signals", ["KILL"], "Which signals, drawn at random.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the instants and of the signals.")

_ROOT = Path(__file__).parent.parent


def main(argv: Sequence[str]) -> None:
    """Do both trainings and compare them; exit status 1 where they differ."""
    del argv
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells' background jobs ignore it
    out = Path(_OUT.value)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    whole, killed = Run(out / "whole"), Run(out / "killed")
    startup, training = _in_peace(whole)
    print(f"in peace: {startup:.1f} s to the first epoch's end, {training:.1f} s for the others")
    kills = _under_fire(killed, startup, training)
    leftover = subprocess.run(_command(killed), env=_environment(), check=True, cwd=_ROOT)
    figures = {
        "kills": len(kills),
        "signals": Counter(kill["signal"] for kill in kills),
        "while_saving": sum(kill["saving"] for kill in kills),
        "slowest_exit_seconds": _slowest(kills),
        "last_exit_status": leftover.returncode,
        "lost_epochs": _EPOCHS.value - len(_epochs(killed)),
        "each_epoch_once": _epochs(killed) == _epochs(whole) == list(range(1, _EPOCHS.value + 1)),
        "same_history": _history(killed) == _history(whole),
        "same_bits": _same_bits(killed, whole),
    }
    (out / "soak.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    sound = figures["each_epoch_once"] and figures["same_history"] and figures["same_bits"]
    sys.exit(0 if sound else 1)


def _command(run: Run) -> list[str]:
    settings = {
        "data.path": "synthetic",
        "data.image_size": 32,
        "data.cache_dir": run.path.parent / "cache",
        "train.epochs": _EPOCHS.value,
        "train.stop_patience": 10**6,
        "train.save_seconds": 0.0,
        "train.batch_size": 20,
        "seed": 1,
    }
    return [
        *(sys.executable, "-m", "rice_jax.main", "--config=configs/final.py", "--stages=train"),
        f"--workdir={run}",
        *(f"--config.{field}={value}" for field, value in settings.items()),
    ]


def _environment() -> dict[str, str]:
    """Compiled programs are kept, so that most of the time is training."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(Path(_OUT.value) / "compiled")}
    kept["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return os.environ | kept


def _start(run: Run) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(run),
        env=_environment(),
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _in_peace(run: Run) -> tuple[float, float]:
    """Train; seconds until the first epoch was done, and from then to the end.

    Done twice, the second time with the images prepared and the programs compiled.
    """
    subprocess.run(_command(run), env=_environment(), cwd=_ROOT, check=True, capture_output=True)
    shutil.rmtree(run.path)
    started, first = time.monotonic(), 0.0
    with _start(run) as process:
        assert process.stdout is not None
        for line in process.stdout:
            first = first or (time.monotonic() if line.startswith("epoch ") else 0.0)
    if process.returncode:
        raise SystemExit("the training in peace failed")
    return first - started, time.monotonic() - first


def _under_fire(run: Run, startup: float, training: float) -> list[dict[str, Any]]:
    """Start and kill, start and kill: in start-up, or within an attempt's share of the steps."""
    chance = random.Random(_SEED.value)
    kills: list[dict[str, Any]] = []
    while len(kills) < _KILLS.value:
        name = chance.choice(_SIGNALS.value)
        after = chance.uniform(0.6 * startup, startup + training / _KILLS.value)
        started = time.time()
        process = _start(run)
        try:
            process.wait(after)
            print("the training ended before it was killed often enough: give more --epochs")
            break
        except subprocess.TimeoutExpired:
            saving = _saving(run, started)
            sent = time.monotonic()
            process.send_signal(getattr(signal, f"SIG{name}"))
            process.communicate()
        seconds = round(time.monotonic() - sent, 2)
        kills.append({"signal": name, "saving": saving, "seconds": seconds})
        what = ", saving" if saving else ""
        print(
            f"kill {len(kills)}: {name} after {after:.1f} s{what}; {len(_epochs(run))} epochs",
            flush=True,
        )
    return kills


def _saving(run: Run, since: float) -> bool:
    """Whether a checkpoint begun after the time `since` is half written."""
    for half in Path(run.checkpoints).glob("*.orbax-checkpoint-tmp"):
        with contextlib.suppress(FileNotFoundError):  # whole by now
            if half.stat().st_mtime > since:
                return True
    return False


def _epochs(run: Run) -> list[int]:
    return [int(row["epoch"]) for row in _history(run)]


def _history(run: Run) -> list[dict[str, str]]:
    """The rows of history.csv, without what the clock says."""
    if not run.has("history.csv"):
        return []
    rows = csv.DictReader((run.path / "history.csv").read_text().splitlines())
    clock = ("seconds", "images_per_second")
    return [{name: row[name] for name in row if name not in clock} for row in rows]


def _same_bits(first: Run, second: Run) -> bool:
    states = [jax.tree.leaves(train.newest(run).state) for run in (first, second)]
    return all(
        np.array_equal(np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8))
        for a, b in zip(*states, strict=True)
        if np.ndim(a)
    )


def _slowest(kills: list[dict[str, Any]]) -> dict[str, float]:
    slowest: dict[str, float] = {}
    for kill in kills:
        name = str(kill["signal"])
        slowest[name] = max(slowest.get(name, 0.0), float(kill["seconds"]))
    return slowest


if __name__ == "__main__":
    app.run(main)
