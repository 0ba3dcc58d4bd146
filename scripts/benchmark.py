"""Measure training and inference of rice_jax against its peers, side by side on this machine.

  python scripts/benchmark.py --out=DIR [--nets=cnn_light,final] [--batch=1,32]

Each contender runs in a process of its own; within a net and a batch size they take turns, so that
a machine whose speed drifts drifts for all of them. Peers that are not installed are left out, and
named: `pip install -e .[peers]` brings those that train, `.[runtimes]` those that only infer, and
are given the net as rice_jax exports it. A batch of 1 measures inference alone, each image awaited.
DIR/benchmark.json has the medians, DIR/benchmark.md the table with the spread, DIR/benchmark.png
the plot. With --images=FOLDER the way from JPEGs to trained epochs is measured, in seconds to a
validation accuracy where --accuracy=0.985 names one. On a GPU --dtypes=float32,bfloat16 measures
both, of rice_jax, plain_flax and torch.
"""

import importlib.util
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import tqdm
from absl import app, flags
from contenders.accuracy import measure_accuracy
from contenders.asked import TENSORFLOW, Asked
from contenders.epochs import measure_epochs

from rice_jax import launch
from rice_jax.bounds import Several, Whole, Word, read
from rice_jax.commands.process import guarded
from rice_jax.errors import UserError
from rice_jax.models import NETS
from rice_jax.ops.backend import cores
from rice_jax.report import figures
from rice_jax.run import Run

_NETS = flags.DEFINE_list(
    "nets", ["cnn_light", "final", "cnn", "vgg_custom", "googlenet_light"], "Which nets."
)
_BATCH = flags.DEFINE_list("batch", ["1", "32", "64"], "Images in a batch.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)
_CONTENDERS = flags.DEFINE_list("contenders", None, "Some of them, instead of all.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32"], "float32, bfloat16.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each contender.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 3.0, "A turn's seconds, training and inference each.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Height and width of an image.")
_IMAGES = flags.DEFINE_string(
    "images", None, "A folder of class folders: measure the way from JPEG to trained epoch instead."
)
_ACCURACY = flags.DEFINE_float(
    "accuracy", None, "With --images: measure the seconds to this validation accuracy.", 0.0, 1.0
)

_OURS = launch.large_pages(os.environ) or {}  # as our commands do
CONTENDERS = {
    "rice_jax": ("of_jax.py", ("jax",), _OURS),
    "plain_flax": ("of_jax.py --plain", ("jax",), {}),
    "keras_tensorflow": ("of_keras.py", ("keras", "tensorflow"), TENSORFLOW),
    "keras_jax": ("of_keras.py", ("keras",), {"KERAS_BACKEND": "jax"}),
    "torch": ("of_torch.py", ("torch",), {}),
    "litert": ("of_runtimes.py --runtime=litert", ("ai_edge_litert", "litert_converter"), {}),
    "onnxruntime": ("of_runtimes.py --runtime=onnxruntime", ("jax2onnx", "onnxruntime"), {}),
    "openvino": ("of_runtimes.py --runtime=openvino", ("jax2onnx", "openvino"), {}),
}
"""Program, packages that it needs, and environment of each."""
RUNTIMES = ("litert", "onnxruntime", "openvino")
"""Those that infer alone."""
_BFLOAT16 = ("rice_jax", "plain_flax", "torch")
MEASURES = (
    "train_images_per_second",
    "inference_images_per_second",
    "peak_memory_mb",
    "compile_seconds",
)


class Process(Asked):
    """A contender that computes when asked."""

    def __init__(self, name: str, net: str, batch: int, dtype: str) -> None:
        program, _, environment = CONTENDERS[name]
        file, *options = program.split()
        options += [f"--net={net}", f"--batch={batch}", f"--dtype={dtype}"]
        options += [f"--image_size={_IMAGE_SIZE.value}"]
        named = name if dtype == "float32" else f"{name}_{dtype}"
        super().__init__(named, file, options, environment)
        self.compile_seconds: float = self.answer()
        learns = batch > 1 and name not in RUNTIMES
        self.rates: dict[str, list[float]] = {"train": [], "infer": []} if learns else {"infer": []}

    def take_turn(self, task: str) -> None:
        """Measure 'train' or 'infer' once, where it does that."""
        if task in self.rates:
            self.rates[task].append(self.ask(f"{task} {_SECONDS.value}"))

    def results(self) -> dict[str, Any]:
        """Medians under the names of MEASURES, of what was measured, and every turn's rate.

        Ends the process.
        """
        memory = self.ask("memory")
        self.end()
        median = {task: statistics.median(rates) for task, rates in self.rates.items()}
        values = (median.get("train"), median["infer"], memory, self.compile_seconds)
        medians = {
            name: round(value, 2)
            for name, value in zip(MEASURES, values, strict=True)
            if value is not None
        }
        return medians | {
            f"{task}_turns": [round(rate, 1) for rate in rates]
            for task, rates in self.rates.items()
        }


def main(argv: Sequence[str]) -> None:
    """Measure what the flags ask for and write it after each net and batch."""
    del argv
    unknown = [net for net in _NETS.value if net not in NETS]
    if unknown:
        raise UserError(f"--nets: there is no {', '.join(unknown)}; there are {', '.join(NETS)}")
    batches = read("--batch", ",".join(_BATCH.value), Several(Whole(1, 1_000_000), 1))
    read("--dtypes", ",".join(_DTYPES.value), Several(Word(("float32", "bfloat16")), 1))
    if _ACCURACY.value is not None and not _IMAGES.value:
        raise UserError("--accuracy changes nothing without --images")
    run = Run(_OUT.value)
    run.create()
    names = _installed(_CONTENDERS.value or list(CONTENDERS))
    if _IMAGES.value:
        images = os.path.abspath(os.path.expanduser(_IMAGES.value))
        if _ACCURACY.value is not None:
            found = measure_accuracy(images, _NETS.value, names, _ACCURACY.value)
            run.write_json("accuracy.json", found)
        else:
            run.write_json("epochs.json", measure_epochs(images, _NETS.value, names))
        return
    results: dict[str, dict[str, Any]] = {}
    cases = [(net, batch) for net in _NETS.value for batch in batches]
    for net, batch in tqdm.tqdm(cases, unit="case", desc="benchmark"):
        results.setdefault(net, {})[str(batch)] = _in_turn(names, net, batch)
        run.write_json("benchmark.json", results)
        run.write_text("benchmark.md", table(results))
        run.write_bytes("benchmark.png", figures.png(figures.speeds(results)))
    print(table(results))


def _installed(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in CONTENDERS:
            raise UserError(f"--contenders: there is no {name}; there are {', '.join(CONTENDERS)}")
    found = [name for name in names if all(map(importlib.util.find_spec, CONTENDERS[name][1]))]
    missing = [name for name in names if name not in found]
    if missing:
        print(f"not installed, left out: {', '.join(missing)} (pip install -e .[peers,runtimes])")
    return found


def _in_turn(names: Sequence[str], net: str, batch: int) -> dict[str, Any]:
    processes = [
        Process(name, net, batch, dtype)
        for dtype in _DTYPES.value
        for name in names
        if dtype == "float32" or name in _BFLOAT16
    ]
    for task in ("train", "infer"):
        for _ in range(_ROUNDS.value):
            for process in processes:
                process.take_turn(task)
    return {process.name: process.results() for process in processes}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each net, batch and contender, with the spread of its turns."""
    lines = [
        f"{cores()} cores, {platform.machine()}, Python {platform.python_version()}; "
        "images a second: median (lowest to highest turn)\n",
        "| net | batch | contender | training | inference | peak MB | compile s |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for net, batches in results.items():
        for batch, contenders in batches.items():
            for name, measured in contenders.items():
                train, infer = (_spread(measured, task) for task in ("train", "infer"))
                lines.append(
                    f"| {net} | {batch} | {name} | {train} | {infer} | "
                    f"{measured['peak_memory_mb']:.0f} | {measured['compile_seconds']:.1f} |"
                )
    return "\n".join(lines) + "\n"


def _spread(measured: dict[str, Any], task: str) -> str:
    turns = measured.get(f"{task}_turns")
    if not turns:
        return ""
    return f"{statistics.median(turns):.0f} ({min(turns):.0f} to {max(turns):.0f})"


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(guarded(lambda: main(argv))))
