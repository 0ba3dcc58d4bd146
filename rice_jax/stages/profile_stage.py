"""The profile stage: what an image costs the net, counted and timed, into the run's folder."""

import functools
import shlex
from typing import Any

import jax
import ml_collections
import numpy as np

from rice_jax import cluster, identity, profile, records, train
from rice_jax.bar import Bar
from rice_jax.export import elsewhere
from rice_jax.graph.trace import variable_shapes
from rice_jax.models import statistics
from rice_jax.report import numbers
from rice_jax.run import Run
from rice_jax.stages.job import Job


def stage(job: Job) -> None:
    """Count what an image costs the net, time it here, and write profile.json."""
    cluster.on_first(functools.partial(_count_and_time, job.run, job.config))


def _count_and_time(run: Run, config: ml_collections.ConfigDict) -> None:
    module = train.build(config)
    shape = (config.data.image_size, config.data.image_size, 3)
    shapes = variable_shapes(module, (1, *shape))
    still = (*config.train.frozen, *statistics.arrays(shapes["params"]))
    with Bar("counting"):
        counted = profile.count(module, shape, frozen=still, measure_xla=True)
    if not run.has("config.json"):
        identity.record(run, config, None)
    device = _device(config)
    print(profile.summary(counted, device=device), flush=True)
    # Time does not depend on what the weights are: zeros need no program to be compiled.
    zeros = jax.device_put(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    with Bar("measuring latency and throughput"):
        measured = profile.latency(module, zeros, shape, seconds=0.3)
    rate = device.flops_per_second
    in_theory = {
        convention: profile.theoretical_seconds(number, rate)
        for convention, number in counted.flops.to_json().items()
    }
    times = {
        "device_flops_per_second": rate,
        "theoretical_seconds": in_theory,
        "measured": measured,
    }
    print(_told(in_theory["study"], rate, measured))
    if config.profile.runtimes:
        times["runtimes"] = _elsewhere(run, config, shapes["params"], measured["from_host"])
    content = counted.to_json(config.model.name, device) | {"time": times}
    records.write(run, records.made(records.ProfileFile, content))


def _told(in_theory: float, rate: float, measured: dict[str, Any]) -> str:
    """Seconds at `rate` FLOP/s and those that `profile.latency` measured, in a line."""
    batch = measured["throughput"]
    return (
        f"One image: {numbers.seconds(in_theory)} in theory at "
        f"{numbers.quantity(rate, 'FLOP/s', 3)}, {numbers.seconds(measured['median'])} measured "
        f"on {measured['device']}, {numbers.seconds(measured['from_host'])} with the way there "
        f"and back; {numbers.short(batch['images_per_second'], 3)} images/s in batches of "
        f"{batch['batch_size']}"
    )


def _elsewhere(
    run: Run, config: ml_collections.ConfigDict, shapes: Any, ours: float
) -> dict[str, Any]:
    """What other runtimes take for one image, told beside our `ours` seconds."""
    with Bar("measuring other runtimes"):
        found, why_not = elsewhere.latencies(config, shapes)
    for runtime, seconds in found.items():
        out = f"{shlex.quote(f'--workdir={run}')} --out=net{elsewhere.FORMATS[runtime]}"
        print(
            f"One image in {runtime}: {numbers.seconds(seconds.median)} with the way there and "
            f"back, {ours / seconds.median:.2f} times as fast: rice-jax export {out}"
        )
    for runtime, why in why_not.items():
        print(f"{runtime} was not timed: {why}")
    return {runtime: records.plain(seconds) for runtime, seconds in found.items()}


def _device(config: ml_collections.ConfigDict) -> profile.Device:
    peaks = config.profile
    return profile.Device(peaks.device_flops_per_second, peaks.device_bytes_per_second)
