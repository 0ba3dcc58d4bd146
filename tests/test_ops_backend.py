"""XLA's flags: added where they help, never against the user's own; memory given back."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib.version
import pytest

from rice_jax import launch
from rice_jax.ops import backend

pytestmark = pytest.mark.usefixtures("compiled_well")

ONEDNN = "--xla_cpu_experimental_onednn_custom_call"
WARN = "--xla_cpu_collective_call_warn_stuck_timeout_seconds"
ENDS = "--xla_cpu_collective_call_terminate_timeout_seconds"
YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"


def flags(given=""):
    """XLA_FLAGS, as a dictionary, where the user gave these."""
    return dict(flag.partition("=")[::2] for flag in backend.flags(given).split())


@pytest.mark.parametrize(
    ("version", "left_to_ynnpack"),
    [("0.10.1", None), ("0.10.2", "-reduce"), ("0.12.0.1", "-individual_convolution")],
)
def test_ynnpack_keeps_what_it_is_best_at(monkeypatch, version, left_to_ynnpack):
    monkeypatch.setattr(jaxlib.version, "__version__", version)
    monkeypatch.setattr(backend, "_known", lambda words: words)  # as that jaxlib would
    assert flags().get(YNNPACK) == left_to_ynnpack


def test_a_device_that_is_late_is_waited_for_longer_than_an_hour(monkeypatch):
    """By XLA's own patience a process ends after 40 seconds, as where other work has its cores."""
    monkeypatch.setattr(backend, "_known", lambda words: words)  # older ones know neither
    assert int(flags()[WARN]) >= 600
    assert int(flags()[ENDS]) > 3600


def test_the_users_flags_stay(monkeypatch):
    monkeypatch.setattr(jaxlib.version, "__version__", "0.12.0")
    given = {ONEDNN: "false", YNNPACK: "dot", WARN: "7", ENDS: "8"}
    assert flags(" ".join(f"{name}={value}" for name, value in given.items())) == given


def test_once_the_backend_runs_nothing_changes():
    jax.devices()
    environment, settings = dict(os.environ), dict(jax.config.values)
    backend.configure()
    assert dict(os.environ) == environment
    assert dict(jax.config.values) == settings


HOARD = """
import ctypes, os, resource
from pathlib import Path

import jax
from rice_jax.ops import backend

EVENT = "/jax/core/compile/backend_compile_duration"

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

backend.configure()
seen = []
jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: seen.append(event))
jax.jit(lambda x: x + 1)(1)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
blocks = [libc.malloc(2**16) for _ in range(2000)]
for block in blocks:
    ctypes.memset(block, 1, 2**16)
guard = libc.malloc(2**16)  # above them, so that freeing alone gives nothing back
for block in blocks:
    libc.free(ctypes.c_void_p(block))
sizes = [megabytes()]
for seconds in (0.5, 2.0):
    jax.monitoring.record_event_duration_secs(EVENT, seconds)
    sizes.append(megabytes())
print(EVENT in seen, os.environ.get("XLA_FLAGS", "") == backend.flags(""))
print(len(jax.devices("cpu")) == backend.cores(), *(round(a - b) for a, b in zip(sizes, sizes[1:])))
"""


@pytest.mark.skipif(not (launch.has_glibc() and Path("/proc").exists()), reason="glibc's malloc")
@pytest.mark.parametrize(("switch", "given_back"), [("", 100), ("0", 0)])
@pytest.mark.one_in(2)
def test_a_process_gets_flags_that_jaxlib_takes_devices_and_its_memory_back(switch, given_back):
    """XLA ends a process with a flag or a value that it does not know."""
    own = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    environment = {k: v for k, v in os.environ.items() if k not in own} | {launch.SWITCH: switch}
    run = subprocess.run(
        [sys.executable, "-c", HOARD], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    emitted, flags, devices, after_short, after_long = run.stdout.split()
    assert emitted == "True"
    assert flags == str(switch == "" or backend.flags("") == "")
    assert devices == str(switch == "" or backend.cores() == 1)
    assert abs(int(after_short)) < 10
    assert int(after_long) >= given_back
