"""The wheel is all that a command needs: a first run from any folder, without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import rice_jax

ROOT = Path(__file__).parents[1]
SOURCE = ("rice_jax", "pyproject.toml", "README.md", "LICENSE")
IN_HASTE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"

# The finder of an editable install is taken away: it would find the checkout.
INSTALLED = """
import json, sys
site, lines = sys.argv[1], sys.argv[2:]
sys.meta_path = [f for f in sys.meta_path if not str(f).startswith("<class '__editable__")]
sys.path.insert(0, site)

import rice_jax
assert not {"jax", "numpy", "click"} & set(sys.modules)
assert rice_jax.profile.count.__name__ == "count"  # a room, on first use
assert "jax" in sys.modules and "GLIBC_TUNABLES" not in __import__("os").environ

from rice_jax import __main__ as command
for line in lines:
    sys.argv = ["rice-jax", *line.split()]
    try:
        command.main()
    except SystemExit as left:
        assert not left.code, line
ours = [m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "rice_jax"]
assert len(ours) > 50 and all(file.startswith(site) for file in ours), ours
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the wheel's content, as pip leaves it; built from a copy of the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source, out, site = folder / "source", folder / "out", folder / "site"
    source.mkdir()
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [wheel] = out.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def files(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_it_has_every_file_of_the_package(site):
    assert files(site / "rice_jax") == files(ROOT / "rice_jax")


def test_its_record_tells_what_a_package_should(site):
    [about] = metadata.distributions(path=[str(site)])
    assert about.version == rice_jax.__version__
    assert {entry.name: entry.value for entry in about.entry_points} == {
        "rice-jax": "rice_jax.__main__:main"
    }
    assert about.metadata.get_all("Project-URL")
    assert about.metadata["License-Expression"] == "MIT"


@pytest.mark.thorough
def test_a_first_run_from_any_folder(site, tmp_path):
    tiny = "--config.data.image_size=16 --config.model.stages=((2,),) --config.train.epochs=1"
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RICE_IMAGE_DATASET", "PYTHONPATH")
    } | {"HOME": str(tmp_path), "RICE_JAX_XLA_FLAGS": "0", "XLA_FLAGS": IN_HASTE}
    lines = ("--help", "zoo", f"train --config=final --stages=train {tiny}")
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED, str(site), *lines],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: rice-jax" in done.stdout
    assert "final_112px" in done.stdout
    assert "The sample of photographs, 16 x 16 pixels" in done.stdout
    assert (tmp_path / "runs" / "final" / "report.md").is_file()


def test_the_citation_is_of_this_version():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert about["version"] == rice_jax.__version__
    assert {"cff-version", "message", "title", "authors"} <= about.keys()
    assert all({"type", "title", "authors"} <= work.keys() for work in about["references"])
    licence = (ROOT / "rice_jax" / "zoo" / "sample" / "LICENCE.txt").read_text()
    cited = [work["doi"] for work in about["references"] if "doi" in work]
    assert cited
    assert all(doi in licence for doi in cited)


def test_the_changes_begin_with_this_version():
    versions = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if "## " in line]
    assert versions[0].startswith(f"## {rice_jax.__version__}")


def test_what_runs_before_a_commit_is_what_the_checks_run():
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    [hook] = repository["hooks"]
    assert os.access(ROOT / hook["entry"], os.X_OK)
    assert hook["entry"] in (ROOT / ".ci" / "run").read_text()


def test_the_top_has_the_rooms_and_nothing_else():
    assert {"profile", "inspection", "prune", "zoo"} <= set(dir(rice_jax))
    assert rice_jax.prune.prune.__module__ == "rice_jax.prune.pruner"
    with pytest.raises(AttributeError, match="has no attribute 'proffile'"):
        rice_jax.proffile  # noqa: B018
