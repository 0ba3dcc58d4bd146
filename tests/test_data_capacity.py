"""Memory is what the machine has, or less where a limit or a container says so."""

import os
import resource

import pytest

from rice_jax import data
from rice_jax.data import capacity

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
ENDLESS = "9223372036854771712"


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes control groups: the lines of a process, and the limits by file."""
    monkeypatch.setattr(capacity, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(capacity, "_CONTROL", tmp_path / "control")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)

    def write(lines, limits):
        if lines:
            (tmp_path / "cgroup").write_text("\n".join(lines) + "\n")
        for place, limit in limits.items():
            file = tmp_path / "control" / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{limit}\n")

    return write


@pytest.mark.parametrize(
    ("lines", "limits", "expected"),
    [
        ([], {}, MACHINE),
        (["0::/"], {}, MACHINE),
        (["0::/"], {"memory.max": 4096}, 4096),
        (["0::/a/b"], {"a/b/memory.max": "max", "a/memory.max": 8192}, 8192),
        (["0::/a/b"], {"a/b/memory.max": 4096, "a/memory.max": 8192}, 4096),
        (["0::/../other"], {"memory.max": 4096}, 4096),
        (["0::/a:b"], {"a:b/memory.max": 4096}, 4096),
        (["4:memory:/box"], {"memory/box/memory.limit_in_bytes": 4096}, 4096),
        (["4:memory:/box"], {"memory/memory.limit_in_bytes": 4096}, 4096),
        (["4:memory:/"], {"memory/memory.limit_in_bytes": ENDLESS}, MACHINE),
        (["5:cpu,memory:/box", "0::/"], {"memory/box/memory.limit_in_bytes": 4096}, 4096),
        (["2:cpu:/box"], {"memory/box/memory.limit_in_bytes": 4096}, MACHINE),
    ],
)
def test_a_container_s_memory_is_what_there_is(groups, lines, limits, expected):
    groups(lines, limits)
    assert data.memory() == expected


def test_ulimit_and_container_the_less_of_both(groups, monkeypatch):
    groups(["0::/"], {"memory.max": 8192})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, 4096))
    assert data.memory() == 4096


@pytest.mark.parametrize(
    ("needed", "there", "told"),
    [
        (8_000_001, 8_000_000, ("8.1 MB", "8.0 MB")),
        (2_400_000_000, 2_399_999_999, ("2.4 GB", "2.3 GB")),
        (3_000_000_000_000, 5_000_000, ("3,000.0 GB", "0.0 GB")),
        (999_999, 1_000, ("1,000.0 kB", "1.0 kB")),
        (1, 0, ("0.1 kB", "0.0 kB")),
    ],
)
def test_what_is_needed_and_what_is_there_are_told_apart(needed, there, told):
    assert data.compared(needed, there) == told
