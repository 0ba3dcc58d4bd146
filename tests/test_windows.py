"""Windows, as far as another system can tell: without the modules that are not to be had there."""

import subprocess
import sys

import pytest

from rice_jax.commands.app import COMMANDS

LACKING = ("array_record", "fcntl", "pwd", "resource")


LIBRARIES = "jax, flax, orbax.checkpoint"


def on_windows(program, *arguments, loaded="sys"):
    """The program as a process whose system is called so; what is `loaded` has what it needs."""
    without = (
        "import sys\n"
        f"import {loaded}\n"
        f"sys.modules.update(dict.fromkeys({LACKING!r}))\n"
        "sys.platform = 'win32'\n"
    )
    return subprocess.run(
        [sys.executable, "-c", without + program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", [*(each.name for each in COMMANDS), "--help"])
def test_a_command_says_where_it_runs(command):
    """Without loading what it would compute with."""
    done = on_windows(
        "from rice_jax.commands.entry import enter\nenter(sys.argv[1:])", command, "--nonsense"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: rice_jax's commands run on Linux and macOS")
    assert done.stderr.count("\n") == 1
    assert "WSL" in done.stderr


def test_the_libraries_that_it_names_do_without():
    done = on_windows(
        "import jax.numpy as jnp\n"
        "from rice_jax import export, inspection, models, profile, prune, zoo\n"
        "net = zoo.load('nano')\n"
        "batch = jnp.ones((2, 224, 224, 3)), jnp.arange(2)\n"
        "dead = inspection.census(net.module, net.variables, [batch]).layers['conv1'].dead\n"
        "lighter = prune.prune(net.module, net.variables, [batch], budgets={'formula': 200_000})\n"
        "for module in net.module, lighter.module:\n"
        "    print(profile.count(module, (224, 224, 3)).flops.formula)\n",
        loaded=LIBRARIES,
    )
    assert done.returncode == 0, done.stderr
    whole, fewer = map(int, done.stdout.split())
    assert fewer <= 200_000 < whole
