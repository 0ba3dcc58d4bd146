"""Figures as a person reads them; what is missing is a dash."""

import decimal as decimals
import math
from typing import TypeGuard

MISSING = "—"
_NOISE = 1e-12
"""What sums of shares may be off by."""
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def present(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def percent(share: float | None, digits: int = 2) -> str:
    """0.9533 as '95.33 %'; of what is neither nothing nor all '< 0.01 %' and '> 99.99 %'."""
    if share is None or not present(share):
        return MISSING
    return f"{_part(100 * share, 100, digits)} %"


def fraction(share: float | None, digits: int = 4) -> str:
    """0.95333 as '0.9533'; of what is neither nothing nor all '< 0.0001' and '> 0.9999'."""
    return _part(share, 1, digits) if share is not None and present(share) else MISSING


def _part(amount: float, whole: float, digits: int, noise: float = _NOISE) -> str:
    """An amount, from which what would round to nothing or to the whole stays apart."""
    text = f"{amount:z.{digits}f}"
    least = 10.0**-digits
    if float(text) == 0 and amount > noise:
        return f"< {least:.{digits}f}"
    if float(text) == whole and amount < whole - noise:
        return f"> {whole - least:.{digits}f}"
    return text


def count(number: float | None) -> str:
    """17301 as '17,301'."""
    return f"{number:,.0f}" if number is not None and present(number) else MISSING


def counted(number: float | None, noun: str) -> str:
    """'1 net' and '17,301 nets'."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def decimal(number: float | None, digits: int = 4) -> str:
    """A plain number with `digits` decimals: 0.00002 as '< 0.0001', -0.00002 as '0.0000'."""
    if number is None or not present(number):
        return MISSING
    return _part(number, math.inf, digits, noise=0.0)


def slope(number: float | None) -> str:
    """How fast something grows, in two decimals: what is as small as its error is '0.00'."""
    return f"{number:z.2f}" if number is not None and present(number) else MISSING


def short(number: float | None, digits: int = 4) -> str:
    """1042859422 as '1.043 G': `digits` significant digits and a prefix."""
    if number is None or not present(number):
        return MISSING
    for scale, prefix in _PREFIXES:
        if abs(number) >= scale * (1 - 0.5 * 10**-digits):
            return f"{_significant(number / scale, digits)} {prefix}"
    return _significant(number, digits)


def times(ratio: float, digits: int = 3) -> str:
    """How many times as much: 3.14159 as '3.14', 31063.5 as '31,064'."""
    return count(ratio) if ratio >= 1000 else _significant(ratio, digits)


def quantity(number: float | None, unit: str, digits: int = 4) -> str:
    """132433836 FLOPs as '132.4 MFLOPs', 50 as '50 FLOPs'."""
    text = short(number, digits)
    return f"{text}{unit}" if text[-1].isalpha() else f"{text} {unit}"


def at_least(text: str, complete: bool) -> str:
    """A count as text, with '≥' before it where the count lacks something."""
    return text if complete or text == MISSING else f"≥ {text}"


def cost(measure: str, amount: float, *, complete: bool) -> str:
    """What a net costs by a measure of `lighten`; `complete`: whether its FLOPs lack nothing."""
    if measure == "latency":
        return seconds(amount)
    return at_least(count(amount), complete or measure != "flops")


def at_most(bound: float | None) -> str:
    """A bound as text, rounded away from 0, in two significant digits: 0.000123 as '0.00013'."""
    if bound is None or not present(bound):
        return MISSING
    context = decimals.Context(prec=2, rounding=decimals.ROUND_UP)
    return f"{float(context.create_decimal(repr(float(bound)))):.2g}"


def seconds(duration: float | None) -> str:
    """0.00421 as '4.21 ms'."""
    if duration is None or not present(duration) or duration < 0:
        return MISSING
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if duration >= 0.9995 * scale:  # what would round to 1000 of the next
            return f"{_significant(duration / scale, 3)} {unit}"
    return f"{_significant(duration / 1e-9, 3)} ns"


def _significant(number: float, digits: int) -> str:
    if number == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
