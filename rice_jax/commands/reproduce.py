"""rice-jax reproduce: every net of the study, and their comparison."""

import os
from collections.abc import Callable
from typing import Any

import click

from rice_jax import nets as known
from rice_jax.bounds import Several, Switch, Text, Word
from rice_jax.commands import settings
from rice_jax.commands.options import Command, option
from rice_jax.errors import UserError


@click.command(cls=Command, fields=settings.shared)
@option(
    "--nets", Several(Word(tuple(known.NETS))), "Which; the study's that can be trained without it"
)
@option(
    "--out",
    Text("a folder", may_be_empty=False),  # else the root of all folders
    "Where runs and comparison go",
    "runs",
    completion="dir",
)
@option(
    "--imagenet",
    Text("a file", may_be_empty=False),
    "Keras's .h5 of VGG16, which two nets start from",
    completion="file",
)
@option("--estimate", Switch(), "Only say how long it would take.")
def reproduce(
    nets: tuple[str, ...] | None,
    out: str,
    imagenet: str | None,
    estimate: bool,
    fields: tuple[str, ...],
) -> Callable[[], Any]:
    """Train the nets of the study, then compare them.

    \b
    rice-jax reproduce --config.data.path=rice-image-dataset.zip

    The nets are trained one after the other. First says how long it will take, from a few training
    steps of each net. A net's run is OUT/NAME, the comparison OUT/comparison. The same command
    given again goes on where it stopped, and leaves finished runs alone. A net that fails is told,
    and the others go on. vgg16 and vgg_light join in where --imagenet names the file of weights
    that they start from.

    The fields below can be set, for all nets alike.
    """
    imagenet = imagenet and os.path.expanduser(imagenet)
    if imagenet and not os.path.isfile(imagenet):
        raise UserError(f"--imagenet={imagenet}: there is no such file")
    if imagenet and nets and not any(known.get(name).needs_weights for name in nets):
        raise UserError("--imagenet changes nothing without vgg16 or vgg_light among the --nets")
    config, given = settings.for_all_nets(fields)

    def job() -> None:
        from rice_jax import reproduction

        reproduction.reproduce(
            config, given, nets or (), out, imagenet or "", estimate_only=estimate
        )

    return job
