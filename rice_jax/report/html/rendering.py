"""From templates to a page: every value is escaped, what runs is named by its digest."""

import base64
import dataclasses
import functools
import hashlib
import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from rice_jax.report.page.blocks import Part, Section, Shown

_TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **context: Any) -> Markup:
    """A template's HTML, in which the context's text is escaped."""
    return Markup(_environment().get_template(template).render(context))


def page(
    title: str,
    content: Sequence[Section],
    blocks: Mapping[str, Markup],
    *,
    narrow: Collection[str] = (),
    scripts: Sequence[str] = (),
    doing: str = "",
) -> str:
    """A whole page of sections.

    Args:
        title: the document's.
        content: what it tells.
        blocks: HTML for what `content` shows, by name; what has none is left out.
        narrow: names of the blocks two of which stand side by side on a wide screen.
        scripts: as `document` takes them.
        doing: what is under way, for a page that loads itself again.
    """
    laid = _laid(content, blocks, narrow)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return document(
        "sections.html", title, scripts=scripts, sections=laid, doing=doing, written=now
    )


def document(template: str, title: str, *, scripts: Sequence[str] = (), **context: Any) -> str:
    """A whole page that extends base.html.

    Args:
        template: its name.
        title: the document's.
        scripts: files of `templates` that may run; nothing else does, whatever text comes in.
        **context: what the template asks for.
    """
    code = [(_TEMPLATES / name).read_text() for name in scripts]
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in code) or "'none'"
    return render(
        template,
        title=title,
        style=Markup((_TEMPLATES / "style.css").read_text()),
        scripts=[Markup(text) for text in code],
        allowed=Markup(allowed),
        **context,
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def embedded(content: Any) -> Markup:
    """JSON to stand in a page as data; no text in it ends the element that it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def prose(text: str) -> Markup:
    """Markdown as HTML: HTML in it is shown as text, links to files beside the page as words.

    A line does not end within a word of a command (at the dashes of an option), within a size or
    between a number and its %.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.add_render_rule("table_open", lambda *_: '<div class="table"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    parser.add_render_rule("link_open", lambda *_: "")
    parser.add_render_rule("link_close", lambda *_: "")
    parser.add_render_rule("code_inline", _code)
    parser.add_render_rule("text", _text)
    return Markup(parser.render(text))


_TOGETHER = re.compile(r"(?<=\d) (?=%|x \d)|(?<=\d x) (?=\d)")
"""Blanks in '5 %' and '8 x 8'."""


def _code(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    words = tokens[index].content.split(" ")
    told = (f"<span>{escape(word)}</span>" if "-" in word else escape(word) for word in words)
    return f"<code>{' '.join(told)}</code>"


def _text(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    return str(escape(_TOGETHER.sub("\N{NO-BREAK SPACE}", tokens[index].content)))


_MOST_COLUMNS = 7
"""Marks between the cells of a table's row that half of a wide screen has room for."""


@dataclasses.dataclass(frozen=True)
class Laid:
    """A section as HTML."""

    parts: list[Markup]
    wide: bool
    """Whether it takes the whole width."""


def _laid(
    content: Sequence[Section], blocks: Mapping[str, Markup], narrow: Collection[str]
) -> list[Laid]:
    """Each section as HTML: its text, and for what is shown the block of that name."""

    def part(one: Part) -> Markup:
        return blocks.get(one.name, Markup()) if isinstance(one, Shown) else prose(one)

    def wide(section: Section) -> bool:
        names = [one.name for one in section if isinstance(one, Shown) and one.name in blocks]
        widest = max((line.count("|") for one in section if isinstance(one, str)
                      for line in one.splitlines()), default=0)  # fmt: skip
        return widest > _MOST_COLUMNS or not set(names) <= set(narrow)

    return [
        Laid([html for one in section if (html := part(one))], wide(section))
        for section in content
        if section
    ]


def picture(alternative: str, content: bytes) -> Markup:
    """An image within the page; SVG or what PNG and JPEG begin with."""
    kind = "svg+xml" if content.lstrip()[:1] == b"<" else "png"
    encoded = base64.b64encode(content).decode()
    return render("picture.html", alternative=alternative, kind=kind, encoded=encoded)
