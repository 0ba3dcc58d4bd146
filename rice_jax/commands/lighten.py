"""rice-jax lighten: the lightest run within a margin of a trained one's accuracy."""

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from rice_jax import config as configuration
from rice_jax.bounds import MOST_EPOCHS, Field, Real, Several, Switch, Text, Whole, Word
from rice_jax.commands import options, settings
from rice_jax.commands.options import Command, option
from rice_jax.commands.prune import CRITERIA
from rice_jax.errors import UserError

MEASURES = ("flops", "params", "bytes", "latency")
STEPS = ("channels", "layer", "resolution", "stem")
_ITS_OWN = {
    **dict.fromkeys(f"train.{name}" for name in configuration.NO_PART_IN["quick"]),
    **dict.fromkeys(("train.epochs", "train.quick.epochs"), "--finetune_epochs, --final_epochs"),
    "train.learning_rate": "--config.train.quick.peak_rate",
    **dict.fromkeys(("train.schedule", "train.quick.shrink", "train.validation_augmented")),
    **dict.fromkeys(("train.initializer", "train.frozen")),
    "eval.path": None,
}
"""Fields that the search decides itself, and what to give in their stead."""

_OF_A_TEACHER = dict.fromkeys(
    ("train.distill.temperature", "train.distill.weight"), "--config.train.teacher"
)

_JUDGED = {
    **dict.fromkeys(("share", "criterion", "round_to"), ("channels",)),
    "judge_images": ("channels", "layer"),
}
"""Options that say what goes, and the steps that ask."""


def _fields() -> dict[str, Field]:
    fields = settings.of_a_run(_ITS_OWN)
    taught = dataclasses.replace(fields["train.teacher"], default="the run itself")
    return fields | {"train.teacher": taught}


@click.command(cls=Command, fields=_fields)
@option("--workdir", Text("a folder"), "The trained run", completion="dir")
@option("--config", Text("a file"), "Of a net of your own: what says what it is", completion="file")
@option("--out", Text("a folder"), "Where the lighter run goes", completion="dir")
@option(
    "--within",
    Real(-1, 1),
    "Accuracy on augmented validation images that a net may be short of the run's",
    0.005,
)
@option("--at_least", Real(0, 1), "The accuracy that it must have, instead of --within")
@option("--measure", Word(MEASURES), "What is to be small", "flops")
@option("--steps", Several(Word(STEPS), 1), "What may be taken away", STEPS)
@option("--share", Real(0, 1, above=True, below=True), "Of the cost left where channels go", 0.5)
@option("--round_to", Whole(1, 65_536), "Layers keep a multiple of so many filters", 1)
@option("--rounds", Whole(1, 100), "Steps after each other, at most", 6)
@option("--beam", Whole(1, 100), "Nets that each round makes lighter", 2)
@option(
    "--slack",
    Real(0, 1),
    "How far below what is wanted a net may be and still be gone on with",
    0.02,
)
@option(
    "--finetune_epochs",
    Whole(1, MOST_EPOCHS),
    "Epochs of training after each step; more where images are few",
    1,
)
@option(
    "--final_epochs",
    Whole(0, MOST_EPOCHS),
    "Epochs of more training for those near to what is wanted, and more where images are few; "
    "0 for none",
    4,
)
@option("--criterion", Word(CRITERIA), "By which channels go", "taylor")
@option("--judge_images", Whole(1, 1_000_000), "Training images that decide what goes", 512)
@option("--estimate", Switch(), "Only say what it will take.")
def lighten(
    workdir: str | None,
    config: str | None,
    out: str | None,
    estimate: bool,
    finetune_epochs: int,
    fields: tuple[str, ...],
    **asked: Any,
) -> Callable[[], Any]:
    """Find the lightest net that is nearly as good as a trained run.

    \b
    rice-jax lighten --workdir=DIR --out=DIR2 --within=0.005

    Takes channels, whole layers, the image's resolution and the places of the first convolution
    away, one step after the other; after each the net learns again, also from the run's answers.
    Keeps the nets that no other beats in cost and accuracy, and makes the lightest of them lighter
    still. DIR2 is then a run as any other, of the lightest net within the margin; lighten.json and
    report.md there tell all that were tried. Each is a run in DIR2/candidates. The same command
    given again goes on where it stopped.

    The fields of the run's configuration that stand below can be set, as
    --config.train.augment=true or --config.train.images=6000.
    """
    parent = settings.existing_run(workdir, config)
    chosen, given = settings.chosen(None, workdir, fields)
    if not out:
        raise UserError("--out is missing: give a folder for the lighter run")
    if {"within", "at_least"} <= set(options.given()):
        raise UserError("--within and --at_least both say what accuracy is wanted: give one")
    for name in options.given():
        if name in _JUDGED and set(_JUDGED[name]).isdisjoint(asked["steps"]):
            needed = " or ".join(_JUDGED[name])
            raise UserError(f"--{name} changes nothing without {needed} among the --steps")
    settings.refuse_decided(given, _ITS_OWN)
    if "train.teacher" not in given:
        chosen.train.teacher = str(parent)
    if not chosen.train.teacher:
        settings.refuse_decided(given, _OF_A_TEACHER)
    said = ["epochs" if name == "finetune_epochs" else name for name in options.given()]

    def job() -> None:
        from rice_jax.lighten.search import search
        from rice_jax.records import SearchRequest
        from rice_jax.run import Run

        each_once = tuple(dict.fromkeys(asked.pop("steps")))
        request = SearchRequest(**asked, steps=each_once, epochs=finetune_epochs)
        search(request, chosen, parent, Run(out), said, estimate_only=estimate)

    return job
