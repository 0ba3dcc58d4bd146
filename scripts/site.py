"""What MkDocs does with the pages: README.md is the first, links to files that are no page go."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_SHOWN = r"(?:!\[[^\]]*\]\([^)]*\)|[^\]])*"  # a link's text, which may be an image
_LINK = re.compile(rf"(?<!!)\[({_SHOWN})\]\((?!https?:|#|mailto:)([^)]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md as the first page, its paths as they are from docs/."""
    text = (ROOT / "README.md").read_text()
    for path in ("docs/", "(docs/"):
        text = text.replace(f"]({path}", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page, links to files of the repository that are none of the site's as plain text."""
    folder = posixpath.dirname(page.file.src_uri)

    def kept(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2].partition("#")[0]))
        return link[0] if files.get_file_from_path(target) else link[1]

    return _LINK.sub(kept, markdown)
