"""Kill every command that writes, again and again, and show that nothing of it is lost.

  python scripts/soak.py --out=DIR [--commands=train,prune,...] [--kills=25] [--minutes=60]

Each command does a small job twice: once in peace, once ended by a signal at random instants
(start-up, steps, validation, saving, drawing) and given again until it is done, over and over in
a folder that is new each time. Both must leave the same files: parameters and moments bit for bit,
each epoch once, JSON, tables, figures and exports alike but for what a clock said.

DIR/soak.jsonl has a line for each kill and for each job that was done under fire. The same command
goes on there: it counts the kills that there are, and draws other instants.
"""

import csv
import dataclasses
import gc
import importlib
import importlib.util
import json
import multiprocessing
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from absl import app, flags

import rice_jax
from rice_jax import train
from rice_jax.bounds import Several, Word, read
from rice_jax.commands.entry import enter
from rice_jax.commands.process import guarded
from rice_jax.records.epochs import PARTS
from rice_jax.run import Run

_IMAGES = (
    *("--config.data.path=synthetic", "--config.data.synthetic_per_class=8"),
    *("--config.data.image_size=32", "--config.train.batch_size=10"),
    *("--config.train.schedule=study", "--config.train.save_seconds=0", "--config.seed=1"),
)
"""Of a training: a checkpoint is due at every step."""
_TRAIN = ("train", "--config=nano", "--workdir={work}", *_IMAGES)
_PRUNE = ("prune", "--workdir={base}", "--out={work}", "--judge_images=20")
JOBS = {
    "train": (*_TRAIN, "--stages=train", "--config.train.epochs=6"),
    "stages": (*_TRAIN, "--config.train.epochs=2"),
    "prune": (*_PRUNE, "--drop=dead"),
    "steps": (*_PRUNE, "--max_flops=150k", "--steps=2", "--finetune_epochs=1"),
    "variants": (
        *(*_PRUNE, "--max_flops=150k", "--finetune_epochs=1"),
        *("--baselines=scratch,l1", "--seeds=0,1"),
    ),
    "lighten": (
        *("lighten", "--workdir={base}", "--out={work}", "--within=1", "--rounds=1", "--beam=1"),
        *("--final_epochs=1", "--steps=channels", "--judge_images=20"),
    ),
    "reproduce": (
        *("reproduce", "--nets=nano", "--out={work}", *_IMAGES),
        "--config.train.epochs=1",
    ),
    "compare": ("compare", "--workdirs={base}", "--out={work}"),
    "stablehlo": ("export", "--workdir={base}", "--out={work}/net.stablehlo"),
    "onnx": ("export", "--workdir={base}", "--out={work}/net.onnx"),
    "tflite": ("export", "--workdir={base}", "--out={work}/net.tflite"),
}
"""By name, `rice-jax ...` as it is given; what it leaves is {work}, of what was trained {base}."""
_NEEDS = {"onnx": "jax2onnx", "tflite": "litert_converter"}
"""Packages without which a job is left out."""
_COLD = 0.15
"""Share of the processes that begin at nothing, as a command does; loading takes some seconds."""
_LIVES = 6
"""Kills after which a job that begins anew each time is left to come to its end."""
_CLOCK = {
    *("seconds", "images_per_second", "date", "measured", "spent", "forecast"),
    *(f"{part}_seconds" for part in PARTS),
    *("latency", "latency_seconds", "whole_latency_seconds"),
}
"""Keys and columns that tell how long it took, or when."""
_MEASURED = "latency"
"""In the name of a picture: it shows times that were measured."""
_HASTE = {
    # oneDNN's programs cannot be kept, and compiling would be most of the time.
    "XLA_FLAGS": "--xla_cpu_experimental_onednn_custom_call=false",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    "GLIBC_TUNABLES": "",  # a copy of a process that is ready does not begin again
}

_OUT = flags.DEFINE_string("out", None, "Folder for all runs and soak.jsonl.", required=True)
_COMMANDS = flags.DEFINE_list("commands", list(JOBS), "Which jobs.")
_KILLS = flags.DEFINE_integer("kills", 25, "How often to kill each.", lower_bound=1)
_MINUTES = flags.DEFINE_float("minutes", 600, "After which no job is begun.")
_SIGNALS = flags.DEFINE_list("signals", ["KILL", "TERM", "INT"], "Which signals, drawn at random.")

_ROOT = Path(__file__).parent.parent


@dataclasses.dataclass
class Kill:
    """A job ended by a signal."""

    job: str
    signal: str
    after: float
    exit_seconds: float
    saving: bool
    """Whether a checkpoint was half written then."""
    cold: bool
    """Whether the process had to load what it computes with."""
    status: int | None
    said: str
    """Its last line; all of it where there is a traceback."""


@dataclasses.dataclass
class Done:
    """A job that came to its end under fire."""

    job: str
    kills: int
    differences: list[str]


def main(argv: Sequence[str]) -> None:
    """Let the jobs take turns until each was killed often enough; status 1 where any differs."""
    del argv
    read("--commands", ",".join(_COMMANDS.value), Several(Word(tuple(JOBS)), 1))
    read("--signals", ",".join(_SIGNALS.value), Several(Word(("KILL", "TERM", "INT")), 1))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells' background jobs ignore it
    out, until = Path(_OUT.value).resolve(), time.monotonic() + 60 * _MINUTES.value
    _be_hasty(out)
    for module in pkgutil.walk_packages(rice_jax.__path__, "rice_jax."):
        importlib.import_module(module.name)
    gc.freeze()  # copies of this process need no pages of their own for it
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "base" / "report.html").exists():
        _finish(_command("stages", out, work=out / "base"), out)
    left = [name for name in _COMMANDS.value if _installed(name)]
    while left and time.monotonic() < until:
        for name in left:
            if time.monotonic() < until:
                _soak(name, out)
        left = [name for name in left if _kills(name, out) < _KILLS.value]
    log = _log(out)
    for name in _COMMANDS.value:
        print(json.dumps({name: _figures([line for line in log if line["job"] == name])}))
    sys.exit(any(line.get("differences") for line in log))


def _be_hasty(out: Path) -> None:
    """Begin again with compiled programs and images kept, so that most of a job's time is work."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(out / "compiled"), "HOME": str(out / "home")}
    if os.environ.get("HOME") != kept["HOME"]:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | _HASTE | kept)


def _installed(name: str) -> bool:
    return name not in _NEEDS or importlib.util.find_spec(_NEEDS[name]) is not None


def _log(out: Path) -> list[dict[str, Any]]:
    """Of each kill and of each job that was done, the latest last."""
    file = out / "soak.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _note(out: Path, told: Kill | Done) -> None:
    line = json.dumps(dataclasses.asdict(told))
    print(line, flush=True)
    with (out / "soak.jsonl").open("a") as file:
        file.write(line + "\n")


def _kills(name: str, out: Path) -> int:
    return sum(line["job"] == name and "signal" in line for line in _log(out))


def _figures(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is told of a job."""
    kills = [line for line in log if "signal" in line]
    done = [line for line in log if "differences" in line]
    return {
        "kills": len(kills),
        "signals": Counter(kill["signal"] for kill in kills),
        "while_saving": sum(kill["saving"] for kill in kills),
        "slowest_exit_seconds": {
            sort: max((kill["exit_seconds"] for kill in kills if kill["signal"] == sort), default=0)
            for sort in _SIGNALS.value
        },
        "done": len(done),
        "differences": Counter(name for line in done for name in line["differences"]),
    }


def _soak(name: str, out: Path) -> None:
    """Do a job once under fire, in a folder of its own, and compare."""
    work, peace = out / "work" / name, out / "peace" / name
    seconds = _in_peace(name, out, work, peace)
    shutil.rmtree(work, ignore_errors=True)
    command = _command(name, out, work)
    wanted = min(_LIVES, max(1, _KILLS.value - _kills(name, out)))
    chance = random.Random(f"{name} {len(_log(out))}")
    kills = 0
    while kills < wanted and (kill := _killed(name, command, out, work, chance, seconds)):
        kills += 1
        _note(out, kill)
    if kills == wanted:
        _finish(command, out)
    with multiprocessing.get_context("fork").Pool(1) as apart:  # a copy of what has run JAX hangs
        differences = apart.apply(_differences, (peace, work))
    _note(out, Done(name, kills, differences))
    if differences:
        work.rename(out / f"{name}_differs_{len(_log(out))}")


def _in_peace(name: str, out: Path, work: Path, peace: Path) -> float:
    """Seconds that the undisturbed job takes, which is done where it is not there yet."""
    told = peace.with_suffix(".seconds")
    if not told.exists():
        command = _command(name, out, work)
        for _ in range(2):  # the first one compiles, and prepares its images
            shutil.rmtree(work, ignore_errors=True)
            seconds = _finish(command, out)
        shutil.rmtree(peace, ignore_errors=True)
        peace.parent.mkdir(exist_ok=True)
        work.rename(peace)  # both runs stand in one place, whose name some files tell
        told.write_text(str(seconds))
    return float(told.read_text())


def _command(name: str, out: Path, work: Path) -> list[str]:
    return [part.format(work=work, base=out / "base") for part in JOBS[name]]


def _start(command: Sequence[str], out: Path, *, cold: bool = False) -> int:
    """The process of a job: a copy of this one, which has loaded all, or one that begins anew."""
    sys.stdout.flush()
    if number := os.fork():
        return number
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(_said(out), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.chdir(_ROOT)
    if cold:
        os.environ.pop("GLIBC_TUNABLES", None)  # so that it begins again, as without this
        os.execv(sys.executable, [sys.executable, "-m", "rice_jax", *command])
    sys.argv = ["rice-jax", *command]
    enter(command)


def _said(out: Path) -> Path:
    return out / "said.txt"


def _ended(number: int, seconds: float = float("inf")) -> int | None:
    """The status that a process ends with in so many seconds; below 0 it is the signal's number."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def _finish(command: Sequence[str], out: Path) -> float:
    """Seconds that an undisturbed job took."""
    started = time.monotonic()
    if _ended(_start(command, out)):
        _give_up(command, out)
    return time.monotonic() - started


def _give_up(command: Sequence[str], out: Path) -> NoReturn:
    raise SystemExit(f"{' '.join(command)} failed:\n{_said(out).read_text()}")


def _killed(
    name: str,
    command: Sequence[str],
    out: Path,
    work: Path,
    chance: random.Random,
    seconds: float,
) -> Kill | None:
    """Start a job and end it within the time that it takes; None where it was done before."""
    sort, after = chance.choice(_SIGNALS.value), chance.uniform(0, seconds)
    cold = chance.random() < _COLD
    since, number = time.time(), _start(command, out, cold=cold)
    status = _ended(number, after)
    if status is not None:
        return _give_up(command, out) if status else None
    saving, sent = _saving(work, since), time.monotonic()
    os.kill(number, getattr(signal, f"SIG{sort}"))
    status = _ended(number)
    took = round(time.monotonic() - sent, 2)
    said = _said(out).read_text(errors="replace").strip()
    if "Traceback" not in said:
        said = said.rpartition("\n")[2][:200]
    return Kill(name, sort, round(after, 1), took, saving, cold, status, said)


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
    """Paths of files below, but of what is in a checkpoint, and of locks."""
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        str(path) for path in inside if "checkpoints" not in path.parts and path.name != ".lock"
    } | {str(path.relative_to(folder)) for path in folder.glob("**/checkpoints/*")}


def _alike(first: Path, second: Path, name: str) -> bool:
    """Whether a file of both folders says the same, but for what a clock said."""
    if (first / name).is_dir() or _MEASURED in name:
        return True
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
            a, b = (_headings(content.decode()) for content in contents)
        case _:
            a, b = contents
    return a == b


def _headings(page: str) -> list[str]:
    """What a page consists of: its headings and pictures."""
    return re.findall(r"^#+ .*|^!\[.*|<h\d.*?</h\d>|<(?:img|svg|figure|table)\b", page, re.M)


def _timeless(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _timeless(value) for key, value in told.items() if key not in _CLOCK}
    return [_timeless(value) for value in told] if isinstance(told, list) else told


def _same_bits(first: Path, second: Path) -> bool:
    """Whether the newest step and the best epoch of two runs are alike."""
    states = [
        jax.tree.leaves((train.newest(Run(folder)).state, train.load(Run(folder)).params))
        for folder in (first, second)
    ]
    return all(
        np.array_equal(np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8))
        for a, b in zip(*states, strict=True)
        if np.ndim(a)
    )


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(guarded(lambda: main(argv))))
