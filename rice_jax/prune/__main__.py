"""Make a lighter run out of a trained one.

  python -m rice_jax.prune --workdir=DIR --out=DIR2 --drop=dead
  python -m rice_jax.prune --workdir=DIR --out=DIR2 --max_flops=1000000 --finetune_epochs=10
  python -m rice_jax.prune --workdir=DIR --suggest

--drop=dead removes filters that are zero on every image of a split, --drop=proven those that are
zero on every possible image; both change no logit. --max_flops, --max_params and --max_filters
remove more, the least important first. --drop_layers removes whole blocks. The folder --out is a
run as any other: it can be trained, evaluated, profiled, inspected, pruned and exported.

Every field of the run's configuration can be set, as --config.train.augment=true.
"""

import sys
from collections.abc import Sequence

from absl import flags

from rice_jax import cli
from rice_jax.errors import UserError
from rice_jax.prune import CRITERIA
from rice_jax.prune.job import Request, lighten
from rice_jax.prune.suggest import suggest
from rice_jax.prune.variants import BASELINES, with_baselines
from rice_jax.run import Run

_CONFIG = cli.define_config(sys.argv) if __name__ == "__main__" else None
_KINDS = {"clean": ("clean",), "augmented": ("augmented",), "both": ("clean", "augmented")}


def _define_flags() -> None:
    flags.DEFINE_string("workdir", None, "The trained run's folder.")
    flags.DEFINE_string("out", None, "Folder of the lighter run.")
    flags.DEFINE_enum("drop", None, ("dead", "proven"), "Filters that do nothing, and how sure.")
    flags.DEFINE_integer("max_flops", None, "FLOPs that may be left for one image.")
    flags.DEFINE_enum("convention", "study", ("study", "formula", "xla"), "How --max_flops counts.")
    flags.DEFINE_integer("max_params", None, "Parameters that may be left.")
    flags.DEFINE_integer("max_filters", None, "Filters of convolutions that may be left.")
    flags.DEFINE_enum("criterion", "taylor", list(CRITERIA), "What budgets go by.")
    flags.DEFINE_list("drop_layers", [], "Blocks to drop, or 'auto' for a tail that adds nothing.")
    flags.DEFINE_float(
        "tail_margin", 0.002, "Accuracy that a block's linear probe may be short of the best."
    )
    flags.DEFINE_enum("split", "validation", ("train", "validation", "test"), "Images to look at.")
    flags.DEFINE_enum("images", "both", list(_KINDS), "As they are, augmented, or both.")
    flags.DEFINE_integer("judge_images", 2000, "Training images that a criterion looks at.")
    flags.DEFINE_integer("steps", 1, "Steps to the budget, with fine-tuning after each.")
    flags.DEFINE_integer("finetune_epochs", 0, "Epochs of training after removal.")
    flags.DEFINE_enum(
        "on_unknown", "error", ("error", "keep"), "What to do where an operation is unknown."
    )
    flags.DEFINE_list("baselines", [], f"Other ways to compare with: {', '.join(BASELINES)}.")
    flags.DEFINE_list("seeds", [], "Seeds of fine-tuning, for a mean and a spread.")
    flags.DEFINE_bool("suggest", False, "Measure several budgets; the run stays as it is.")


def main(argv: Sequence[str]) -> None:
    """Do what the flags ask for."""
    flag = flags.FLAGS
    if argv[1:]:
        raise UserError(f"{argv[1]!r} is no flag")
    if not flag.workdir or _CONFIG is None or _CONFIG.value is None:
        raise UserError("--workdir is missing or no run: give the folder of a trained run")
    parent = Run(flag.workdir)
    if flag.suggest:
        suggest(_request(), _CONFIG.value, parent, Run(flag.out) if flag.out else None)
        return
    if not flag.out:
        raise UserError("--out is missing: give a folder for the lighter run")
    request, out = _request(), Run(flag.out)
    if not (request.drop or request.budgets or request.drop_layers):
        raise UserError(
            "nothing says what to remove: give --drop, --max_flops, --max_params, --max_filters "
            "or --drop_layers (or --suggest to see what budgets would cost)"
        )
    if flag.baselines or flag.seeds:
        seeds = _numbers(flag.seeds) or [_CONFIG.value.seed]
        with_baselines(request, _CONFIG.value, parent, out, flag.baselines, seeds)
    else:
        lighten(request, _CONFIG.value, parent, out)


def _request() -> Request:
    flag = flags.FLAGS
    asked = {
        flag.convention: flag.max_flops,
        "params": flag.max_params,
        "filters": flag.max_filters,
    }
    return Request(
        drop=flag.drop,
        budgets={name: number for name, number in asked.items() if number is not None},
        criterion=flag.criterion,
        drop_layers=tuple(flag.drop_layers),
        tail_margin=flag.tail_margin,
        split=flag.split,
        kinds=_KINDS[flag.images],
        judge_images=flag.judge_images,
        steps=flag.steps,
        finetune_epochs=flag.finetune_epochs,
        on_unknown=flag.on_unknown,
    )


def _numbers(texts: Sequence[str]) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError as error:
        raise UserError(f"--seeds={','.join(texts)}: give whole numbers") from error


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
