"""The documentation as a site: every page and every link within it, built without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import rice_jax

pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
pytest.importorskip("mkdocstrings", reason="the extra 'docs' is not installed")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    # Told to be quiet, MkDocs counts no warning either, and is strict about nothing.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_readme_is_the_first_page_and_each_guide_one(site):
    first = (site / "index.html").read_text()
    assert "<h1" in first
    assert 'href="export/"' in first
    for guide in (ROOT / "docs").glob("*.md"):
        assert (site / guide.stem / "index.html").exists(), guide
        assert f'href="{guide.stem}/"' in first, f"{guide} is not in mkdocs.yml's nav"


@pytest.mark.parametrize("library", ["profile", "inspection", "prune", "export"])
def test_all_that_a_library_offers_is_on_its_page(site, library):
    assert_offered((site / "api" / library / "index.html").read_text(), library)


@pytest.mark.parametrize("library", ["data", "models", "ops", "train", "zoo"])
def test_all_that_serves_the_main_job_is_on_one_page(site, library):
    assert_offered((site / "api" / "index.html").read_text(), library)


def assert_offered(page, library):
    for name in getattr(rice_jax, library).__all__:
        # A function that is called as its module stands under both.
        places = (name, f"{name}.{name}")
        assert any(f'id="rice_jax.{library}.{place}"' in page for place in places), name


def test_no_page_asks_anybody_for_anything(site):
    loads = re.compile(
        r'<(?:script|img|iframe) [^>]*src="?(?:https?:)?//'
        r'|<link [^>]*href="?(?:https?:)?//[^>]*rel="?(?:stylesheet|preconnect)'
        r'|<link [^>]*rel="?(?:stylesheet|preconnect)[^>]*href="?(?:https?:)?//'
    )
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text()), page
