"""What the stages left in a run's folder, read once; and the headline figures of it."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rice_jax.errors import UserError
from rice_jax.report import history
from rice_jax.run import Run

PARTS = ("clean", "augmented")
"""The two halves of evaluation.json, and of the census."""


@dataclasses.dataclass(frozen=True)
class Record:
    """The contents of a run's files; None, or no rows, for a stage that has not run."""

    config: Mapping[str, Any]
    history: Sequence[Mapping[str, float | None]]
    evaluation: Mapping[str, Any] | None
    profile: Mapping[str, Any] | None
    dead_filters: Mapping[str, Any] | None
    prune: Mapping[str, Any] | None
    variants: Mapping[str, Any] | None
    lighten: Mapping[str, Any] | None = None
    """Of a run that a search for lighter nets chose."""
    file: Mapping[str, Any] | None = None
    """Of an exported file what stands in the JSON beside it; None for a run."""

    @property
    def model(self) -> str:
        """Name of the net."""
        return self.config["config"]["model"]["name"]

    @property
    def data(self) -> Mapping[str, Any] | None:
        """What config.json says of the images; None for a run that has seen none."""
        return self.config.get("data")

    @property
    def seed(self) -> int | None:
        """The seed that the net ended with: a net that began again has another than its config."""
        told = self.history[-1].get("seed") if self.history else None
        return self.config.get("seed") if told is None else int(told)

    @property
    def synthetic(self) -> bool:
        """Whether the run's images are drawn."""
        return bool(self.data and self.data["synthetic"])

    @property
    def flops_complete(self) -> bool:
        """Whether the profile counts all that the net does; True where there is no profile."""
        return not (self.profile or {}).get("uncounted")


def load(run: Run) -> Record:
    """Read a run's folder; UserError where config.json is missing or a file is damaged."""

    def read(name: str) -> Any:
        return run.read_json(name) if run.has(name) else None

    return Record(
        config=run.read_json("config.json"),
        history=history.read(run),
        evaluation=read("evaluation.json"),
        profile=read("profile.json"),
        dead_filters=read("dead_filters.json"),
        prune=read("prune.json"),
        variants=read("variants.json"),
        lighten=read("lighten.json"),
    )


def load_file(path: str) -> Record:
    """An exported file as a record, by the JSON beside it alone.

    Raises:
        UserError: that JSON is missing or damaged.
    """
    folder, name = os.path.split(path)
    told = Run(folder or ".").read_json(f"{name}.json")
    try:
        dataset = told.get("dataset") or {}
        measured = {
            runtime: {"median": seconds["median"], "device": f"CPU, {runtime}"}
            for runtime, seconds in (told.get("latency_seconds") or {}).items()
            if runtime != "rice_jax"
        }
        return Record(
            config={
                "config": {"model": {"name": told["net"]}, "data": {}, "train": {}},
                "seed": told["seed"],
                "data": {"name": None, "synthetic": False, "fingerprint": None, **dataset},
            },
            history=[],
            evaluation=told.get("evaluation"),
            profile={
                "totals": {"params": told["params"], "flops": told["flops"]},
                "uncounted": [] if told["flops_complete"] else [told["net"]],
                "time": {"measured": next(iter(measured.values()), {})},
            },
            dead_filters=None,
            prune=None,
            variants=None,
            file=told | {"file": path},
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}.json is not as rice-jax export writes it: give the file that it wrote"
        ) from error


def summarize(record: Record) -> dict[str, Any]:
    """summary.json: model, dataset, best_epoch, and the headline figures of the other files.

    A figure whose stage has not run is None. Shares are in [0, 1], losses in nats, times in
    seconds, FLOPs for one image.
    """
    data, profile = record.data, record.profile or {}
    best = history.best_row(record.history) or {}
    totals, time = profile.get("totals") or {}, profile.get("time") or {}
    measured = time.get("measured") or {}
    return {
        "model": record.model,
        "seed": record.seed,
        "pruned": record.prune is not None,
        "dataset": data
        and {name: data.get(name) for name in ("name", "synthetic", "fingerprint", "images")},
        "weights": record.config.get("weights"),
        "epochs": len(record.history),
        "best_epoch": int(best["epoch"]) if best else None,
        "train_accuracy": best.get("train_accuracy"),
        "train_loss": best.get("train_loss"),
        "val_accuracy": best.get("val_accuracy"),
        "val_loss": best.get("val_loss"),
        **{part: _result(record, part) for part in PARTS},
        "evaluated_on": (record.evaluation or {}).get("path"),
        "params": totals.get("params"),
        "trainable_params": totals.get("trainable_params"),
        "filters": totals.get("filters"),
        "study_filters": totals.get("study_filters"),
        "flops": totals.get("flops"),
        "flops_complete": record.flops_complete,
        **_precision(record, totals),
        "latency_seconds": measured.get("median"),
        "images_per_second": (measured.get("throughput") or {}).get("images_per_second"),
        "latency_device": measured.get("device"),
        "dead_filters": _dead(record),
        "reported": profile.get("reported"),
        "errata": profile.get("errata") or [],
    }


def _result(record: Record, part: str) -> dict[str, Any] | None:
    result = (record.evaluation or {}).get(part)
    if not result:
        return None
    headline = {name: result.get(name) for name in ("images", "accuracy", "loss")}
    return headline | {
        f"macro_{name}": result["macro_avg"][name] for name in ("precision", "recall", "f1")
    }


def _precision(record: Record, totals: Mapping[str, Any]) -> dict[str, Any]:
    """The bits of a number, and what they cost: bytes of a run's parameters, of a file all."""
    if record.file is not None:
        return {name: record.file[name] for name in ("precision", "bit_operations", "bytes")}
    cost = (totals.get("precisions") or {}).get("float32") or {}
    return {
        "precision": "float32",
        "bit_operations": cost.get("bit_operations"),
        "bytes": totals.get("param_bytes"),
    }


def _dead(record: Record) -> dict[str, int] | None:
    if record.dead_filters is None:
        return None
    layers = record.dead_filters["layers"]
    return {
        "filters": sum(layer["filters"] for layer in layers),
        "clean": sum(len(layer["dead_clean"]) for layer in layers),
        "augmented": sum(len(layer["dead_augmented"]) for layer in layers),
        "proven": sum(len(layer["proven_dead"]) for layer in layers),
        "images": record.dead_filters["images"],
    }
