"""The same budget reached in other ways and with several seeds, side by side."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import ml_collections

from rice_jax import config as configuration
from rice_jax import stages, train
from rice_jax.errors import UserError
from rice_jax.prune.job import Request, lighten
from rice_jax.run import Run

BASELINES = ("scratch", "random", "l1")
"""The pruned net's shape trained from random weights; random removal; removal by L1."""


def with_baselines(
    request: Request,
    config: ml_collections.ConfigDict,
    parent: Run,
    out: Run,
    baselines: Sequence[str],
    seeds: Sequence[int],
) -> None:
    """Make the pruned run in `out`, the others in `out`/variants, and compare them.

    The seeds are those of training; all runs share the splits of the trained one. Leaves
    variants.json: for each variant the accuracies of its seeds, their mean and their spread.

    Raises:
        UserError: an unknown baseline, or none without a budget to compare at.
    """
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise UserError(f"--baselines={unknown[0]}: there are {', '.join(BASELINES)}")
    if not request.budgets and set(baselines) & {"random", "l1"}:
        raise UserError("--baselines random and l1 need a budget, as --max_flops")
    if not request.finetune_epochs:
        raise UserError("--baselines and --seeds compare trained nets: give --finetune_epochs")
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        seeded = _with_seed(config, seed)
        for name in (request.criterion, *baselines):
            first = seed == seeds[0] and name == request.criterion
            run = out if first else Run(out.path / "variants" / f"{name}-seed{seed}")
            print(f"=== {name}, seed {seed} ===", flush=True)
            if name == "scratch":
                _from_scratch(out, run, seed)
            else:
                lighten(dataclasses.replace(request, criterion=name), seeded, parent, run)
            rows.setdefault(name, []).append({"seed": seed, **_measured(run)})
    table = {name: _summary(each) for name, each in rows.items()}
    out.write_json("variants.json", {"epochs": request.finetune_epochs, "variants": table})
    for name, row in table.items():
        print(
            f"{name}: clean {row['clean']['mean']:.4f} +- {row['clean']['spread']:.4f}, augmented "
            f"{row['augmented']['mean']:.4f} +- {row['augmented']['spread']:.4f} "
            f"({len(row['runs'])} seeds, {row['runs'][0]['flops']:,} FLOPs)"
        )


def _with_seed(config: ml_collections.ConfigDict, seed: int) -> ml_collections.ConfigDict:
    seeded = ml_collections.ConfigDict(config.to_dict()).unlock()
    seeded.data.split_seed = configuration.split_seed(config)
    seeded.seed = seed
    return seeded.lock()


def _from_scratch(pruned: Run, run: Run, seed: int) -> None:
    """Train the shape of the run in `pruned` from random weights, for as many epochs."""
    config = _with_seed(configuration.from_json(configuration.read(pruned)["config"]), seed)
    config.model.weights = train.RANDOM
    stages.run_stages(config, str(run), list(stages.STAGES))


def _measured(run: Run) -> dict[str, float]:
    evaluation = run.read_json("evaluation.json")
    return {
        "clean": evaluation["clean"]["accuracy"],
        "augmented": evaluation["augmented"]["accuracy"],
        "flops": run.read_json("profile.json")["totals"]["flops"]["study"],
    }


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    summary: dict[str, Any] = {"runs": runs}
    for part in ("clean", "augmented"):
        values = [run[part] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        summary[part] = {"mean": statistics.fmean(values), "spread": spread}
    return summary
