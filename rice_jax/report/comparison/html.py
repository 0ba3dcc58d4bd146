"""A Markdown page as one HTML file that needs nothing beside it and asks nobody for anything."""

import base64
import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; color: #222; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d9d9d9; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, ul, blockquote { max-width: 46rem; }
img { display: block; max-width: 100%; height: auto; margin: 1.4rem 0; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: .3rem solid #d55e00;
  background: #fdf3ec; }
code { font-size: .9em; overflow-wrap: anywhere; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #d9d9d9; vertical-align: top; }
th { text-align: left; vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0; padding-left: 0; background: #fff; }
@media (max-width: 30rem) { td:first-child { white-space: normal; min-width: 5rem; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""


def to_html(markdown: str, title: str, images: Mapping[str, bytes]) -> str:
    """The page with its pictures inside.

    Args:
        markdown: the page; HTML in it is shown as text.
        title: the document's title.
        images: SVG by the name that the page gives its picture.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="table"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    # Pictures are put in as tokens: the parser would refuse data: links of SVG in the text.
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                name = str(child.attrs["src"])
                encoded = base64.b64encode(images[name]).decode()
                child.attrs["src"] = f"data:image/svg+xml;base64,{encoded}"
    body = parser.renderer.render(tokens, parser.options, {})
    return _PAGE.format(title=html.escape(title), style=_STYLE, body=body)
