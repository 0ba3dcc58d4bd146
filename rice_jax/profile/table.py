"""The profile as a table for a terminal, in the manner of Keras's summary."""

import textwrap
from collections.abc import Sequence

from rice_jax.errors import UserError
from rice_jax.profile.bits import PRECISIONS
from rice_jax.profile.profiler import Profile
from rice_jax.profile.roofline import Device
from rice_jax.profile.rows import Row

CONVENTIONS = ("formula", "study", "xla")
"""Of counting FLOPs, each with rules of its own."""
_WIDTH = 100
_SHAPE, _PARAMS, _FLOPS, _BYTES, _INTENSITY, _TIME = 17, 12, 17, 8, 8, 10
_TYPE = 20
_COUNTS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (1, ""))
_SIZES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B"))
_SECONDS = ((1, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns"))


def summary(profile: Profile, convention: str = "study", device: Device | None = None) -> str:
    """A line for each layer, totals below, in at most 100 columns.

    The output's shape is without the batch; bytes are read and written, and 'FLOP/B' is the FLOPs
    in the `xla` convention for each of them. A count that lacks what no rule counts has '≥' before
    it; what a loop runs has its times after its name. A count that its column has no room for is
    told to three digits.

    Args:
        profile: what `count` returned.
        convention: whose FLOPs the layers show: 'formula', 'study' or 'xla'; the totals show all.
        device: what the times are for and what bounds a layer there; none without it.

    Raises:
        UserError: a convention that is none of the three.
    """
    if convention not in CONVENTIONS:
        raise UserError(f"convention {convention!r}: there are {', '.join(CONVENTIONS)}")
    header = ("Layer (type)", "Output", "Params", f"FLOPs ({convention})", "Bytes", "FLOP/B")
    below = [
        *_totals(profile),
        *(_roofline(profile, device) if device else []),
        *_loops_and_branches(profile),
        *_missing(profile),
    ]
    return "\n".join(
        [
            _line(*header, *(["Time"] if device else [])),
            "─" * _WIDTH,
            *(_row(row, convention, device) for row in profile.rows),
            "─" * _WIDTH,
            *(line for text in below for line in _wrap(text)),
        ]
    )


def _row(row: Row, convention: str, device: Device | None) -> str:
    shape = " x ".join(str(side) for side in (row.output_shape or ())[1:])
    params = _fitting(row.params, _PARAMS)
    count = _fitting(getattr(row.flops, convention), _FLOPS, row.complete)
    moved = _short(row.traffic.total, _COUNTS) if row.traffic.total else ""
    intensity = "" if row.intensity is None else _short(row.intensity, _COUNTS)
    time = [_time(row, device)] if device else []
    layer = _title(row, _layer_width(bool(device)) - 1)
    return _line(layer, _cut(shape, _SHAPE - 1), params, count, moved, intensity, *time)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _time(row: Row, device: Device) -> str:
    """'12.3 µs c' for what its arithmetic bounds, 'm' for what memory does."""
    bound = device.bound(row)
    return f"{_short(device.seconds(row), _SECONDS)} {bound[0]}" if bound else ""


def _short(number: float, units: Sequence[tuple[float, str]]) -> str:
    """Three digits and the largest unit that fits: '12.3 M'."""
    scale, unit = next((u for u in units if number >= 0.9995 * u[0]), units[-1])
    digits = f"{number / scale:.3g}"
    return f"{float(digits):g}{unit}"


def _fitting(count: int, width: int, complete: bool = True) -> str:
    """A count to its last digit, or to three where its column has no room for all."""
    text = _marked(count, complete)
    return text if len(text) < width else text[: -len(f"{count:,}")] + _short(count, _COUNTS)


def _marked(count: int, complete: bool) -> str:
    return f"{count:,}" if complete else f"≥ {count:,}"


def _title(row: Row, width: int) -> str:
    """'conv1 (Conv)'; an operation is named once, a long path alone, a longer one by its end."""
    is_operation = row.path.split("/")[-1].startswith(row.type)
    kind = "" if is_operation else f" ({_cut(row.type, _TYPE)})"
    path = row.path or "(the net)"
    times = f" x{row.times}" if row.times > 1 else ""
    kind = kind if len(path + kind + times) <= width else ""
    return _cut(path, width - len(kind + times), keep_end=True) + kind + times


def _cut(text: str, length: int, keep_end: bool = False) -> str:
    if len(text) <= length:
        return text
    return "…" + text[len(text) - length + 1 :] if keep_end else text[: length - 1] + "…"


def _layer_width(timed: bool) -> int:
    columns = (_SHAPE, _PARAMS, _FLOPS, _BYTES, _INTENSITY, _TIME if timed else 0)
    return _WIDTH - sum(columns)


def _line(
    layer: str, shape: str, params: str, flops: str, moved: str, intensity: str, *time: str
) -> str:
    return (
        f"{layer:<{_layer_width(bool(time))}}{shape:<{_SHAPE}}{params:>{_PARAMS}}{flops:>{_FLOPS}}"
        f"{moved:>{_BYTES}}{intensity:>{_INTENSITY}}" + "".join(f"{t:>{_TIME}}" for t in time)
    )


def _totals(profile: Profile) -> list[str]:
    still = profile.params - profile.trainable_params
    counts = ((name, getattr(profile.flops, name)) for name in CONVENTIONS)
    flops = ", ".join(f"{name} {_marked(count, profile.complete)}" for name, count in counts)
    batch = profile.input_shape[0]
    memory = profile.memory
    where = f", in {memory.at}" if memory.at else ""
    training = _marked(profile.training_flops, profile.complete)
    return [
        f"Parameters: {profile.params:,} ({_size(profile.param_bytes)}), "
        f"{profile.trainable_params:,} trainable, {still:,} not",
        f"Filters: {profile.filters:,}{_as_studied(profile)}",
        f"FLOPs of {'one image' if batch == 1 else f'{batch} images'}: {flops}",
        f"A training step of that (forward and backward): formula {training}",
        f"Bytes read {_size(profile.traffic.read)}, "
        f"written {_size(profile.traffic.written)}, each layer by itself",
        _bits(profile),
        f"Memory at the peak: {_size(memory.peak)}: weights {_size(memory.weights)}, "
        f"activations {_size(memory.activations)}{where}",
        *_measured(profile),
    ]


def _as_studied(profile: Profile) -> str:
    if profile.study_filters == profile.filters:
        return ""
    return f" ({profile.study_filters:,} by the study's count: of a block what leaves it)"


def _bits(profile: Profile) -> str:
    costs = {name: profile.at(each) for name, each in PRECISIONS.items()}
    operations = ", ".join(
        f"{name} {_marked(cost['bit_operations'], profile.complete)} "
        f"({_size(cost['param_bytes'])} of parameters)"
        for name, cost in costs.items()
    )
    return f"Bit operations: {operations}"


def _size(count: int) -> str:
    return _short(count, _SIZES)


def _roofline(profile: Profile, device: Device) -> list[str]:
    """What the times are for, and their sum."""
    flops, moved = (_short(n, _COUNTS) for n in (device.flops_per_second, device.bytes_per_second))
    seconds = _short(sum(map(device.seconds, profile.rows)), _SECONDS)
    least = "" if profile.complete else "at least "
    return [
        f"Time: {least}{seconds} in all at {flops}FLOP/s and {moved}B/s; "
        "c: bound by compute, m: by memory"
    ]


def _measured(profile: Profile) -> list[str]:
    """XLA's own count, and how far it is from ours; a millionth is the rounding of its float32."""
    measured = profile.xla_measured
    if measured is None:
        return []
    expected = profile.xla_loops_once
    looped = (
        "" if expected == profile.flops.xla else f", each loop's body once: {expected:,} by ours"
    )
    difference = measured - expected
    off = f" ({difference:+,} against xla above)" if abs(difference) > 1e-6 * measured else ""
    return [f"XLA's own count: {measured:,}{looped or off}"]


def _loops_and_branches(profile: Profile) -> list[str]:
    lines = []
    if any(row.times > 1 for row in profile.rows):
        lines.append("xN: a loop runs it N times, or N devices do, and all are counted")
    branched = [row.path or "the net" for row in profile.rows if row.branches > 1]
    if branched:
        lines.append(f"The dearest of several branches: {', '.join(branched)}")
    skipped = [row.path for row in profile.rows if row.skipped]
    if skipped:
        lines.append(f"In a cheaper branch, not counted: {', '.join(skipped)}")
    return lines


def _missing(profile: Profile) -> list[str]:
    lines = [
        f"Not counted: {operation.operation} {_shapes(operation.input_shapes)} "
        f"in {operation.layer or 'the net'}"
        for operation in profile.uncounted
    ]
    if lines:
        lines.append("What has a ≥ is too low by these.")
    if profile.not_called:
        lines.append(f"Never called: {', '.join(profile.not_called)}")
    return lines


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " x ".join(str(shape) for shape in shapes)
