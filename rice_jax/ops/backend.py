"""Settings of JAX's CPU backend: every core a device, XLA's flags that help, memory given back.

XLA reads its flags and makes its devices once, when the first array is made: call `configure`
before that.
"""

import ctypes
import functools
import mmap
import os
from pathlib import Path

import jax
import jaxlib.version

from rice_jax.launch import SWITCH, has_glibc

# jaxlib before 0.12 has no oneDNN built in and ignores it.
_ONEDNN = {"xla_cpu_experimental_onednn_custom_call": "true"}
# XLA ends the process where a device waits 40 seconds for another, as on a machine full of work.
_PATIENCE = {
    "xla_cpu_collective_call_warn_stuck_timeout_seconds": "600",
    "xla_cpu_collective_call_terminate_timeout_seconds": "86400",
}
_YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
_CONVOLUTION = "individual_convolution"
_DEVICES = "jax_num_cpu_devices"
_COMPILED = "/jax/core/compile/backend_compile_duration"


def configure() -> None:
    """Prepare the CPU backend; call it before anything makes an array.

    Flags are added to XLA_FLAGS where the installed jaxlib knows them and the user has not set
    them. Every core becomes a device of its own, so that the operations which XLA runs on one
    thread run on all of them when a batch is split over the devices; a number that the user set
    (JAX_NUM_CPU_DEVICES, or XLA's own flag) stays. Memory that a compilation is done with goes
    back to the system. RICE_JAX_XLA_FLAGS=0 switches all of it off.
    A second call, or one after the backend has started, changes nothing, not the environment
    either: a child process would compute by flags that this one has not.
    """
    if os.environ.get(SWITCH) == "0" or _started():
        return
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = flags(given)
    _trim_after_compilations()
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in given:
        return
    jax.config.update(_DEVICES, cores())


def flags(given: str) -> str:
    """XLA_FLAGS as `configure` leaves them where they were `given`."""
    return " ".join([given, *_added_flags(given)]).strip()


def _started() -> bool:
    """Whether the backend runs: JAX then refuses another number of devices, and tells no other way.

    The number is put back.
    """
    number = jax.config.jax_num_cpu_devices
    try:
        jax.config.update(_DEVICES, number + 2)  # -1 stands for none given
    except RuntimeError:
        return True
    jax.config.update(_DEVICES, number)
    return False


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _trim_after_compilations() -> None:
    """Give back what glibc keeps of a compilation's memory: 700 MB for googlenet_light's step."""
    if has_glibc():
        jax.monitoring.register_event_duration_secs_listener(_trim)


def _trim(event: str, duration_secs: float, **_: str | int) -> None:
    if event == _COMPILED and duration_secs > 1:
        ctypes.CDLL(None).malloc_trim(0)


def _added_flags(given: str) -> list[str]:
    """The flags that help, without those in `given` and those unknown to the jaxlib here."""
    wanted = _ONEDNN | _PATIENCE | _left_to_ynnpack(jaxlib.version.__version__)
    missing = {name: value for name, value in wanted.items() if f"--{name}" not in given}
    known = _known({f"{name}\0" for name in missing})
    return [f"--{name}={value}" for name, value in missing.items() if f"{name}\0" in known]


def _left_to_ynnpack(version: str) -> dict[str, str]:
    """What XLA may give to YNNPACK in this jaxlib."""
    if version == "0.10.2":
        # This release computes some fused reductions wrongly (github.com/jax-ml/jax/issues/39103).
        return {_YNNPACK: "-reduce"}
    has_onednn = tuple(map(int, version.split(".")[:2])) >= (0, 12)
    if has_onednn and _known({_CONVOLUTION.upper()}):
        # YNNPACK would come first, and take convolutions that oneDNN runs faster, with bias and
        # ReLU in the same pass.
        return {_YNNPACK: f"-{_CONVOLUTION}"}
    return {}


def _known(words: set[str]) -> set[str]:
    """Those of `words` that stand in jaxlib's library.

    XLA ends the process when it meets a flag that it does not know, so it cannot be asked.
    """
    found: set[str] = set()
    libraries = Path(jaxlib.__path__[0]).glob("*")
    for library in (path for path in libraries if path.suffix in (".so", ".dylib", ".pyd")):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            found |= {word for word in words - found if m.find(word.encode()) >= 0}
    return found
