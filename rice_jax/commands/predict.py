"""rice-jax predict: the classes of images."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from rice_jax.bounds import Switch, Text, Whole
from rice_jax.commands import settings
from rice_jax.commands.options import Command, option
from rice_jax.errors import UserError


@click.command(cls=Command)
@click.argument("images", nargs=-1, type=click.Path())
@option("--workdir", Text("a folder"), "The run", completion="dir")
@option("--config", Text("a file"), "Of a net of your own: what says what it is", completion="file")
@option("--json", Switch(), "Print JSON, an object a line.")
@option("--csv", Switch(), "Print CSV, a row an image.")
@option(
    "--explain",
    Text("a folder", may_be_empty=False),
    "Where pictures of what it sees in a single image go",
    completion="dir",
)
@option("--batch_size", Whole(1, 100_000), "Images at a time", 32)
def predict(
    images: tuple[str, ...],
    workdir: str | None,
    config: str | None,
    json: bool,
    csv: bool,
    explain: str | None,
    batch_size: int,
) -> Callable[[], Any]:
    """Tell the classes of images with a trained net.

    \b
    rice-jax predict --workdir=runs/final photo.jpg
    rice-jax predict --workdir=runs/final FOLDER --csv > classes.csv

    IMAGES are files and folders; '-' reads paths from standard input, one a line. What is no image
    is named on standard error, the others are classified all the same, and the exit status is then
    1. --json prints {"image", "class", "probability", "probabilities"}, or {"image", "error"};
    --csv has a column for each class, as what is printed without them has where there are few, and
    else the two likeliest. --explain saves pictures: what in the image speaks for its
    class (Grad-CAM), and the feature maps of each convolution.
    """
    run = settings.existing_run(workdir, config)
    if not images and explain and os.path.isfile(explain):
        raise UserError(f"{explain} is no folder: give --explain=FOLDER {explain}")

    if not images:
        raise UserError("no image given: name files or folders, or '-' to read paths from stdin")

    if explain and len(images) > 1:
        raise UserError(f"--explain takes a single image, not {len(images)}")

    if json and csv:
        raise UserError("--json and --csv are two forms of one answer: give one of them")

    def job() -> None:
        from rice_jax import prediction

        pictures = None
        if explain:
            from rice_jax import explanation

            pictures = explanation.into(explain, run)
        prediction.answer(
            run,
            images,
            sys.stdin,
            form="json" if json else "csv" if csv else "table",
            explain=pictures,
            batch_size=batch_size,
        )

    return job
