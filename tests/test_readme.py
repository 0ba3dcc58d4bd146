"""README.md and what it moved to docs/ keep their word: commands and snippets run."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import pytest
from data_files import picture, pictures, write_folder, write_zip
from markdown_it import MarkdownIt

from rice_jax import config as configuration

pytestmark = pytest.mark.usefixtures("drawn_small")

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "docs/settings.md",
        "docs/own_images.md",
        "docs/running.md",
        "docs/flops.md",
    )
}
TOKENS = {name: MarkdownIt().parse(text) for name, text in PAGES.items()}
COMMANDS = dict.fromkeys(
    line
    for tokens in TOKENS.values()
    for token in tokens
    if token.type == "code_block"
    for line in token.content.splitlines()
)
SNIPPETS = [token.content for token in TOKENS["README.md"] if token.type == "fence"]

TINY = (
    "--config.data.image_size=32 --config.data.synthetic_per_class=10 --config.train.epochs=1 "
    "--config.train.batch_size=16 --config.data.cache_dir=cache"
)
PHOTOGRAPHS = "--config.data.path=rice-image-dataset.zip"
ONE_LAYER = "'--config.model.stages=((4,),)'"
TOGETHER = (
    "JAX_COORDINATOR_ADDRESS=host0:1234 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID={} scripts/run.sh ..."
)
NOT_RUN = {
    TOGETHER.format(0): "waits for the other; test_train_processes starts both",
    TOGETHER.format(1): "waits for the other",
    "scripts/test.sh": "runs these tests",
    "scripts/setup.sh": "downloads; test_setup runs it",
    ".venv/bin/pip install -c constraints.txt 'jax[cuda13]'": "downloads what a GPU needs",
    "kaggle datasets download -d muratkokludataset/rice-image-dataset": "downloads",
}
# What makes a command small, appended to all that it says itself.
SMALL = {
    "scripts/run.sh --config=configs/final.py": (f"{TINY} {ONE_LAYER} --stages=train,evaluate"),
    "scripts/run.sh --config=configs/cnn_light.py --config.data.path=rice-image-dataset.zip": (
        f"{TINY} {ONE_LAYER} --stages=train"
    ),
    "--config.data.path=my_images": (
        f"{TINY.replace('train.epochs=1', 'train.quick.epochs=1,1')} {ONE_LAYER} --stages=train"
    ),
    "rice-jax zoo": "",
    "scripts/run.sh --config=zoo:vgg_custom_light": (
        f"--stages=evaluate {PHOTOGRAPHS} --config.data.cache_dir=cache"
    ),
    "rice-jax predict": "",
    "rice-jax export": "",
    "rice-jax prune": "--max_flops=150000 --criterion=l1 --images=clean",
    "rice-jax lighten": "--estimate",
    "rice-jax compare": "",
    "scripts/reproduce.sh": f"{TINY} --nets=cnn_light --estimate",
}
LEFT_BEHIND = (
    "runs/final/report.md",
    "runs/cnn_light/history.csv",
    "runs/mine/history.csv",
    "runs/zoo/evaluation.json",
    "final.stablehlo",
    "runs/half/prune.json",
    "comparison/report.html",
)


@pytest.fixture
def checkout(tmp_path):
    """A checkout that is set up, with a photograph and the data set beside it."""
    for name in ("configs", "rice_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, what in (("python", ""), ("rice-jax", "-m rice_jax")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {what} "$@"\n')
        (programs / name).chmod(0o755)
    what = "{ pwd && cat pyproject.toml constraints.txt; } | cksum"
    stamp = subprocess.check_output(what, shell=True, cwd=tmp_path)
    (tmp_path / ".venv" / ".installed-base").write_bytes(stamp)
    (tmp_path / "photo.jpg").write_bytes(picture(suffix=".jpg"))
    write_zip(tmp_path / "rice-image-dataset.zip", pictures())
    write_folder(tmp_path / "my_images", pictures(10, ("glass", "metal", "paper")))
    return tmp_path


def small(command):
    [more] = [more for known, more in SMALL.items() if known in command]
    return f"{command} {more}"


def in_a_shell(command, checkout):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    return subprocess.run(
        ["bash", "-c", command], cwd=checkout, env=environment, capture_output=True, text=True
    )


def in_this_process(command, checkout):
    """The same without a process that loads JAX anew."""
    program, *arguments = shlex.split(command)
    if program == "scripts/run.sh":
        arguments.insert(0, "train")
    with contextlib.chdir(checkout):
        return commands.run(*arguments)


@pytest.mark.parametrize("always", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_every_command_runs(always, checkout, monkeypatch):
    """A shell begins each program once, or always."""
    for name in ("RICE_IMAGE_DATASET", "PYTHON", "CONSTRAINTS"):
        monkeypatch.delenv(name, raising=False)
    assert NOT_RUN.keys() < COMMANDS.keys()
    begun = set()
    for command in COMMANDS:
        if command in NOT_RUN:
            continue
        program = command.split()[0]
        run = in_this_process if program in begun and not always else in_a_shell
        begun.add(program)
        done = run(small(command), checkout)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert [name for name in LEFT_BEHIND if not (checkout / name).is_file()] == []


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_snippet_runs(snippet):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet, "README.md", "exec"), {"__name__": "snippet"})
    assert "(8, 64, 64, 16)" in printed.getvalue()  # of the feature maps
    # 3 x 3 x 3 x 16 + 16 and 16 x 10 + 10; of each filter's 2 x 27 x 64 x 64 FLOPs 9 fit.
    assert "618 " + str(9 * 28 + 9 * 10 + 10) in printed.getvalue()


def test_every_field_they_name_is_one():
    fields = set(re.findall(r"--config\.([a-z_.]+)", "".join(PAGES.values())))
    known = configuration.default("final")
    assert len(fields) > 5
    for field in fields:
        section, _, name = field.rpartition(".")
        assert name in (known[section] if section else known), field


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_what_a_page_links_is_there(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    for at in re.findall(r"\]\(([^):]*#[^)]+)\)", text.replace("\n", "")):
        other, _, anchor = at.partition("#")
        target = (ROOT / page).parent / other if other else ROOT / page
        assert anchor in anchors(target.read_text()), at


def anchors(text):
    """What a link may name of a page: its headings, as GitHub and MkDocs make anchors of them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}
