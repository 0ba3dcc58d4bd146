"""Measure what rice_jax costs as its input grows: seconds, seconds of compiling, memory.

  python scripts/cost.py --out=DIR [--axes=images,classes,side,batch,filters,devices]
                         [--images=FOLDER]

Each point of an axis is a process of its own, whose peak is the point's memory; its seconds are the
medians of its turns, without the start of Python and without compiling, which is told apart.
DIR/cost.json has all that was measured, DIR/cost.md a table for each axis with the slopes of the
costs on logarithmic axes (1 is as fast as the size, 2 as its square), also over the upper half of
the points, where overhead counts little, and over the input where that is not the size: an image
of twice the side has four times the pixels. DIR/cost.png has the plots. The axis of images takes
FOLDER, a folder of class folders with some thousand files, and is left out without it.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tqdm
from absl import app, flags
from contenders import slopes
from contenders.asked import Asked

from rice_jax import launch, nets
from rice_jax.commands.process import guarded
from rice_jax.data.archive import open_archive
from rice_jax.errors import UserError
from rice_jax.report import figures
from rice_jax.run import Run

_OURS = launch.large_pages(os.environ) or {}  # as our commands do
_FINAL = nets.get("final").widths["stages"]


class Case(NamedTuple):
    """What a point computes."""

    net: str
    image_size: int
    batch: int
    fields: Mapping[str, Any] = {}
    """Of the net, other than its own."""
    devices: int = 0
    """Simulated ones; 0 for as the package has them."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """A size that grows while all else stays."""

    what: str
    """What is measured."""
    sizes: tuple[int, ...]
    tasks: tuple[str, ...] = ("training",)
    case: Callable[[int], Case] | None = None
    """Of a size; None for the axis of images, which has a way of its own."""
    input_name: str = ""
    """What a point takes in, where it is not the size."""
    taken: Callable[[int], int] | None = None
    """How much of it at a size; None where it is the size, or for FLOPs, which are counted."""


AXES = {
    "images": Axis(
        "From files to a trained epoch of cnn_light at 32 x 32, batches of 64: preparing the "
        "data set, decoding the training images once, an epoch without validation",
        (1_000, 4_000, 16_000, 10**9),
    ),
    "classes": Axis(
        "final at 64 x 64, batches of 32: a training step; an evaluation of 512 images with its "
        "report by class",
        (2, 10, 100, 1_000),
        ("training", "evaluation"),
        lambda classes: Case("final", 64, 32, {"classes": classes}),
    ),
    "side": Axis(
        "final, batches of 16: a training step, inference",
        (32, 64, 112, 224, 448),
        ("training", "inference"),
        lambda side: Case("final", side, 16),
        "pixels",
        lambda side: side**2,
    ),
    "batch": Axis(
        "cnn_light at 112 x 112: a training step",
        (1, 4, 16, 64, 256, 512),
        case=lambda batch: Case("cnn_light", 112, batch),
    ),
    "filters": Axis(
        "final at 64 x 64 with so many times its filters, batches of 16: a training step",
        (1, 2, 4, 8),
        case=lambda times: Case("final", 64, 16, {"stages": _times(times)}),
        input_name="FLOPs",
    ),
    "devices": Axis(
        "cnn_light at 112 x 112, batches of 64 over so many simulated devices on the cores that "
        "there are: a training step",
        (1, 2, 4, 8),
        case=lambda devices: Case("cnn_light", 112, 64, devices=devices),
    ),
}
_ASKED = {"training": "train", "inference": "infer", "evaluation": "evaluate"}
"""What a contender calls each task."""

_OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)
_AXES = flags.DEFINE_list("axes", list(AXES), "Which axes.")
_IMAGES = flags.DEFINE_string("images", None, "A folder of class folders, for the axis of images.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each point.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "About a turn's seconds.", lower_bound=0.0)
_POINTS = flags.DEFINE_integer("points", 6, "Sizes of an axis, the smallest first.", lower_bound=1)


def _times(times: int) -> list[list[int]]:
    return [[times * width for width in stage] for stage in _FINAL]


def main(argv: Sequence[str]) -> None:
    """Measure what the flags ask for and write it after each point."""
    del argv
    if unknown := [name for name in _AXES.value if name not in AXES]:
        raise UserError(f"--axes: there is no {', '.join(unknown)}; there are {', '.join(AXES)}")
    run = Run(_OUT.value)
    files = _files(_IMAGES.value) if _IMAGES.value and "images" in _AXES.value else {}
    if "images" in _AXES.value and not files:
        print("images: left out, it takes --images=FOLDER")
    run.create()
    sizes = {name: _sizes(name, len(files)) for name in _AXES.value if files or name != "images"}
    results: dict[str, dict[str, Any]] = {}
    cases = [(name, size) for name, those in sizes.items() for size in those]
    for name, size in tqdm.tqdm(cases, unit="point", desc="cost"):
        axis = AXES[name]
        point = _step(axis, size) if axis.case else _way(files, size)
        result = results.setdefault(name, _about(name, axis))
        result["points"].append({"size": size, **point})
        result["slopes"] = slopes.slopes(result["points"])
        run.write_json("cost.json", results)
        run.write_text("cost.md", slopes.table(results))
        run.write_bytes("cost.png", figures.png(figures.growth(results)))
    print(slopes.table(results))


def _about(name: str, axis: Axis) -> dict[str, Any]:
    size_name = "times the filters" if name == "filters" else name
    return {
        "what": axis.what,
        "size_name": size_name,
        "input_name": axis.input_name or size_name,
        "points": [],
    }


def _sizes(name: str, images: int) -> list[int]:
    sizes = AXES[name].sizes
    if name == "images":  # the last is all that there are
        sizes = tuple(sorted({min(size, images) for size in sizes}))
    return list(sizes[: _POINTS.value])


def _step(axis: Axis, size: int) -> dict[str, Any]:
    """A point that is a step or an evaluation, each task in a process of its own."""
    assert axis.case is not None
    case = axis.case(size)
    environment = dict(_OURS)
    if case.devices:
        environment |= {"JAX_NUM_CPU_DEVICES": str(case.devices), "JAX_PLATFORMS": "cpu"}
    point: dict[str, Any] = {"input": axis.taken(size) if axis.taken else size, "tasks": {}}
    for task in axis.tasks:
        asked = _ASKED[task]
        options = [f"--net={case.net}", f"--image_size={case.image_size}", f"--batch={case.batch}"]
        options += [f"--fields={json.dumps(case.fields)}", f"--tasks={asked}"]
        process = Asked(f"{axis.what} ({size})", "of_jax.py", options, environment)
        compiled = process.answer()
        rates = [process.ask(f"{asked} {_SECONDS.value}") for _ in range(_ROUNDS.value)]
        turns = [case.batch / rate for rate in rates]
        memory = process.ask("memory")
        if axis.input_name == "FLOPs":
            point["input"] = process.ask("flops")
        process.end()
        point["tasks"][task] = _told(
            {"turns": turns, "compile_seconds": compiled, "memory_mb": memory}
        )
    return point


def _way(files: Mapping[str, Path], size: int) -> dict[str, Any]:
    """A point of the axis of images: so many files, evenly spread over the classes."""
    names = sorted(files)
    with tempfile.TemporaryDirectory(dir=os.path.abspath(_OUT.value)) as folder:
        for number in range(size):
            name = names[number * len(names) // size]
            # A hard link would change the file's times, and other caches would read it anew.
            link = Path(folder, "images", name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(files[name])
        options = [f"{folder}/images", f"{folder}/cache", str(_ROUNDS.value)]
        process = Asked(f"{size:,} images", "of_images.py", options, _OURS)
        found = process.answer()
        process.end()
    return {"input": size, "tasks": {task: _told(told) for task, told in found.items()}}


def _told(found: dict[str, Any]) -> dict[str, Any]:
    return {"seconds": statistics.median(found["turns"]), **found}


def _files(folder: str) -> dict[str, Path]:
    """The images of a folder of class folders by class and name; UserError where it is none."""
    if not os.path.isdir(folder):
        raise UserError(f"--images={folder}: give a folder of class folders")
    root = Path(folder).resolve()
    return {member.name: root / member.place for member in open_archive(folder).members}


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(guarded(lambda: main(argv))))
