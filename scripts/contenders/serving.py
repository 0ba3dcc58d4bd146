"""A contender's side of the benchmark: measure when asked, answer in JSON, one line each.

The asker writes 'train SECONDS' or 'infer SECONDS' and reads images a second; 'memory' gives
the process's peak so far in MB, 'flops' the FLOPs of a training step where they are known. That way
contenders take turns, and none computes while another does.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Contender(NamedTuple):
    """What a contender computes on the batch that it was given when it was made."""

    train: Callable[[int], object] | None
    """Do so many training steps and wait for the last; None where it cannot train."""
    infer: Callable[[int], object]
    """Compute so many batches' logits and wait for the last; where they are single images, for
    each."""
    evaluate: Callable[[int], object] | None = None
    """Do so many evaluations and wait for the last; None where it is not asked for any."""
    flops: Callable[[], int] | None = None
    """FLOPs of a training step on the batch; None where nobody counts them."""


Make = Callable[[argparse.Namespace, np.ndarray, np.ndarray], Contender]


def serve(make: Make) -> None:
    """Make the contender that the command line asks for and answer until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--image_size", type=int, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--fields", type=json.loads, default={}, help="of the net, in JSON")
    parser.add_argument("--tasks", type=lambda tasks: tasks.split(","), help="that are asked for")
    parser.add_argument("--plain", action="store_true", help="plain Flax instead of rice_jax")
    parser.add_argument("--runtime", help="that infers")
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    random = np.random.default_rng(0)
    size = (given.batch, given.image_size, given.image_size, 3)
    images = random.integers(0, 256, size, np.uint8)
    labels = random.integers(0, given.fields.get("classes", 5), given.batch).astype(np.int32)

    contender = make(given, images, labels)
    started = time.perf_counter()
    learns = contender.train is not None and given.batch > 1
    first, *others = given.tasks or (["train", "infer"] if learns else ["infer"])
    getattr(contender, first)(1)
    compiled = time.perf_counter() - started
    for task in others:
        getattr(contender, task)(1)
    answers.write(json.dumps(compiled) + "\n")
    for line in sys.stdin:
        task, _, seconds = line.strip().partition(" ")
        answer: float
        if task == "memory":
            answer = peak_memory()
        elif task == "flops":
            assert contender.flops is not None
            answer = contender.flops()
        else:
            answer = given.batch * _rate(getattr(contender, task), float(seconds))
        answers.write(json.dumps(answer) + "\n")


def peak_memory() -> float:
    """MB that this process held at its peak.

    Not `ru_maxrss` where there is another: that begins at the peak of whoever started the process.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # of macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    kibibytes = status.partition("VmHWM:")[2].split()[0]
    return int(kibibytes) * 1024 / 1e6


def _rate(work: Callable[[int], object], seconds: float) -> float:
    """Repetitions a second over about that many seconds, so that what starting costs is little."""
    count = 1
    while True:
        started = time.perf_counter()
        work(count)
        taken = time.perf_counter() - started
        if taken >= seconds / 2:
            return count / taken
        count = max(2 * count, int(count * seconds / taken))
