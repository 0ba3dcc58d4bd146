"""Commands that compute begin again with large pages; nothing else does."""

import os
import subprocess
import sys

import pytest

from rice_jax import launch
from rice_jax.commands import entry
from rice_jax.commands.app import COMMANDS

glibc = pytest.mark.skipif(not launch.has_glibc(), reason="a setting of glibc's malloc")


@glibc
def test_a_command_begins_again_once():
    environment = launch.large_pages({"HOME": "/"})
    assert environment == {"HOME": "/", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert launch.large_pages(environment) is None


@pytest.mark.parametrize(
    "environment", [{launch.SWITCH: "0"}, {"GLIBC_TUNABLES": "glibc.malloc.check=3"}]
)
def test_the_user_s_word_counts(environment):
    assert launch.large_pages(environment) is None


@pytest.mark.parametrize("given", ["", "--help", "train --help", "zoo x", "trian"])
def test_what_computes_nothing_does_not_begin_again(given, monkeypatch):
    monkeypatch.setattr(launch, "begin_again", lambda: pytest.fail("began again"))
    monkeypatch.setattr(os, "_exit", sys.exit)  # a mistake ends the process without its threads
    with pytest.raises(SystemExit):
        entry.enter(given.split())


COMPUTING = ("evaluate", "export", "lighten", "predict", "prune", "reproduce", "train")


@pytest.mark.parametrize("command", COMPUTING)
def test_what_runs_nets_on_many_images_begins_again(command, monkeypatch):
    begun = []
    monkeypatch.setattr(launch, "begin_again", lambda: begun.append(command) or sys.exit())
    with pytest.raises(SystemExit):
        entry.enter([command, "--workdir=run"])
    assert begun


def test_of_each_command_it_is_known_whether_it_does():
    assert {command.name for command in COMMANDS} == {*COMPUTING, "compare", "show", "zoo"}


@glibc
def test_the_arguments_survive(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "import os, sys\n"
        "def get_config():\n"
        "    print(os.environ['GLIBC_TUNABLES'], *sys.argv[1:], file=sys.stderr)\n"
        "    raise RuntimeError('no further')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-m", "rice_jax.main", f"--config={config}", "--workdir=a b"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert told[0] == f"glibc.malloc.hugetlb=1 --config={config} --workdir=a b"
    assert told[1:] == [f"error: --config={config}: line 4: RuntimeError: no further"]
