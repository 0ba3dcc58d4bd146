"""Runs' folders with made-up results, for tests of what is made of them, and the text of a page."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from markdown_it import MarkdownIt

from rice_jax.records import EpochRow
from rice_jax.report import record
from rice_jax.report.page import page
from rice_jax.run import Run

CLASSES = ("Arborio", "Basmati", "Ipsala")
MATRIX = ((8, 1, 1), (0, 10, 0), (3, 0, 7))


def result(matrix=MATRIX, classes=CLASSES) -> dict[str, Any]:
    """evaluation.json's half for a confusion matrix; precision and F1 are made up."""
    images = sum(map(sum, matrix))
    measures = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 10}
    return {
        "images": images,
        "accuracy": sum(row[i] for i, row in enumerate(matrix)) / images,
        "loss": 0.25,
        "confusion_matrix": [list(row) for row in matrix],
        "per_class": dict.fromkeys(classes, measures),
        "macro_avg": measures,
        "weighted_avg": measures,
    }


def supported(matrix, classes) -> dict[str, Any]:
    """A result whose classes have the images that their rows tell."""
    told = result(matrix, classes)
    rows = zip(classes, matrix, strict=True)
    each = {name: told["macro_avg"] | {"support": sum(row)} for name, row in rows}
    return told | {"per_class": each}


def cells(matrix):
    """True class, predicted class and images where a confusion matrix is not zero."""
    matrix = np.asarray(matrix, int)
    true, predicted = np.nonzero(matrix)
    return true, predicted, matrix[true, predicted]


def scored(correct: int, images: int = 1000) -> dict[str, Any]:
    """A result with `correct` of `images` right."""
    return result(((correct, images - correct), (0, 0)), ("a", "b"))


def layer(path: str, flops: int, filters: int = 0, kind: str = "Conv") -> dict[str, Any]:
    counts = {"formula": flops, "study": flops + 1, "xla": flops + 2}
    shape = [1, 4, 4, filters or 2]
    return {
        "path": path,
        "type": kind,
        "output_shape": shape,
        "params": 7,
        "filters": filters,
        "flops": counts,
        "intensity": counts["xla"] / 300,
        "bytes": {"read": 200, "written": 100},
        "bound": "compute" if counts["xla"] > 3000 else "memory",
        "seconds": max(counts["xla"] / 1e12, 300 / 1e11),
    }


def profile(flops: int = 1000, **changes: Any) -> dict[str, Any]:
    content = {
        "input_shape": [1, 8, 8, 3],
        "layers": [layer("conv1", flops, 4), layer("head", 10, kind="Dense")],
        "totals": {
            "params": 1234,
            "trainable_params": 1200,
            "filters": 4,
            "study_filters": 4,
            "flops": {"formula": flops - 1, "study": flops, "xla": flops + 1},
            "xla_measured": flops + 1,
            "complete": not changes.get("uncounted"),
            "training_flops": 3 * flops,
            "memory": {"weights": 4936, "activations": 2048, "at": "conv1", "peak": 6984},
        },
        "roofline": {"flops_per_second": 1e12, "bytes_per_second": 1e11, "seconds": 6e-9},
        "uncounted": [],
        "not_called": [],
        "reported": None,
        "errata": [],
        "time": {
            "device_flops_per_second": 1e12,
            "theoretical_seconds": {"formula": 1e-9, "study": 1e-9, "xla": 1e-9},
            "measured": {
                "device": "cpu",
                "median": 0.002,
                "p10": 0.001,
                "p90": 0.003,
                "from_host": 0.0042,
                "throughput": {"batch_size": 32, "images_per_second": 900.0},
            },
        },
    }
    return content | changes


DEAD = {
    "layers": [
        {
            "path": "conv1",
            "filters": 4,
            "dead_clean": [0, 2],
            "dead_augmented": [2],
            "proven_dead": [2],
            "zero_fraction": [1.0, 0.5, 1.0, 0.25],
        }
    ],
    "images": 30,
}

HISTORY = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds,"
    "images_per_second\n"
    "1,1.5,0.4,1.2,0.5,0.001,2.0,100\n"
    "2,0.9,0.6,0.7,0.75,0.001,2.0,100\n"
    "3,0.8,0.7,0.9,0.625,0.0002,2.0,100\n"
)


def make_run(folder: Path, name: str = "final", **parts: Any) -> Run:
    """A run's folder; each stage's file is left out where it is given as None.

    Args:
        folder: where to make it.
        name: the net's name.
        **parts: history (text), evaluation, profile, dead_filters, prune, variants; and of
            config.json seed, train, classes, synthetic, fingerprint, or data=None for a run
            without images.
    """
    run = Run(folder)
    run.create()
    classes = parts.get("classes", CLASSES)
    data = {
        "name": "rice_image_dataset",
        "synthetic": parts.get("synthetic", False),
        "fingerprint": parts.get("fingerprint", "f00d"),
        "classes": list(classes),
        "images": {"train": 240, "validation": 30, "test": 30},
        "skipped": 0,
    }
    config = {
        "seed": parts.get("seed", 0),
        "model": {"name": name, "weights": "", "stages": [[4]]},
        "data": {"image_size": 8},
        "train": {"epochs": 3, "augment": False} | parts.get("train", {}),
    }
    content = {"config": config, "seed": config["seed"], "versions": {"jax": "0.10.2"}}
    run.write_json("config.json", content | {"data": parts.get("data", data)})
    history = parts.get("history", HISTORY)
    if history is not None:
        run.write_text("history.csv", history)
    alone = np.diag(np.full(len(classes), 10)).tolist()
    half = result(MATRIX if len(classes) == len(MATRIX) else alone, classes)
    default = {"clean": half, "augmented": half, "path": "test split"}
    files = {
        "evaluation": parts.get("evaluation", default),
        "profile": parts.get("profile", profile()),
        "dead_filters": parts.get("dead_filters", DEAD),
        "prune": parts.get("prune"),
        "variants": parts.get("variants"),
    }
    for file, value in files.items():
        if value is not None:
            run.write_json(f"{file}.json", value)
    return run


def history_rows(epochs: int) -> list[EpochRow]:
    """Rows of history in which the loss falls a hundredfold and the rate four times."""
    return [
        EpochRow(
            epoch=epoch,
            train_loss=1.5 * math.exp(-6 * epoch / epochs),
            train_accuracy=1 - 0.7 * math.exp(-3 * epoch / epochs),
            val_loss=1.6 * math.exp(-5 * epoch / epochs),
            val_accuracy=1 - 0.75 * math.exp(-3 * epoch / epochs),
            learning_rate=1e-3 * 0.2 ** (5 * epoch // (epochs + 1)),
        )
        for epoch in range(1, epochs + 1)
    ]


PRUNED = {
    "request": {"parent": "runs/final"},
    "before": {"study": 400, "params": 40, "filters": 4},
    "after": {"study": 300, "params": 30, "filters": 3},
    "removed": {"conv1": [2]},
    "kept": {"conv1": [0, 1, 3]},
    "budgets": {"study": {"asked": 310, "met": 300, "under": 10}},
    "certificate": {
        "max_abs_logit_difference": 0.25,
        "images": 1500,
        "changed_predictions": 7,
        "proven": False,
    },
}


def text_of(run) -> str:
    """The page's text, without the time that figures take."""
    found = record.load(run)
    return page(run, found, record.summarize(found))


def table_rows(text: str) -> list[list[str]]:
    """The rows of all tables of a page, as a reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows, row = [], None
    for index, token in enumerate(tokens):
        if token.type == "tr_open":
            row = []
            rows.append(row)
        if token.type in ("td_open", "th_open"):
            row.append("".join(child.content for child in tokens[index + 1].children))
    return rows
