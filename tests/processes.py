"""Python processes with so many CPU devices, alone or two of them as one job."""

import os
import socket
import subprocess
import sys

import jax
import tiny_training

from rice_jax import cluster


def alike():
    """The environment of a process that computes what this one does, to the last bit.

    What this one has compiled it finds on disk, and leaves there as it is: it may be killed.
    """
    return os.environ | {
        "JAX_NUM_CPU_DEVICES": str(jax.device_count()),
        "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9",
    }


def start(arguments, devices, **environment):
    """A Python process that is listened to."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=tiny_training.environment(devices) | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(*arguments, devices=(2, 2)):
    """Two processes with so many devices that are one job."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    job = {cluster.COORDINATOR: f"localhost:{port}", cluster.PROCESSES: "2"}
    return [
        start(arguments, count, **job, **{cluster.PROCESS: str(number)})
        for number, count in enumerate(devices)
    ]


def ended(process):
    """What a process that ended well said."""
    said, complaints = process.communicate()
    assert process.returncode == 0, complaints
    return said
