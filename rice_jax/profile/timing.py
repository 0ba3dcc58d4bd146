"""How long a net takes: in theory from its FLOPs, and measured."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rice_jax import ops
from rice_jax.errors import UserError
from rice_jax.graph.fronts import takes_variables
from rice_jax.graph.input_shape import traced_alone


def theoretical_seconds(flops: float, device_flops_per_second: float) -> float:
    """Seconds that `flops` take on a device that does `device_flops_per_second`.

    A lower bound: no device reaches its peak, and memory traffic is left out.

    Raises:
        UserError: a rate that is not positive.
    """
    if not device_flops_per_second > 0:
        raise UserError(
            f"a device's FLOP/s must be positive, not {device_flops_per_second}: "
            "take its peak from its data sheet"
        )
    return flops / device_flops_per_second


@takes_variables
def latency(
    module: Any,
    variables: Any,
    input_shape: Sequence[int],
    *,
    batched: bool | None = None,
    repeats: int = 30,
    warmup: int = 3,
    seconds: float = 2.0,
    largest_batch: int = 32,
    **call_kwargs: Any,
) -> dict[str, Any]:
    """Measure inference on JAX's first device: latency of one image, throughput of a batch.

    Each run is awaited before the next one starts; on a CPU it has all cores. The batch the
    largest power of two up to `largest_batch` which the latency lets pass in about `seconds`, so
    that a slow net is measured too.

    Args:
        module: a net called with one array: a Linen module, an NNX module or a function.
        variables: of a Linen module, or params of a function; an NNX module is followed by none.
        input_shape: (H, W, C) of an image, or (N, H, W, C). N is of no matter.
        batched: whether `input_shape` has its batch dimension, where three numbers are not an
            image or others not a whole shape.
        repeats: runs that are timed; fewer, but 3, where they take longer than `seconds`.
        warmup: runs before the first timed one; the last of them starts within `seconds`.
        seconds: time to spend on the timed runs of each of the three measurements: one image on
            the device, one from the host's memory, a batch.
        largest_batch: images of the batch at most; with 1 the one image is the batch, and
            nothing more is compiled and timed for it.
        **call_kwargs: what else the module's call takes, such as train=False.

    Returns:
        device, repeats, compile_seconds, and in seconds median, p10, p90 of a batch of one;
        from_host: median seconds from an image in NumPy's memory to logits there;
        throughput: {batch_size, repeats, compile_seconds, images_per_second (of the median run)}.

    Raises:
        UserError: `repeats`, `warmup` or `largest_batch` is below 1; the net does not run on such
            images, or not with these variables; a shape that was read wrongly (say `batched`).
    """
    if repeats < 1 or warmup < 1:
        raise UserError(f"latency needs 1 repeat and 1 warm-up run, not {repeats} and {warmup}")
    if largest_batch < 1:
        raise UserError(f"latency needs a largest batch of 1 image or more, not {largest_batch}")
    traced = traced_alone(module, input_shape, batched, **call_kwargs)
    traced.arrays(variables)  # refuses what the module does not take
    _, *image = traced.input.shape
    options = module.options(**call_kwargs)

    def apply(variables: Any, x: jax.Array) -> Any:
        with ops.inference(), ops.joined():
            return module.apply(variables, x, **options)

    function, given = ops.bound(apply, variables)
    jitted = jax.jit(function)

    def measured(batch_size: int) -> _Runs:
        images = np.random.default_rng(0).random((batch_size, *image), np.float32)
        return _runs(jitted, given, images, repeats, warmup, seconds)

    single = measured(1)
    batch_size = _batch_within(seconds, single.median, largest_batch)
    many = measured(batch_size) if batch_size > 1 else single
    return {
        "device": jax.devices()[0].device_kind,
        **single.latency(),
        "throughput": many.throughput(),
    }


@dataclasses.dataclass(frozen=True)
class _Runs:
    """How long a batch takes."""

    batch_size: int
    compile_seconds: float
    seconds: np.ndarray
    """Of each run, on the device alone."""
    from_host: np.ndarray
    """Of each run from NumPy's memory and back there; where it is measured, for one image."""

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def latency(self) -> dict[str, Any]:
        return {
            "repeats": len(self.seconds),
            "compile_seconds": self.compile_seconds,
            "median": self.median,
            "p10": float(np.percentile(self.seconds, 10)),
            "p90": float(np.percentile(self.seconds, 90)),
            "from_host": float(np.median(self.from_host)),
        }

    def throughput(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "repeats": len(self.seconds),
            "compile_seconds": self.compile_seconds,
            "images_per_second": self.batch_size / self.median,
        }


def _runs(
    jitted: Any, given: Any, images: np.ndarray, repeats: int, warmup: int, seconds: float
) -> _Runs:
    """A function of what `ops.bound` leaves to give, and images, compiled for them and timed."""
    x = jax.device_put(images)
    started = time.perf_counter()
    compiled = jitted.lower(given, x).compile()
    compile_seconds = time.perf_counter() - started

    def timed(give: Callable[[], Any], take: Callable[[Any], Any]) -> np.ndarray:
        return _durations(lambda: take(compiled(given, give())), repeats, warmup, seconds)

    on_device = timed(lambda: x, jax.block_until_ready)
    from_host = timed(lambda: images, jax.device_get) if len(images) == 1 else on_device
    return _Runs(len(images), compile_seconds, on_device, from_host)


def _durations(run: Callable[[], Any], repeats: int, warmup: int, seconds: float) -> np.ndarray:
    """Seconds of each run; at least 3 runs, or `repeats` if that is less."""
    warm = time.perf_counter() + seconds
    for _ in range(warmup):
        run()
        if time.perf_counter() > warm:
            break
    durations: list[float] = []
    while len(durations) < repeats and (len(durations) < 3 or sum(durations) < seconds):
        started = time.perf_counter()
        run()
        durations.append(time.perf_counter() - started)
    return np.array(durations)


def _batch_within(seconds: float, per_image: float, largest: int) -> int:
    """The largest power of two up to `largest` that passes, one by one, in a third of `seconds`."""
    batch_size = 1
    while 2 * batch_size <= largest and 6 * batch_size * per_image <= seconds:
        batch_size *= 2
    return batch_size
