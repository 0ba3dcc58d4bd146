"""The profile as a table for a terminal, in the manner of Keras's summary."""

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
    count = getattr(row.flops, convention)
    filters = f"{row.filters:,}" if row.filters else ""
    return _line(_title(row), shape, f"{row.params:,}", filters, f"{count:,}")


def _title(row: Row) -> str:
    """'conv1 (Conv)'; a long path loses its beginning, an operation is named once."""
    is_operation = row.path.split("/")[-1].startswith(row.type)
    kind = "" if is_operation else f" ({_cut(row.type, _TYPE)})"
    path = row.path or "(the net)"
    return _cut(path, _LAYER - 1 - len(kind), keep_end=True) + kind


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
    flops = ", ".join(f"{name} {getattr(profile.flops, name):,}" for name in CONVENTIONS)
    batch = profile.input_shape[0]
    return [
        f"Parameters: {profile.params:,} ({megabytes:,.2f} MB), "
        f"{profile.trainable_params:,} trainable, {frozen:,} frozen",
        f"Filters: {profile.filters:,} ({profile.study_filters:,} as the study counts them)",
        f"FLOPs of {'one image' if batch == 1 else f'{batch} images'}: {flops}",
        f"XLA's own count: {profile.xla_measured:,}{_difference(profile)}",
    ]


def _difference(profile: Profile) -> str:
    """How far XLA's count is from ours; below a millionth it is the rounding of its float32."""
    difference = profile.xla_measured - profile.flops.xla
    if abs(difference) <= 1e-6 * profile.xla_measured:
        return ""
    return f" ({difference:+,} against xla above)"


def _missing(profile: Profile) -> list[str]:
    lines = [
        f"Not counted: {operation.operation} {_shapes(operation.input_shapes)} "
        f"in {operation.layer or 'the net'}"
        for operation in profile.uncounted
    ]
    if profile.not_called:
        lines.append(f"Never called: {', '.join(profile.not_called)}")
    return lines


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " x ".join(str(shape) for shape in shapes)
