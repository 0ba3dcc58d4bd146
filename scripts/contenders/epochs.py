"""From JPEG files to a trained epoch: our command against Keras's own way."""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tqdm
from contenders.asked import QUIET, TENSORFLOW

from rice_jax.errors import UserError

_ROOT = Path(__file__).parent.parent.parent
_EPOCHS = 3
_KERAS = "keras_tensorflow"


def measure_epochs(images: str, nets: Sequence[str], contenders: Sequence[str]) -> dict[str, Any]:
    """Train each net for three epochs on a folder of class folders, each process from nothing.

    Args:
        images: the whole path of a folder of class folders: the ways start elsewhere.
        nets: names.
        contenders: whose ways are tried.

    Returns:
        {net: {contender: {images, epoch_images_per_second, seconds}}}: images in an epoch,
        how many a second each epoch trained on, and the whole process's seconds; ours has
        prepared and validated as well by then.
    """
    ways: dict[str, Callable[[str, str], dict[str, Any]]] = {"rice_jax": _ours, _KERAS: _keras}
    cases = [(net, name) for net in nets for name in ways if name in contenders]
    results: dict[str, Any] = {}
    for net, name in tqdm.tqdm(cases, unit="training", desc="JPEG to epoch"):
        started = time.perf_counter()
        measured = ways[name](net, images)
        seconds = round(time.perf_counter() - started, 1)
        results.setdefault(net, {})[name] = measured | {"seconds": seconds}
    return results


def _ours(net: str, images: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        _run(
            *(sys.executable, "-m", "rice_jax.main", f"--config=configs/{net}.py"),
            *("--stages=train", f"--workdir={folder}/run", f"--config.data.path={images}"),
            *(f"--config.data.cache_dir={folder}/cache", "--config.train.schedule=study"),
            f"--config.train.epochs={_EPOCHS}",
        )
        run = Path(folder, "run")
        with (run / "history.csv").open() as file:
            rates = [float(row["images_per_second"]) for row in csv.DictReader(file)]
        about = json.loads((run / "config.json").read_text())["data"]
        return {"images": about["images"]["train"], "epoch_images_per_second": rates}


def _keras(net: str, images: str) -> dict[str, Any]:
    program = str(Path(__file__).parent / "keras_epochs.py")
    return json.loads(_run(sys.executable, program, net, images, str(_EPOCHS)))


def _run(*command: str) -> str:
    environment = os.environ | QUIET | TENSORFLOW
    done = subprocess.run(command, env=environment, cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.strip().splitlines()[-1]
