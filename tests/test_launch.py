"""Commands begin again with large pages; nothing else does, and the user's word counts."""

import os
import subprocess
import sys

import pytest

from rice_jax import launch

glibc = pytest.mark.skipif(not launch.has_glibc(), reason="a setting of glibc's malloc")


@glibc
def test_a_command_begins_again_once():
    environment = launch.large_pages(["-m", "--config=x"], {"HOME": "/"})
    assert environment == {"HOME": "/", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert launch.large_pages(["-m", "--config=x"], environment) is None


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        (["script.py"], {}),
        ([""], {}),
        (["-m"], {launch.SWITCH: "0"}),
        (["-m"], {"GLIBC_TUNABLES": "glibc.malloc.check=3"}),
    ],
)
def test_all_else_stays_as_it_is(argv, environment):
    assert launch.large_pages(argv, environment) is None


@glibc
def test_the_arguments_survive(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "import os, sys\n"
        "def get_config():\n"
        "    print(os.environ['GLIBC_TUNABLES'], *sys.argv[1:], file=sys.stderr)\n"
        "    raise SystemExit(7)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-m", "rice_jax.main", f"--config={config}", "--stages=a b"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert done.stderr == f"glibc.malloc.hugetlb=1 --config={config} --stages=a b\n"
