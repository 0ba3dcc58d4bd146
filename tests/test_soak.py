"""The soak knows its jobs by name, and the page that tells of it gives none that there is not."""

import re
from pathlib import Path

import commands
import pytest

ROOT = Path(__file__).parents[1]
SOAK = ROOT / "scripts" / "soak.py"


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--commands=train,exprot", "error: --commands=train,exprot: give 1 or more of: train, "),
        ("--commands=", "error: --commands=: give 1 or more of: "),
        ("--signals=KILL,HUP", "error: --signals=KILL,HUP: give 1 or more of: KILL, TERM or INT"),
    ],
)
def test_what_it_does_not_know_is_named_before_anything_is_done(tmp_path, argument, line):
    done = commands.run(SOAK, argument, f"--out={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_each_job_that_is_written_of_is_one():
    jobs = commands.imported(SOAK).JOBS
    told = re.findall(r"soak\.py .*--commands=(\S+)", (ROOT / "docs/robustness.md").read_text())
    assert told
    assert {name for names in told for name in names.split(",")} <= jobs.keys()
