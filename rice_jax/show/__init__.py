"""A run's net on a page of this machine: drop an image, see what it says and all that it sees."""

from rice_jax.run import Run
from rice_jax.show.net import Looking
from rice_jax.show.server import Application, Server, page, port_taken

__all__ = ["Application", "Looking", "Server", "page", "port_taken", "server_of"]


def server_of(run: Run, port: int) -> Server:
    """The page of a run's net at a port of 127.0.0.1, 0 for any that is free.

    Raises:
        UserError: the port is in use, or the run has no net.
    """
    taken = port_taken(port)  # first: what may be wrong with it is told at once
    try:
        look = Looking(run)
    except BaseException:
        taken.close()
        raise
    return Server(Application(page(look.name, look.classes), look), taken)
