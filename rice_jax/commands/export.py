"""rice-jax export: a trained net as a file."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import click

from rice_jax.bounds import Field, Switch, Text, Whole
from rice_jax.commands import options, settings
from rice_jax.commands.options import Command, option
from rice_jax.errors import UserError

_SUFFIXES = (".stablehlo", ".onnx", ".tflite")


def _images() -> dict[str, Field]:
    """The fields that say which images --int8 looks at; the run's own where none is given."""
    return {
        name: dataclasses.replace(field, default=settings.THE_RUNS)
        for name, field in settings.images().items()
        if name not in ("eval.path", "data.keep_decoded")  # a few images are decoded each time
    }


@click.command(cls=Command, fields=_images)
@option("--workdir", Text("a folder"), "The run", completion="dir")
@option("--config", Text("a file"), "Of a net of your own: what says what it is", completion="file")
@option(
    "--out", Text("a file, *.stablehlo, *.onnx or *.tflite"), "What to write", completion="file"
)
@option("--int8", Switch(), "Weights and activations in 8 bits: of an .onnx or a .tflite.")
@option(
    "--averaged",
    Switch(),
    "The file takes images averaged as the net does first (micro, nano): a device needs no memory "
    "for them whole.",
)
@option("--calibration_images", Whole(1, 1_000_000), "Training images that --int8 looks at", 200)
def export(
    workdir: str | None,
    config: str | None,
    out: str | None,
    int8: bool,
    averaged: bool,
    calibration_images: int,
    fields: tuple[str, ...],
) -> Callable[[], Any]:
    """Write a file that runs without this package.

    \b
    rice-jax export --workdir=runs/final --out=FILE.stablehlo   runs with jax alone
    rice-jax export --workdir=runs/final --out=FILE.onnx        runs in onnxruntime and others
    rice-jax export --workdir=runs/final --out=FILE.tflite      runs in LiteRT, on devices
    rice-jax export --workdir=runs/final --out=FILE.tflite --int8

    Each takes images (N, H, W, 3), float32 in [0, 1], and returns logits (N, classes); N is of any
    size, but 1 in a .tflite. FILE.json beside it says which classes, which size, and what the net
    costs; what a reader of the file needs of that is in .onnx and .tflite themselves. With --int8 a
    .tflite takes and gives int8. What ranges activations have it learns from training images, which
    are looked for where the run had them; --config.data.path says where they are now.
    """
    run = settings.existing_run(workdir, config)
    if not out:
        raise UserError("--out is missing: give a file to write, *.stablehlo, *.onnx or *.tflite")
    if os.path.splitext(os.path.basename(out))[1] not in _SUFFIXES:
        raise UserError(f"--out={out}: give a file's name that ends in {', '.join(_SUFFIXES)}")
    if int8 and out.endswith(".stablehlo"):
        raise UserError(f"--out={out}: --int8 is for .onnx and .tflite")
    if "calibration_images" in options.given() and not int8:
        raise UserError("--calibration_images changes nothing without --int8")
    if fields and not int8:
        raise UserError(f"{fields[0]}: images are for --int8 alone")
    chosen, given = settings.chosen(None, workdir, fields)
    for name in given:
        if name not in _images():
            raise UserError(f"--config.{name} has no part in an export; give --config.data.path")

    def job() -> None:
        from rice_jax.export import exporting

        exporting.require_place(out)
        images = exporting.calibration_images(run, chosen, calibration_images) if int8 else None
        exporting.tell(exporting.write(run, out, images, averaged=averaged))

    return job
