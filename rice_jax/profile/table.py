"""The profile as a table for a terminal, in the manner of Keras's summary."""

import textwrap
from collections.abc import Sequence

from rice_jax.errors import UserError
from rice_jax.profile.profiler import Profile
from rice_jax.profile.rows import Row

CONVENTIONS = ("formula", "study", "xla")
_WIDTH = 98
_LAYER, _SHAPE, _PARAMS, _FILTERS, _FLOPS = 41, 21, 12, 8, 16
_TYPE = 20


def summary(profile: Profile, convention: str = "study") -> str:
    """A line for each layer, totals below, in at most 98 columns.

    A count that lacks what no rule counts has '≥' before it; what a loop runs has its times after
    its name.

    Args:
        profile: what `count` returned.
        convention: whose FLOPs the layers show: 'formula', 'study' or 'xla'; the totals show all.

    Raises:
        UserError: a convention that is none of the three.
    """
    if convention not in CONVENTIONS:
        raise UserError(f"convention {convention!r}: there are {', '.join(CONVENTIONS)}")
    return "\n".join(
        [
            _line("Layer (type)", "Output shape", "Params", "Filters", f"FLOPs ({convention})"),
            "─" * _WIDTH,
            *(_row(row, convention) for row in profile.rows),
            "─" * _WIDTH,
            *_totals(profile),
            *_missing(profile),
        ]
    )


def _row(row: Row, convention: str) -> str:
    shape = "" if row.output_shape is None else str(row.output_shape)
    count = _marked(getattr(row.flops, convention), row.complete)
    filters = f"{row.filters:,}" if row.filters else ""
    return _line(_title(row), shape, f"{row.params:,}", filters, count)


def _marked(count: int, complete: bool) -> str:
    return f"{count:,}" if complete else f"≥ {count:,}"


def _title(row: Row) -> str:
    """'conv1 (Conv)'; a long path loses its beginning, an operation is named once."""
    is_operation = row.path.split("/")[-1].startswith(row.type)
    kind = "" if is_operation else f" ({_cut(row.type, _TYPE)})"
    path = row.path or "(the net)"
    times = f" x{row.times}" if row.times > 1 else ""
    return _cut(path, _LAYER - 1 - len(kind) - len(times), keep_end=True) + kind + times


def _cut(text: str, length: int, keep_end: bool = False) -> str:
    if len(text) <= length:
        return text
    return "…" + text[len(text) - length + 1 :] if keep_end else text[: length - 1] + "…"


def _line(layer: str, shape: str, params: str, filters: str, flops: str) -> str:
    return (
        f"{layer:<{_LAYER}}{shape:<{_SHAPE}}{params:>{_PARAMS}}{filters:>{_FILTERS}}"
        f"{flops:>{_FLOPS}}"
    )


def _totals(profile: Profile) -> list[str]:
    frozen = profile.params - profile.trainable_params
    megabytes = profile.param_bytes / 2**20
    counts = ((name, getattr(profile.flops, name)) for name in CONVENTIONS)
    flops = ", ".join(f"{name} {_marked(count, profile.complete)}" for name, count in counts)
    batch = profile.input_shape[0]
    return [
        f"Parameters: {profile.params:,} ({megabytes:,.2f} MB), "
        f"{profile.trainable_params:,} trainable, {frozen:,} frozen",
        f"Filters: {profile.filters:,} ({profile.study_filters:,} as the study counts them)",
        f"FLOPs of {'one image' if batch == 1 else f'{batch} images'}: {flops}",
        *_measured(profile),
        *_loops_and_branches(profile),
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
        lines.append("xN: a loop runs it N times, and all are counted")
    branched = [row.path or "the net" for row in profile.rows if row.branches > 1]
    if branched:
        lines += _listed("The dearest of several branches", branched)
    skipped = [row.path for row in profile.rows if row.skipped]
    if skipped:
        lines += _listed("In a cheaper branch, not counted", skipped)
    return lines


def _listed(what: str, paths: Sequence[str]) -> list[str]:
    return textwrap.wrap(f"{what}: {', '.join(paths)}", _WIDTH, subsequent_indent="  ")


def _missing(profile: Profile) -> list[str]:
    lines = [
        line
        for operation in profile.uncounted
        for line in _listed(
            "Not counted",
            [
                f"{operation.operation} {_shapes(operation.input_shapes)} "
                f"in {operation.layer or 'the net'}"
            ],
        )
    ]
    if lines:
        lines.append("What has a ≥ is too low by these.")
    if profile.not_called:
        lines += _listed("Never called", profile.not_called)
    return lines


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " x ".join(str(shape) for shape in shapes)
