"""The few marks of Markdown (GitHub's) that the pages use."""

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<>~&#$])")


def escape(text: str) -> str:
    """`text` on one line, its letters shown as they are."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """`text` between as many backticks as it needs."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    padding = " " if "`" in line else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def commands(lines: Iterable[str]) -> str:
    """A block of commands to copy."""
    return "\n".join(["```sh", *lines, "```"])


def image(alternative: str, file: str) -> str:
    """A picture; `file` is relative to the page and holds no space."""
    return f"![{escape(alternative)}]({file})"


def link(text: str, file: str) -> str:
    """A link to a file beside the page."""
    return f"[{text}]({file})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are Markdown already; columns after the first `left` align right."""
    marks = ["---" if column < left else "---:" for column in range(len(header))]
    lines = [header, marks, *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )
