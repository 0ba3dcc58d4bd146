"""The same budget reached in other ways and with several seeds, side by side."""

import dataclasses
import statistics
from collections.abc import Sequence

import ml_collections

from rice_jax import config as configuration
from rice_jax import lock, profile, records, report, stages, train
from rice_jax.errors import UserError
from rice_jax.lighten import child
from rice_jax.lighten.pruning import prune_run
from rice_jax.prune import ALLOCATIONS, CRITERIA
from rice_jax.records import PruneRequest
from rice_jax.report import numbers
from rice_jax.run import Run

BASELINES = ("scratch", *CRITERIA, *ALLOCATIONS)
"""The pruned net's shape trained from random weights; another criterion; another allocation."""


def with_baselines(
    request: PruneRequest,
    config: ml_collections.ConfigDict,
    parent: Run,
    out: Run,
    baselines: Sequence[str],
    seeds: Sequence[int],
) -> None:
    """Make the pruned run in `out`, the others in `out`/variants, and compare them.

    The seeds are those of training; all runs share the splits of the trained one. Leaves
    variants.json, and a table in `out`'s report: for each variant the accuracies of its seeds,
    their mean, and their standard deviation (None for one seed), the latency beside the whole
    net's, all measured one after the other once all are trained. What the request itself removes
    is called by its criterion, or by what it drops where there is no budget.

    Raises:
        UserError: an unknown baseline, one but 'scratch' without a budget to compare at, no
            training after, no seed, other weights in `parent` than those that `out` was made of; or
            as `prune_run`.
    """
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise UserError(f"--baselines={unknown[0]}: there are {', '.join(BASELINES)}")
    if not request.budgets and set(baselines) - {"scratch"}:
        raise UserError("--baselines but scratch need a budget, as --max_flops")
    if not request.finetune_epochs:
        raise UserError("--baselines and --seeds compare trained nets: give --finetune_epochs")
    if not seeds:
        raise UserError("--seeds: give one at least")
    with lock.hold(out):
        _compare(request, config, parent, out, baselines, seeds)


def _compare(
    request: PruneRequest,
    config: ml_collections.ConfigDict,
    parent: Run,
    out: Run,
    baselines: Sequence[str],
    seeds: Sequence[int],
) -> None:
    config = child.for_the_net_of(parent, config)
    if account := records.read_if_there(out, records.PruneFile):  # of which there may be variants
        child.require_its_weights(out, account.weights, parent, train.load(parent))
    chosen = "filters" if request.filters else "drop_layers"
    own = request.criterion if request.budgets else request.drop or chosen
    names = [own, *(name for name in baselines if name != request.allocation)]
    names = list(dict.fromkeys(names))
    epochs = request.steps * request.finetune_epochs  # after each step the pruned nets have these
    made: dict[str, list[tuple[int, Run]]] = {name: [] for name in names}
    for seed in dict.fromkeys(seeds):
        seeded = _with_seed(config, seed)
        for name in names:
            first = seed == seeds[0] and name == own
            run = out if first else Run(out.path / "variants" / f"{name}-seed{seed}")
            print(f"=== {name}, seed {seed} ===", flush=True)
            if name == "scratch":
                _from_scratch(out, run, seed, epochs)
            else:
                prune_run(_otherwise(request, name), seeded, parent, run)
            made[name].append((seed, run))
    whole = _latency(parent, config)
    table = {
        name: _summary([_measured(run, seed, config) for seed, run in runs])
        for name, runs in made.items()
    }
    variants = records.VariantsFile(epochs=epochs, variants=table, whole_latency_seconds=whole)
    records.write(out, variants)
    report.write(out)
    for name, row in table.items():
        flops = " to ".join(f"{each:,}" for each in dict.fromkeys(row.flops))
        flops = numbers.at_least(flops, row.flops_complete)
        print(
            f"{name}: clean {_told(row.clean)}, augmented {_told(row.augmented)}, "
            f"{flops} FLOPs, seed {', '.join(str(run.seed) for run in row.runs)}"
        )


def _otherwise(request: PruneRequest, name: str) -> PruneRequest:
    """The request with the criterion or the allocation that a baseline is called by."""
    if name in ALLOCATIONS:
        return dataclasses.replace(request, allocation=name)
    return dataclasses.replace(request, criterion=name) if name in CRITERIA else request


def _latency(run: Run, config: ml_collections.ConfigDict) -> float:
    """Seconds of one image, measured now: when a run was profiled the machine was as fast as it
    was then, and maybe another."""
    net, (_, *image) = train.load(run), train.input_shape(config)
    timed = profile.latency(net.module, {"params": net.params}, image, seconds=1.0, largest_batch=1)
    return timed["median"]


def _with_seed(config: ml_collections.ConfigDict, seed: int) -> ml_collections.ConfigDict:
    seeded = ml_collections.ConfigDict(config.to_dict()).unlock()
    seeded.data.split_seed = configuration.split_seed(config)
    seeded.seed = seed
    return seeded.lock()


def _from_scratch(pruned: Run, run: Run, seed: int, epochs: int) -> None:
    """Train the shape of the run in `pruned` from random weights."""
    config = _with_seed(configuration.from_json(configuration.read(pruned).config), seed)
    config.model.weights = train.RANDOM
    configuration.set_epochs(config, epochs)
    config.train.frozen = ()  # what is random has to learn
    settled = configuration.fields(config.model.name)  # by the run whose budget it has
    stages.run_stages(config, str(run), list(stages.STAGES), settled)


def _measured(run: Run, seed: int, config: ml_collections.ConfigDict) -> records.SeedTold:
    evaluation = records.read(run, records.EvaluationFile).parts()
    profiled = records.read(run, records.ProfileFile)
    return records.SeedTold(
        seed=seed,
        clean=evaluation["clean"].accuracy,
        augmented=evaluation["augmented"].accuracy,
        flops=profiled.totals.flops.by("study"),
        flops_complete=not profiled.uncounted,
        latency=_latency(run, config),
    )


def _summary(runs: list[records.SeedTold]) -> records.VariantTold:
    return records.VariantTold(
        runs=runs,
        clean=_mean([run.clean for run in runs]),
        augmented=_mean([run.augmented for run in runs]),
        latency=_mean([run.latency for run in runs if run.latency is not None]),
    )


def _mean(values: Sequence[float]) -> records.Mean:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return records.Mean(mean=statistics.fmean(values), spread=spread)


def _told(accuracy: records.Mean) -> str:
    spread = "" if accuracy.spread is None else f" +- {accuracy.spread:.4f}"
    return f"{accuracy.mean:.4f}{spread}"
