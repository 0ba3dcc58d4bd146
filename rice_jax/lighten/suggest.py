"""What several budgets would remove and what accuracy would be left, measured."""

import contextlib
import dataclasses
from typing import Any

import ml_collections

from rice_jax import data, evaluate, identity, lock, records, train
from rice_jax.errors import UserError
from rice_jax.lighten import asked, child, smaller
from rice_jax.prune.pruner import Pruned
from rice_jax.prune.tally import totals
from rice_jax.records import PruneRequest, Suggestion, SuggestionsFile
from rice_jax.report import figures, numbers
from rice_jax.run import Run
from rice_jax.train.prepared import Images

SHARES = (0.5, 0.25, 0.1, 0.05, 0.02)
"""Of the whole net's FLOPs."""


def suggest(
    request: PruneRequest, config: ml_collections.ConfigDict, parent: Run, out: Run | None
) -> None:
    """Print a table of budgets; with `out` leave it there as suggestions.json and a Pareto plot.

    Accuracies are of the validation split, without any training after removal but that batch norms
    are measured anew, as `prune_run` does.

    Raises:
        UserError: a request of what there is not, a run without training, images or fields of the
            net that are not its own, or `out` is in use or cannot be written. What is said of a
            budget alone, as that it cannot be met, is its line of the table.
    """
    asked.require_pruning(request)
    with lock.hold(out) if out else contextlib.nullcontext():
        _suggest(request, config, parent, out)


def _suggest(
    request: PruneRequest, config: ml_collections.ConfigDict, parent: Run, out: Run | None
) -> None:
    trained = train.load(parent)
    config = child.for_the_net_of(parent, config)
    dataset = identity.load_own(config, parent)
    side = config.data.image_size
    whole = totals(trained.module, (1, side, side, 3))
    judged = Images(
        config,
        dataset.splits["train"],
        request.kinds,
        limit=request.judge_images,
        task="judging filters",
    )
    rows = [_measured(config, trained.module, trained.params, dataset, whole, 0)]
    _print(rows[0], whole)
    for share in SHARES:
        budgets = {"study": int(share * whole["study"])}
        net = trained.module, {"params": trained.params}
        try:
            cut = smaller.cut(request, *net, judged, seed=config.seed, budgets=budgets)
        except UserError as error:
            print(f"{100 * share:.0f}%: {error}")
            continue
        rows.append(_cheaper(config, cut, dataset))
        _print(rows[-1], whole)
    if out is not None:
        title = f"{config.model.name}: budgets by {request.criterion}, no training after"
        found = SuggestionsFile(criterion=request.criterion, rows=rows)
        _save(out, found, title, synthetic=dataset.synthetic)


def _cheaper(config: ml_collections.ConfigDict, cut: Pruned, dataset: data.Dataset) -> Suggestion:
    """A net that was cut, with norms that know what is left, as `prune` leaves it."""
    less = smaller.configured(config, cut.module)
    params = child.settled(less, cut.variables["params"], dataset)
    removed = {path: list(filters) for path, filters in cut.removed.items()}
    gone = sum(map(len, removed.values()))
    row = _measured(config, cut.module, params, dataset, cut.after, gone)
    return dataclasses.replace(row, removed=removed)


def _save(out: Run, found: SuggestionsFile, title: str, *, synthetic: bool) -> None:
    records.write(out, found)
    figure = figures.budgets(found.rows, measure="FLOPs (study)", title=title, synthetic=synthetic)
    out.write_bytes("suggestions.png", figures.png(figure))
    print(f"the table and its plot are in {out}")


def _measured(
    config: ml_collections.ConfigDict,
    module: Any,
    params: Any,
    dataset: data.Dataset,
    left: Any,
    gone: int,
) -> Suggestion:
    accuracy = {
        kind: evaluate.evaluate(
            module,
            params,
            dataset.splits["validation"],
            classes=dataset.classes,
            image_size=config.data.image_size,
            batch_size=config.eval.batch_size,
            augment_seed=seed,
            workers=config.data.workers,
        ).accuracy
        for kind, seed in (("clean", None), ("augmented", config.seed))
    }
    return Suggestion(
        cost=left["study"],
        flops_complete=not left["uncounted"],
        params=left["params"],
        filters_removed=gone,
        clean=accuracy["clean"],
        augmented=accuracy["augmented"],
    )


def _print(row: Suggestion, whole: dict[str, int]) -> None:
    flops = numbers.at_least(f"{row.cost:,}", row.flops_complete)
    print(
        f"{100 * row.cost / whole['study']:6.1f}% of the FLOPs ({flops}), "
        f"{row.params:,} parameters, {row.filters_removed} filters and units less: clean "
        f"{row.clean:.4f}, augmented {row.augmented:.4f} on validation",
        flush=True,
    )
