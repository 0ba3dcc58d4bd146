"""Set-up takes the Python it should, installs what is pinned, and mends what is broken.

Pythons are stand-ins that note what pip and uv are asked for, all else they leave to the real one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAND_IN = """#!/bin/sh
case "$1 $2" in
  "--version "*) echo "Python {name}" ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip" | "-m uv")
    case "$*" in *" config list") echo "$PIP_CONFIG"; exit;; esac
    mkdir {calls}.busy || echo "two at once" >>{calls}
    echo "$@" >>{calls}
    echo Collecting everything
    rmdir {calls}.busy
    case "$2" in pip) exit ${{PIP_ENDS:-0}};; uv) exit ${{UV_ENDS:-0}};; esac ;;
  "-c import orbax.checkpoint, rice_jax.stages") exit ${{IMPORT_ENDS:-0}} ;;
  *base_prefix*) echo {name} ;;
  *) exec {real} "$@" ;;
esac
"""


class Checkout:
    """A fresh clone, and a machine with the Pythons `names`."""

    def __init__(self, path, *names):
        self.root, self.bin, self.calls = path / "clone", path / "bin", path / "calls"
        self.bin.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root)
        for name in names:
            stand_in = STAND_IN.format(name=name, calls=self.calls, real=sys.executable)
            (self.bin / name).write_text(stand_in)
            (self.bin / name).chmod(0o755)
        self.venv = self.root / ".venv"

    def start(self, *arguments, **variables):
        path = f"{self.bin}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(self.root), **variables}
        environment = {name: value for name, value in environment.items() if value is not None}
        return subprocess.Popen(
            [self.root / "scripts" / "setup.sh", *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def set_up(self, *arguments, status=0, **variables):
        """What set-up said, and what it asked pip and uv for."""
        self.calls.write_text("")
        with self.start(*arguments, **variables) as process:
            said = process.communicate()[1]
        assert process.returncode == status, said
        return said, self.calls.read_text()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path, "python3.13", "python3.12", "mine")


def test_the_newest_python_gets_the_pins_once(checkout):
    said, asked = checkout.set_up("test")
    assert f"Python python3.13 ({checkout.bin}/python3.13)" in said
    assert f"--constraint {checkout.root}/constraints.txt" in asked
    assert f"--editable {checkout.root}[test]" in asked
    assert checkout.set_up("test") == ("", "")
    assert checkout.set_up() == ("", ""), "tests need all that the package needs"
    assert checkout.set_up("peers")[1].strip().endswith("[peers]")


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_it_goes_by_what_there_is_to_install(checkout, file):
    checkout.set_up()
    with (checkout.root / file).open("a") as opened:
        opened.write("# moved\n")
    assert f"--editable {checkout.root}\n" in checkout.set_up()[1]
    assert checkout.set_up() == ("", "")


def test_without_constraints_it_takes_the_newest_of_everything(checkout):
    assert "--constraint" not in checkout.set_up(CONSTRAINTS="")[1]
    assert "--constraint" in checkout.set_up()[1]


def test_without_a_home_it_is_set_up_all_the_same(checkout):
    assert checkout.set_up(HOME=None)[1]


def test_python_in_the_environment_wins(checkout):
    assert "Python mine" in checkout.set_up(PYTHON=str(checkout.bin / "mine"))[0]
    assert checkout.set_up() == ("", "")
    assert checkout.set_up(PYTHON="mine") == ("", "")
    said, asked = checkout.set_up(PYTHON="python3.12")
    assert "another Python" in said
    assert "Python python3.12" in said
    assert asked


@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_a_python_that_does_not_serve_is_named(checkout, python):
    said, asked = checkout.set_up(PYTHON=python, status=1)
    assert said.startswith(f"error: PYTHON={python} ")
    assert said.count("\n") == 1
    assert not asked
    assert not checkout.venv.exists()


def gone(python):
    python.unlink()
    python.symlink_to("/no/such/python")


def broken(python):
    python.write_text("#!/bin/sh\nexit 1\n")


@pytest.mark.parametrize("damage", [gone, broken])
def test_a_broken_venv_is_made_anew(checkout, damage):
    checkout.set_up()
    damage(checkout.venv / "bin" / "python")
    said, asked = checkout.set_up()
    assert said.startswith("The Python of .venv is gone or broken: making .venv anew.\n")
    assert asked
    assert checkout.set_up() == ("", "")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("PIP_ENDS", "error: the packages could not be installed"),
        ("IMPORT_ENDS", "error: what was installed does not work"),
    ],
)
def test_a_step_that_fails_is_told_and_tried_again(checkout, step, error):
    said, _ = checkout.set_up(status=1, **{step: "2"})
    assert "Collecting everything" in said
    assert said.splitlines()[-1].startswith(error)
    assert checkout.set_up()[1]


def test_two_at_once_take_turns(checkout):
    with checkout.start("test") as first, checkout.start("test") as second:
        said = first.communicate()[1] + second.communicate()[1]
    assert first.returncode == second.returncode == 0, said
    assert checkout.calls.read_text().count("-m uv pip install") == 1
    assert said.count("Set up in") == 1


NO_LOCKS = """import errno, fcntl, os
def flock(file, how):
    raise OSError(errno.{0}, os.strerror(errno.{0}))
fcntl.flock = flock
"""


@pytest.mark.parametrize("error", ["EBADF", "ENOLCK", "EOPNOTSUPP"])
def test_where_the_file_system_has_no_locks_it_is_set_up_all_the_same(checkout, tmp_path, error):
    (tmp_path / "sitecustomize.py").write_text(NO_LOCKS.format(error))
    said, asked = checkout.set_up(PYTHONPATH=str(tmp_path))
    assert "Traceback" not in said
    assert asked
    assert checkout.set_up() == ("", "")


def by_pip(checkout):
    return f"install --no-compile --progress-bar off --constraint {checkout.root}"


def test_uv_installs_into_the_venv_and_pip_only_uv(checkout):
    asked = checkout.set_up()[1].splitlines()
    assert "install" in asked[0]
    assert asked[0].endswith("uv>=0.9,<1")
    assert asked[1].startswith(f"-m uv pip install --python {checkout.venv}/bin/python ")
    assert len(asked) == 2


def test_where_uv_fails_pip_installs_the_same(checkout):
    asked = checkout.set_up("test", UV_ENDS="2")[1].splitlines()
    by_uv, last = asked[1:]
    assert by_pip(checkout) in last
    assert last.split("--constraint")[1] == by_uv.split("--constraint")[1]
    assert checkout.set_up("test") == ("", "")


@pytest.mark.parametrize("of", ["global", "user", ":env:", "install"])
@pytest.mark.parametrize("setting", ["index-url='https://mirror.invalid'", "no-index='true'"])
def test_where_pip_has_an_index_of_its_own_uv_is_not_asked(checkout, of, setting):
    (asked,) = checkout.set_up(PIP_CONFIG=f"{of}.{setting}")[1].splitlines()
    assert by_pip(checkout) in asked


def test_more_indexes_beside_the_usual_one_are_no_reason_for_pip(checkout):
    _, asked = checkout.set_up(PIP_CONFIG="global.extra-index-url='https://mirror.invalid'")
    assert "-m uv pip install" in asked


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "scripts").glob("*.sh")))
def test_a_script_knows_its_folder_whatever_cdpath_is(checkout, tmp_path, name):
    """Which a shell's `cd` looks relative folders up in, and then prints where it went."""
    decoy = tmp_path / "decoy"
    (decoy / "scripts").mkdir(parents=True)
    script = (checkout.root / "scripts" / name).read_text().splitlines()
    moves = next(number for number, line in enumerate(script) if "cd " in line and "$(" in line)
    told = "\n".join([*script[: moves + 1], 'echo "${root-$PWD}"'])
    (checkout.root / "scripts" / name).write_text(told)
    for places in (".", str(decoy)):
        done = subprocess.run(
            ["bash", f"scripts/{name}"],
            cwd=checkout.root,
            env={**os.environ, "CDPATH": places},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{checkout.root}\n"
