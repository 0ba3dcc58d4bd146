"""rice-jax export: a trained net as a file."""

from collections.abc import Callable
from typing import Any

import click

from rice_jax.bounds import Text
from rice_jax.commands import settings
from rice_jax.commands.options import Command, option
from rice_jax.errors import UserError


@click.command(cls=Command)
@option("--workdir", Text("a folder"), "The run", completion="dir")
@option(
    "--out", Text("a file, *.stablehlo, *.onnx or *.tflite"), "What to write", completion="file"
)
def export(workdir: str | None, out: str | None) -> Callable[[], Any]:
    """Write a file that runs without this package.

    \b
    rice-jax export --workdir=runs/final --out=FILE.stablehlo   runs with jax alone
    rice-jax export --workdir=runs/final --out=FILE.onnx        runs in onnxruntime and others
    rice-jax export --workdir=runs/final --out=FILE.tflite      runs in LiteRT, on devices

    Each takes images (N, H, W, 3), float32 in [0, 1], and returns logits (N, classes); N is of any
    size, but 1 in a .tflite. FILE.json beside it says which classes, which size, and what the net
    costs; what a reader of the file needs of that is in .onnx and .tflite themselves.
    """
    run = settings.existing_run(workdir)
    if not out:
        raise UserError("--out is missing: give a file to write, *.stablehlo, *.onnx or *.tflite")

    def job() -> None:
        from rice_jax.export import writing

        writing.tell(writing.write(run, out))

    return job
