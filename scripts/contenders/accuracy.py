"""Seconds from a folder of JPEGs to a validation accuracy: our schedules against Keras's `fit`."""

import contextlib
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tqdm
from contenders.asked import QUIET, TENSORFLOW

from rice_jax.errors import UserError

_ROOT = Path(__file__).parent.parent.parent
_WAYS = {
    "rice_jax study": "rice_jax",
    "rice_jax quick": "rice_jax",
    "keras study": "keras_tensorflow",
}
"""What is measured, by the contender that it is of."""
_EPOCHS = 50


def measure_accuracy(
    images: str, nets: Sequence[str], contenders: Sequence[str], wanted: float
) -> dict[str, Any]:
    """Train each net, each time from nothing, until its validation accuracy is there.

    Args:
        images: the whole path of a folder of class folders: the ways start elsewhere.
        nets: names.
        contenders: whose ways are tried.
        wanted: the accuracy.

    Returns:
        {net: {way: [{seconds, val_accuracy}]}}: of each epoch, the seconds since the process began;
        the last is the first that has what is `wanted`, or the training's last.
    """
    ways = [way for way, contender in _WAYS.items() if contender in contenders]
    results: dict[str, Any] = {}
    for net, way in tqdm.tqdm([(net, way) for net in nets for way in ways], unit="training"):
        results.setdefault(net, {})[way] = list(_epochs(way, net, images, wanted))
    return results


def _epochs(way: str, net: str, images: str, wanted: float) -> Iterator[dict[str, float]]:
    contender, schedule = way.split()
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder, "run", "history.csv")
        if contender == "keras":
            program = str(Path(__file__).parent / "keras_accuracy.py")
            command = [sys.executable, program, net, images, str(history)]
        else:
            command = [
                *(sys.executable, "-m", "rice_jax.main", f"--config=configs/{net}.py"),
                *("--stages=train", f"--workdir={folder}/run", f"--config.data.path={images}"),
                *(f"--config.data.cache_dir={folder}/cache", f"--config.train.schedule={schedule}"),
                *([f"--config.train.epochs={_EPOCHS}"] if schedule == "study" else []),
            ]
        with _started(command, Path(folder, "words")) as process:
            started, told = time.perf_counter(), 0
            ended = False
            while not ended:
                ended = process.poll() is not None
                for row in _rows(history)[told:]:
                    told, accuracy = told + 1, float(row["val_accuracy"])
                    seconds = round(time.perf_counter() - started, 1)
                    yield {"seconds": seconds, "val_accuracy": accuracy}
                    if accuracy >= wanted:
                        return
                time.sleep(0.2)


@contextlib.contextmanager
def _started(command: Sequence[str], words: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block; UserError where it failed by itself."""
    environment = os.environ | QUIET | TENSORFLOW
    with words.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=_ROOT, stdout=file, stderr=file)
    try:
        yield process
        failed = process.poll() not in (None, 0)
    finally:
        process.terminate()
        process.wait()
    if failed:
        raise UserError(
            f"{' '.join(command)} failed: {words.read_text().strip().splitlines()[-1:]}"
        )


def _rows(history: Path) -> list[dict[str, str]]:
    if not history.is_file():
        return []
    with history.open() as file:
        return list(csv.DictReader(file))
