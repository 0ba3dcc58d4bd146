"""What a page is made of: text, and what one page shows as a picture and another as it likes."""

import dataclasses
from collections.abc import Iterable

from rice_jax.report import markdown


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture or a table, by what it shows."""

    name: str
    """Of the block that a page in HTML has for it; of a picture the file's."""
    text: str
    """What report.md has."""


Part = str | Shown
"""Text is Markdown."""

Section = list[Part]
"""Parts in order; none where there is nothing to say."""


def picture(alternative: str, file: str) -> Shown:
    """A picture in the run's folder."""
    return Shown(file, markdown.image(alternative, file))


def to_markdown(sections: Iterable[Section]) -> str:
    """The sections as one page."""
    parts = [part for section in sections for part in section]
    texts = [part.text if isinstance(part, Shown) else part for part in parts]
    return "\n\n".join(text for text in texts if text) + "\n"
