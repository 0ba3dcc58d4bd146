"""rice-jax train: the main job."""

from collections.abc import Callable
from typing import Any

import click

from rice_jax import config as configuration
from rice_jax import nets, zoo
from rice_jax.bounds import Several, Switch, Text, Word
from rice_jax.commands import named, settings
from rice_jax.commands.options import Command, option
from rice_jax.errors import UserError

STAGES = ("train", "evaluate", "profile", "inspect")


@click.command(cls=Command, fields=settings.of_all_nets)
@option(
    "--config",
    Text(f"{', '.join(named.names())}, zoo:NAME, or a file"),
    "Which net and recipe",
    completion="file",
    words=named.names(),
)
@option(
    "--workdir",
    Text("a folder", may_be_empty=False),
    "Where the run goes; runs/NAME without it",
    completion="dir",
)
@option("--stages", Several(Word(STAGES), 1), "What to do", STAGES)
@option(
    "--restart",
    Switch(),
    "Train anew, each time it is given; what the folder holds of a run before is removed",
)
def train(
    config: str | None,
    workdir: str | None,
    stages: tuple[str, ...],
    restart: bool,
    fields: tuple[str, ...],
) -> Callable[[], Any]:
    """Train a net, evaluate it, profile it, inspect its filters.

    \b
    rice-jax train --config=final
    rice-jax train --config=final --config.data.path=FOLDER --config.train.epochs=10
    rice-jax train --config=zoo:vgg_custom_light --stages=evaluate

    Without --config.data.path and without RICE_IMAGE_DATASET the images are the 1,000 photographs
    that come with the package, and the run starts from the zoo's net where there is one of that
    name. --config=zoo:NAME is a net of the zoo with its own widths and weights. The same command
    given again goes on where the run in --workdir stands; then --config may be left out.

    The defaults below are the study's recipe. micro and nano have one of their own, googlenet a
    quick.peak_rate, and vgg16 and vgg_light layers that do not learn: config.json in the run's
    folder tells it all.
    """
    found, given = settings.chosen(config, workdir, fields)
    if config and config.startswith(zoo.PREFIX):
        workdir = workdir or f"runs/{config.removeprefix(zoo.PREFIX)}"
    if config and "train" in stages and settings.lacks_weights(found):
        raise UserError(nets.weights_wanted(found.model.name))
    if "train" in stages and (idle := configuration.idle(found, given)):
        raise UserError(f"--config.{idle}")

    def job() -> None:
        from rice_jax import cluster
        from rice_jax.stages import run_stages

        cluster.join()
        with cluster.first_alone_speaks():
            run_stages(found, workdir, stages, given, restart=restart)

    return job
