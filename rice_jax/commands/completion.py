"""What bash hands over to be completed, put together again."""

from click.shell_completion import BashComplete, add_completion_class


@add_completion_class
class Bash(BashComplete):
    """Bash takes '=' for a word of its own: '--config=fi' comes as three words."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one to be completed, and that; a value's option is the last word."""
        words, incomplete = super().get_completion_args()
        joined: list[str] = []
        waits = False
        for word in words:
            if waits:
                joined[-1] += f"={word}"
                waits = False
            elif word == "=" and joined and joined[-1].startswith("--"):
                waits = True
            else:
                joined.append(word)
        return joined, incomplete
