"""rice-jax show: a run's net live, on a page of this machine."""

from collections.abc import Callable
from typing import Any

import click

from rice_jax.bounds import Text, Whole
from rice_jax.commands import settings
from rice_jax.commands.options import Command, option


@click.command(cls=Command)
@option("--workdir", Text("a folder"), "The run", completion="dir")
@option("--config", Text("a file"), "Of a net of your own: what says what it is", completion="file")
@option("--port", Whole(0, 65535), "Where the page is; 0 for any port that is free", 8765)
def show(workdir: str | None, config: str | None, port: int) -> Callable[[], Any]:
    """Show what a trained net sees in an image, on a page in the browser.

    \b
    rice-jax show --workdir=runs/final

    Open the address that is told, drop an image there or take a picture with the camera: its class,
    the probabilities and the feature maps of every convolution. The page is for this machine alone
    (127.0.0.1), and no image leaves it. Ctrl-C ends it.
    """
    run = settings.existing_run(workdir, config)

    def job() -> None:
        from rice_jax import show

        server = show.server_of(run, port)
        print(f"The net of {run} is at {server.address} (Ctrl-C ends it).", flush=True)
        server.run()

    return job
