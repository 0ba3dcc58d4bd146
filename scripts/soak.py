"""Kill every command that writes, again and again, and show that nothing of it is lost.

  python scripts/soak.py --out=DIR [--commands=train,prune,...] [--kills=40] [--seed=0]

Each command does a small job twice: once in peace, once ended by a signal at random instants
(start-up, steps, validation, saving, drawing) and given again until it is done. Both must leave
the same files: parameters and moments bit for bit, each epoch once, JSON, tables, figures and
exports alike but for what a clock said. DIR/soak.json has the figures of each command.
"""

import csv
import dataclasses
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
from rice_jax.train.progress import PARTS

_IMAGES = (
    *("--config.data.path=synthetic", "--config.data.image_size=32"),
    *("--config.train.batch_size=20", "--config.train.save_seconds=0", "--config.seed=1"),
)
"""Of a training: a checkpoint is due at every step."""
_JOBS = {
    "train": (
        *("train", "--config=final", "--workdir={work}", "--stages=train", *_IMAGES),
        *("--config.train.epochs=40", "--config.train.stop_patience=1000"),
    ),
    "stages": (
        *("train", "--config=cnn_light", "--workdir={work}", *_IMAGES),
        "--config.train.epochs=3",
    ),
    "prune": (
        *("prune", "--workdir={base}", "--out={work}", "--max_flops=400k", "--steps=3"),
        *("--finetune_epochs=2", "--judge_images=100", "--seeds=0,1"),
    ),
    "reproduce": (
        *("reproduce", "--nets=final,cnn_light", "--out={work}", *_IMAGES),
        "--config.train.epochs=2",
    ),
    "compare": ("compare", "--workdirs={base}", "--out={work}"),
    "export": ("export", "--workdir={base}", "--out={work}/net.stablehlo"),
    "onnx": ("export", "--workdir={base}", "--out={work}/net.onnx"),
}
"""By name, `rice-jax ...` as it is given; what it leaves is {work}, of what was trained {base}."""
_CLOCK = {
    *("seconds", "images_per_second", "date", "measured", "spent"),
    *(f"{part}_seconds" for part in PARTS),
    *("latency", "latency_seconds", "whole_latency_seconds"),
}
"""Keys and columns that tell how long it took, or when."""

_OUT = flags.DEFINE_string("out", None, "Folder for all runs and soak.json.", required=True)
_COMMANDS = flags.DEFINE_list("commands", list(_JOBS), "Which jobs.")
_KILLS = flags.DEFINE_integer("kills", 40, "How often to kill each at most.", lower_bound=1)
_SIGNALS = flags.DEFINE_list("signals", ["KILL", "TERM", "INT"], "Which signals, drawn at random.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the instants and of the signals.")

_ROOT = Path(__file__).parent.parent


def main(argv: Sequence[str]) -> None:
    """Do every job twice and compare; exit status 1 where anything differs."""
    del argv
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells' background jobs ignore it
    out = Path(_OUT.value).resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    base = (*_JOBS["stages"][:2], f"--workdir={out / 'base'}", *_JOBS["stages"][3:])
    _finish(_start(base))
    figures = {name: _soaked(name, out) for name in _COMMANDS.value}
    (out / "soak.json").write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(any(told["differences"] for told in figures.values()))


@dataclasses.dataclass
class _Kill:
    signal: str
    exit_seconds: float
    saving: bool
    """Whether a checkpoint was half written then."""


def _soaked(name: str, out: Path) -> dict[str, Any]:
    """Figures of one job, with every difference between what peace and what kills left."""
    work, peace = out / "work", out / f"{name}_in_peace"
    command = [part.format(work=work, base=out / "base") for part in _JOBS[name]]
    _finish(_start(command))  # what it compiles is kept, as its images
    again = _finish(_start(command))
    shutil.rmtree(work)
    whole = _finish(_start(command))
    work.rename(peace)  # both runs stand in one place, whose name some files tell
    kills = _under_fire(name, command, work, startup=min(again, whole), whole=whole)
    _finish(_start(command))
    figures = {
        "kills": len(kills),
        "signals": Counter(kill.signal for kill in kills),
        "while_saving": sum(kill.saving for kill in kills),
        "seconds_in_peace": round(whole, 1),
        "slowest_exit_seconds": max((kill.exit_seconds for kill in kills), default=0.0),
        "differences": _differences(peace, work),
    }
    work.rename(out / f"{name}_under_fire")
    print(json.dumps({name: figures}), flush=True)
    return figures


def _environment() -> dict[str, str]:
    """Compiled programs and images are kept, so that most of the time is work."""
    out = Path(_OUT.value).resolve()
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(out / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "HOME": str(out / "home"),
    }


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rice_jax", *command],
        env=_environment(),
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finish(process: subprocess.Popen[str]) -> float:
    """Seconds that an undisturbed job took."""
    started = time.monotonic()
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args} failed:\n{said}")
    return time.monotonic() - started


def _under_fire(
    name: str, command: Sequence[str], work: Path, *, startup: float, whole: float
) -> list[_Kill]:
    """Start and kill, start and kill: in start-up, or within an attempt's share of the work."""
    chance = random.Random(f"{_SEED.value} {name}")
    kills: list[_Kill] = []
    # What begins anew each time never gets beyond itself; what goes on gets a share further.
    goes_on = startup < 0.7 * whole
    latest = startup + (whole - startup) * min(1, 3 / _KILLS.value) if goes_on else whole
    for _ in range(2 * _KILLS.value):
        sort = chance.choice(_SIGNALS.value)
        after = chance.uniform(0.4 * startup, latest)
        started, process = time.time(), _start(command)
        try:
            process.communicate(timeout=after)
            if goes_on:
                break  # it is done
            continue
        except subprocess.TimeoutExpired:
            saving, sent = _saving(work, started), time.monotonic()
            process.send_signal(getattr(signal, f"SIG{sort}"))
            process.communicate()
        kills.append(_Kill(sort, round(time.monotonic() - sent, 2), saving))
        print(f"{name}: kill {len(kills)}, {sort} after {after:.1f} s", flush=True)
        if len(kills) == _KILLS.value:
            break
    return kills


def _saving(work: Path, since: float) -> bool:
    """Whether a checkpoint begun after the time `since` is half written."""
    halves = work.glob("**/*.orbax-checkpoint-tmp")
    try:
        return any(half.stat().st_mtime > since for half in halves)
    except FileNotFoundError:  # whole by now
        return False


def _differences(first: Path, second: Path) -> list[str]:
    """What is not alike in two folders, by file."""
    names = [_files(folder) for folder in (first, second)]
    found = [f"{name}: in one of both" for name in sorted(names[0] ^ names[1])]
    found += [name for name in sorted(names[0] & names[1]) if not _alike(first, second, name)]
    runs = [str(path.parent.relative_to(first)) for path in first.glob("**/checkpoints")]
    return found + [
        f"{run}/checkpoints" for run in runs if not _same_bits(first / run, second / run)
    ]


def _files(folder: Path) -> set[str]:
    """Paths of files below, but of checkpoints and of locks."""
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in inside if "checkpoints" not in path.parts and path.name[0] != "."}


def _alike(first: Path, second: Path, name: str) -> bool:
    """Whether a file of both folders says the same, but for what a clock said."""
    contents = [(folder / name).read_bytes() for folder in (first, second)]
    match Path(name).suffix:
        case ".json":
            a, b = (_timeless(json.loads(content)) for content in contents)
        case ".csv":
            a, b = (
                [_timeless(row) for row in csv.DictReader(content.decode().splitlines())]
                for content in contents
            )
        case ".md" | ".html":  # the same figures once more, with times
            return all(contents)
        case _:
            a, b = contents
    return a == b


def _timeless(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _timeless(value) for key, value in told.items() if key not in _CLOCK}
    return [_timeless(value) for value in told] if isinstance(told, list) else told


def _same_bits(first: Path, second: Path) -> bool:
    states = [jax.tree.leaves(train.newest(Run(folder)).state) for folder in (first, second)]
    return all(
        np.array_equal(np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8))
        for a, b in zip(*states, strict=True)
        if np.ndim(a)
    )


if __name__ == "__main__":
    app.run(main)
