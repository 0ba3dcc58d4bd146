"""The cards of the trained nets: what is told of them without loading any."""

from pathlib import Path
from typing import Any

from rice_jax.bounds import nearest
from rice_jax.errors import UserError, reason

FOLDER = Path(__file__).parent / "trained"
PREFIX = "zoo:"
"""What config.model.weights begins with where a name follows."""

_FIELDS = {
    "name": str,
    "config": dict,
    "params": int,
    "flops": dict,
    "recipe": str,
    "epochs": int,
    "best_epoch": int,
    "seed": int,
    "data": dict,
    "accuracy": dict,
    "sha256": str,
}
"""What every card has; more may stand in it."""
MEND = "install the package anew"


def names(folder: Path = FOLDER) -> tuple[str, ...]:
    """The nets that there are, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.safetensors")))


def card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """What is known of a net: how it was trained, on what, and how well it does.

    Raises:
        UserError: no such net (those there are get named), or a card that cannot be read.
    """
    from rice_jax.run import parse_json  # whoever only asks for names need not wait for it

    if name not in names(folder):
        near = nearest(name, names(folder))
        meant = f"; nearest is {near}" if near else ""
        raise UserError(
            f"the zoo has no net called {name!r}; it has {', '.join(names(folder))}{meant}"
        )
    path = folder / f"{name}.json"
    try:
        content = parse_json(path.read_bytes())
        for field, kind in _FIELDS.items():
            if not isinstance(content[field], kind):
                raise ValueError(f"{field} is {content[field]!r}")
        if content["name"] != name:
            raise ValueError(f"it is the card of {content['name']}")
    except (OSError, KeyError, TypeError, ValueError) as error:
        missing = isinstance(error, KeyError)
        raise UserError(
            f"{path} is damaged ({f'no {error}' if missing else reason(error)}): {MEND}"
        ) from error
    return content
