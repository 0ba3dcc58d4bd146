"""Commands where a shell, a home, a terminal or a device is not as usual."""

import contextlib
import errno
import functools
import os
import subprocess
import sys

import pytest

from rice_jax import launch
from rice_jax.commands import process
from rice_jax.commands.app import COMMANDS

STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}


def command(*arguments, closed=(), **environment):
    """`rice-jax ...` as a process of its own; streams in `closed` are not open in it.

    A variable that is None is left out.
    """
    variables = os.environ | {launch.SWITCH: "0"} | environment

    def close():
        for stream in closed:
            os.close(STREAMS[stream])

    return subprocess.run(
        [sys.executable, "-m", "rice_jax", *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=close,
        check=False,
    )


def on_a_full_disk():
    if not os.path.exists("/dev/full"):
        pytest.skip("no such device")
    return open("/dev/full", "w")


def that_nobody_reads():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


@pytest.mark.parametrize(
    ("output", "why"),
    [(on_a_full_disk, "No space left on device"), (that_nobody_reads, "Broken pipe")],
)
def test_output_that_cannot_be_written_is_named(output, why, monkeypatch, capsys):
    """Not the run's disk, of which the same would be said without its name."""
    with contextlib.suppress(OSError), output() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert process.guarded(lambda: print("done", flush=True)) == 1
    monkeypatch.undo()
    assert capsys.readouterr().err == f"error: standard output cannot be written: {why}\n"


def test_another_place_that_is_full_is_not_taken_for_output(capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    assert process.guarded(full) == 1
    assert capsys.readouterr().err == "error: No space left on device\n"


in_peace = functools.cache(command)


@pytest.mark.parametrize(
    "closed", [["stdin"], ["stdout"], ["stderr"], ["stdin", "stdout"], list(STREAMS)], ids="+".join
)
@pytest.mark.parametrize("arguments", [("zoo",), ("zoo", "everything")], ids=" ".join)
@pytest.mark.one_in(2)
def test_a_closed_stream_changes_no_status_and_no_other_stream(closed, arguments):
    usual, odd = in_peace(*arguments), command(*arguments, closed=closed)
    assert odd.returncode == usual.returncode == len(arguments) - 1
    assert odd.stdout == (b"" if "stdout" in closed else usual.stdout)
    assert odd.stderr == (b"" if "stderr" in closed else usual.stderr)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "caf\\udce9 é"), ("ascii", "caf\\udce9 \\xe9")]
)
def test_a_name_that_standard_output_cannot_write_is_escaped(encoding, shown):
    program = "from rice_jax import launch; launch.open_streams(); print('caf\\udce9 \\xe9')"
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert done.stdout.decode(encoding).strip() == shown


def test_a_file_opened_later_gets_no_stream_s_number(tmp_path):
    """Or what a library writes to standard error would land in it."""
    program = (
        "import os, sys\n"
        "from rice_jax import launch\n"
        "for number in (1, 2): os.close(number)\n"
        "launch.open_streams()\n"
        f"file = open({str(tmp_path / 'kept')!r}, 'w')\n"
        "os.write(2, b'a warning'); print('said'); print('said', file=sys.stderr)\n"
        "file.close()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "kept").read_bytes() == b""


BEGIN = """
import os, sys
from rice_jax import launch
from rice_jax.commands.app import COMMANDS, call

launch.open_streams()
"""
EACH_MISTAKE = """
for line in (["train", sys.argv[1]], *([each.name, sys.argv[2]] for each in COMMANDS)):
    try:
        call(line)
    except SystemExit as left:
        print(left.code)
"""


def on_one_core():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": None},
        {"HOME": "/proc"},
        {"HOME": "/nowhere"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "20"},
        {"COLUMNS": "nonsense"},
        {"TERM": None},
        {"JAX_PLATFORMS": "nonsense"},
    ],
    ids=str,
)
@pytest.mark.one_in(2)
def test_a_mistake_in_each_command_is_one_line_in_any_environment(environment):
    variables = os.environ | environment
    variables = {name: value for name, value in variables.items() if value is not None}
    assert len(mistakes(BEGIN + EACH_MISTAKE, variables)) == 1 + len(COMMANDS)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root's rights")
def test_a_user_who_is_not_root_is_told_the_same():
    """Who may read none of root's folders: what a line needs was loaded when it came before."""
    program = BEGIN + EACH_MISTAKE + "os.seteuid(65534)" + EACH_MISTAKE
    told = mistakes(program, dict(os.environ))
    half = len(told) // 2
    assert told[:half] == told[half:]
    assert half == 1 + len(COMMANDS)


def mistakes(program, environment):
    """The lines on standard error, each of a command that ended with status 1."""
    done = subprocess.run(
        [sys.executable, "-c", program, "--config=\u00e9", "--nonsense=\u00e9"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=on_one_core,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.stdout.split() == [b"1"] * len(lines)
    assert all(line.startswith(b"error: ") for line in lines)
    return lines


def test_libraries_say_nothing_of_their_own_where_there_is_no_home():
    pytest.importorskip("onnxruntime")
    program = (
        "from rice_jax.commands import process\n"
        "process.start()\n"
        "import matplotlib, onnxruntime\n"
        "matplotlib.get_configdir(); matplotlib.get_cachedir()\n"
    )
    variables = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=variables | {"HOME": "/proc", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_odd_in_an_image_is_told_by_us_alone():
    """One of 100 million pixels, and EXIF that is cut short: Pillow would warn of both."""
    program = (
        "import io\n"
        "from PIL import Image\n"
        "from rice_jax.commands import process\n"
        "from rice_jax.data import images\n"
        "from rice_jax.errors import UserError\n"
        "process.start()\n"
        "large, cut = io.BytesIO(), io.BytesIO()\n"
        "Image.new('1', (10_000, 10_000)).save(large, 'PNG')\n"
        "Image.new('RGB', (9, 9)).save(cut, 'JPEG', exif=b'Exif\\0\\0II*\\0\\x08\\0\\0\\0\\5\\0')\n"
        "for file in (large, cut):\n"
        "    try:\n"
        "        print(images.plain(file.getvalue()).made_of)\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    told = "10000x10000 pixels: too large\n()\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


def test_a_platform_that_is_not_there_is_one_line():
    program = (
        "from rice_jax.commands import process\n"
        "import jax.numpy as jnp\n"
        "process.run(lambda: jnp.ones(1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"JAX_PLATFORMS": "nonsense"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: JAX_PLATFORMS=nonsense: JAX finds no such device here")
    assert done.stderr.count("\n") == 1
