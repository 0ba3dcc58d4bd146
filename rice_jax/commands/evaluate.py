"""rice-jax evaluate: how well an exported file does."""

from collections.abc import Callable
from typing import Any

import click

from rice_jax.bounds import Paths, Text
from rice_jax.commands import settings
from rice_jax.commands.options import Command, option
from rice_jax.errors import UserError


@click.command(cls=Command, fields=settings.images)
@option(
    "--artifact",
    Paths(Text("a file"), 1),
    "What rice-jax export wrote, *.stablehlo, *.onnx or *.tflite",
    completion="file",
)
def evaluate(artifact: tuple[str, ...] | None, fields: tuple[str, ...]) -> Callable[[], Any]:
    """Evaluate exported files as a run is evaluated.

    \b
    rice-jax evaluate --artifact=final.tflite,final.onnx --config.data.path=rice-image-dataset.zip

    Accuracy on the test split as it is and augmented: of the images that --config.data.path or else
    RICE_IMAGE_DATASET names, split as for the run that the file came from, or of the sample; the
    time of one image in the format's own runtime; bytes. Of a .tflite also what it takes in
    tflite-micro, and whether it computes there what it does in LiteRT. FILE.json holds the whole
    report. A run itself is evaluated by `rice-jax train --stages=evaluate`.
    """
    if not artifact:
        raise UserError("--artifact is missing: give a file that rice-jax export wrote")
    config, _ = settings.for_all_nets(fields, settings.images())

    def job() -> None:
        from rice_jax.export import accuracy
        from rice_jax.export.artifact import read

        opened = [read(path) for path in artifact]
        for each in opened:
            accuracy.require_place(each)
        found = []
        try:
            for each in opened:
                found.append(accuracy.evaluate(each, config))
                accuracy.record(each, found[-1])
        finally:
            if found:
                print("\n".join(accuracy.table(opened[: len(found)], found)))

    return job
