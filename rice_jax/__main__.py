"""The command rice-jax: `python -m rice_jax COMMAND ...`."""

import sys

from rice_jax.commands.entry import enter


def main() -> None:
    """Do what the command line says."""
    enter(sys.argv[1:])


if __name__ == "__main__":
    main()
