"""The cards of the trained nets: what is told of them without loading any."""

from pathlib import Path
from typing import TYPE_CHECKING

from rice_jax.bounds import nearest
from rice_jax.errors import UserError, reason

if TYPE_CHECKING:
    from rice_jax.records import ZooCard

FOLDER = Path(__file__).parent / "trained"
PREFIX = "zoo:"
"""What config.model.weights begins with where a name follows."""
MEND = "install the package anew"


def names(folder: Path = FOLDER) -> tuple[str, ...]:
    """The nets that there are, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.safetensors")))


def card(name: str, folder: Path = FOLDER) -> "ZooCard":
    """What is known of a net: how it was trained, on what, and how well it does.

    Raises:
        UserError: no such net (those there are get named), or a card that cannot be read.
    """
    # Whoever only asks for names need not wait for these.
    from rice_jax.records import ZooCard, made
    from rice_jax.run import parse_json

    if name not in names(folder):
        near = nearest(name, names(folder))
        meant = f"; nearest is {near}" if near else ""
        raise UserError(
            f"the zoo has no net called {name!r}; it has {', '.join(names(folder))}{meant}"
        )
    path = folder / f"{name}.json"
    try:
        found = made(ZooCard, parse_json(path.read_bytes()))
        if found.name != name:
            raise ValueError(f"it is the card of {found.name}")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}): {MEND}") from error
    return found
