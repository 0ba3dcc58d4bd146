"""rice-jax prune: a lighter run out of a trained one."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import click

from rice_jax import config as configuration
from rice_jax.bounds import (
    MOST_EPOCHS,
    MOST_SEEDS,
    Budget,
    FilterNumbers,
    Real,
    Several,
    Switch,
    Text,
    Whole,
    Word,
)
from rice_jax.commands import options, settings
from rice_jax.commands.options import Command, option
from rice_jax.errors import UserError

CRITERIA = ("taylor", "l1", "l2", "batch_norm", "geometric_median", "apoz", "random")
ALLOCATIONS = ("global", "uniform", "isomorphic")
BASELINES = ("scratch", *CRITERIA, *ALLOCATIONS)
KINDS = {"clean": ("clean",), "augmented": ("augmented",), "both": ("clean", "augmented")}
_MANY = 10**18
_ITS_OWN = dict.fromkeys(
    ("train.epochs", "train.quick.epochs", "train.quick.shrink"), "--finetune_epochs"
)
"""Fields of training that --finetune_epochs decides."""
_IDLE_IN_SUGGEST = ("convention", "split", "tail_margin", "teach")
_OF_NORMS = tuple(
    f"train.{name}" for name in ("augment", "batch_size", "dtype", "frozen", "images")
)
"""Fields of training by which batch norms are measured, also without any training."""


@click.command(cls=Command, fields=lambda: settings.of_a_run(_ITS_OWN))
@option("--workdir", Text("a folder"), "The trained run", completion="dir")
@option("--config", Text("a file"), "Of a net of your own: what says what it is", completion="file")
@option("--out", Text("a folder"), "Where the lighter run goes", completion="dir")
@option("--drop", Word(("dead", "proven")), "Filters that do nothing, and how sure")
@option("--filters", FilterNumbers(), "Filters of your own choice")
@option("--max_flops", Budget(1, _MANY), "FLOPs that may be left for one image")
@option("--convention", Word(("study", "formula", "xla")), "How --max_flops counts", "study")
@option("--max_params", Budget(1, _MANY), "Parameters that may be left")
@option("--max_filters", Budget(1, _MANY), "Filters of convolutions that may be left")
@option("--criterion", Word(CRITERIA), "What budgets go by", "taylor")
@option("--allocation", Word(ALLOCATIONS), "How a budget is shared out among layers", "global")
@option("--only", Several(Text("a path")), "Layers that may lose filters, with all below them")
@option("--skip", Several(Text("a path")), "Layers that lose none")
@option("--round_to", Whole(1, 65_536), "Layers keep a multiple of so many filters", 1)
@option(
    "--drop_layers",
    Several(Text("a path")),
    "Blocks to drop, or 'auto' for a tail that adds nothing",
)
@option(
    "--tail_margin",
    Real(0, 1),
    "Accuracy that a block's linear probe may be short of the best",
    0.002,
)
@option("--split", Word(("train", "validation", "test")), "Images to look at", "validation")
@option("--images", Word(tuple(KINDS)), "As they are, augmented, or both", "both")
@option("--judge_images", Whole(1, _MANY), "Training images that a criterion looks at", 2000)
@option("--steps", Whole(1, 1000), "Steps to the budget, with fine-tuning after each", 1)
@option("--finetune_epochs", Whole(0, MOST_EPOCHS), "Epochs of training after removal", 0)
@option("--teach", Switch(), "Fine-tuning learns from the unpruned run's answers too")
@option("--on_unknown", Word(("error", "keep")), "Where an operation is unknown", "error")
@option("--baselines", Several(Word(BASELINES)), "Other ways to the same budget beside it")
@option(
    "--seeds",
    Several(Whole(0, 2**31 - 1), 0, MOST_SEEDS),
    "Of fine-tuning, for a mean and a spread",
)
@option("--suggest", Switch(), "Measure several budgets; the run stays as it is.")
def prune(
    workdir: str | None,
    config: str | None,
    out: str | None,
    suggest: bool,
    teach: bool,
    fields: tuple[str, ...],
    **asked: Any,
) -> Callable[[], Any]:
    """Make a lighter run out of a trained one.

    \b
    rice-jax prune --workdir=DIR --out=DIR2 --drop=dead
    rice-jax prune --workdir=DIR --out=DIR2 --filters=conv1:4,conv3:0-7
    rice-jax prune --workdir=DIR --out=DIR2 --max_flops=50% --finetune_epochs=10
    rice-jax prune --workdir=DIR --suggest

    --drop=dead removes filters that are zero on every image of a split, --drop=proven those that
    are zero on every possible image; on these no logit changes but for rounding. --filters removes
    those that you choose, by the numbers that report.html shows them with. --max_flops,
    --max_params and --max_filters remove more, the least important first: --allocation=global ranks
    all filters by what they are worth for what they cost, uniform takes the same share of each
    layer, isomorphic the same share of all layers of one shape, ranked together. --drop_layers
    removes whole blocks.
    The folder --out is a run as any other: it can be trained, evaluated, profiled, inspected,
    pruned and exported.

    The fields of the run's configuration that stand below can be set, as
    --config.train.augment=true.
    """
    parent = settings.existing_run(workdir, config)
    chosen, given = settings.chosen(None, workdir, fields)
    if teach and "train.teacher" in given:
        raise UserError("--teach and --config.train.teacher both name a teacher: give one")
    if asked["seeds"] and "seed" in given:
        raise UserError("--seeds and --config.seed both say what seed to train with: give one")
    if teach:
        chosen.train.teacher = str(parent)
    if suggest:
        _leave_open(asked, given)
    else:
        _hold_together(out, asked)
        _refuse_idle(asked)
        settings.refuse_decided(given, _ITS_OWN)
        if idle := configuration.idle(chosen, given):
            raise UserError(f"--config.{idle}")
        if "train.initializer" in given and "scratch" not in (asked["baselines"] or ()):
            raise UserError(
                "--config.train.initializer changes nothing without --baselines=scratch"
            )

    def job() -> None:
        from rice_jax.lighten.pruning import prune_run
        from rice_jax.lighten.shares import in_numbers
        from rice_jax.lighten.suggest import suggest as measure
        from rice_jax.lighten.variants import with_baselines
        from rice_jax.records import PruneRequest
        from rice_jax.run import Run

        budgets = in_numbers(_budgets(asked), chosen, parent)
        request, target = (
            PruneRequest(**_request(asked), budgets=budgets),
            Run(out) if out else None,
        )
        if suggest or target is None:
            measure(request, chosen, parent, target)
        elif asked["baselines"] or asked["seeds"]:
            seeds = asked["seeds"] or (chosen.seed,)
            with_baselines(request, chosen, parent, target, asked["baselines"] or (), seeds)
        else:
            prune_run(request, chosen, parent, target)

    return job


def _leave_open(asked: Mapping[str, Any], fields: Iterable[str]) -> None:
    """UserError for options and fields that say what --suggest is to find out, or of training."""
    others = ("drop", "filters", "max_flops", "max_params", "max_filters", "drop_layers")
    training = ("baselines", "seeds", "finetune_epochs")
    given = [f"--{name}" for name in (*others, *training) if asked[name]]
    given += ["--steps"] if asked["steps"] > 1 else []
    given += [f"--{name}" for name in options.given() if name in _IDLE_IN_SUGGEST]
    given += [
        f"--config.{name}"
        for name in fields
        if name.startswith(("train.", "profile.", "eval.path")) and name not in _OF_NORMS
    ]
    if given:
        raise UserError(
            "--suggest tries budgets of its own, without training: leave out " + ", ".join(given)
        )


def _hold_together(out: str | None, asked: Mapping[str, Any]) -> None:
    """UserError for options of which one needs another, or excludes it."""
    if not out:
        raise UserError("--out is missing: give a folder for the lighter run")
    budget = _budgets(asked)
    if not (asked["drop"] or asked["filters"] or budget or asked["drop_layers"]):
        raise UserError(
            "nothing says what to remove: give --drop, --filters, --max_flops, --max_params, "
            "--max_filters or --drop_layers (or --suggest to see what budgets would cost)"
        )
    if "auto" in (blocks := asked["drop_layers"] or ()) and len(blocks) > 1:
        raise UserError("--drop_layers=auto finds the blocks itself: give it alone, or their names")
    if asked["steps"] > 1 and not (budget and asked["finetune_epochs"]):
        raise UserError("--steps needs a budget and --finetune_epochs to train between the steps")
    if not budget and set(asked["baselines"] or ()) - {"scratch"}:
        raise UserError("--baselines but scratch need a budget, as --max_flops")
    if (asked["baselines"] or asked["seeds"]) and not asked["finetune_epochs"]:
        raise UserError("--baselines and --seeds compare trained nets: give --finetune_epochs")


def _refuse_idle(asked: Mapping[str, Any]) -> None:
    """UserError for options that would change nothing."""
    budget, tail = bool(_budgets(asked)), "auto" in (asked["drop_layers"] or ())
    filters = "" if budget or asked["drop"] else "--drop or a budget, as --max_flops"
    any_filters = "" if asked["filters"] else filters
    wanting = {
        "convention": "" if asked["max_flops"] else "--max_flops",
        "criterion": "" if budget else "a budget, as --max_flops",
        "allocation": "" if budget else "a budget, as --max_flops",
        "round_to": "" if budget else "a budget, as --max_flops",
        "only": filters,
        "skip": filters,
        "on_unknown": any_filters,
        "judge_images": "" if budget or tail else "a budget, as --max_flops, or --drop_layers=auto",
        "tail_margin": "" if tail else "--drop_layers=auto",
        "teach": "" if asked["finetune_epochs"] else "--finetune_epochs",
    }
    for name in options.given():
        if wanting.get(name):
            raise UserError(f"--{name} changes nothing without {wanting[name]}")


def _budgets(asked: Mapping[str, Any]) -> dict[str, int | Decimal]:
    given = {
        asked["convention"]: asked["max_flops"],
        "params": asked["max_params"],
        "filters": asked["max_filters"],
    }
    return {name: number for name, number in given.items() if number is not None}


def _request(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `PruneRequest`, but for its budgets."""
    same = ("drop", "criterion", "allocation", "round_to", "tail_margin", "split", "judge_images")
    return {
        **{name: asked[name] for name in (*same, "steps", "finetune_epochs", "on_unknown")},
        "filters": asked["filters"] or {},
        "only": asked["only"] or (),
        "skip": asked["skip"] or (),
        "drop_layers": asked["drop_layers"] or (),
        "kinds": KINDS[asked["images"]],
    }
