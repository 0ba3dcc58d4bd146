"""What a field or a flag may be: each kind reads itself from text, and says what it takes.

Nothing here needs more than Python, so that a mistake is told before anything heavy is loaded.
"""

import contextlib
import dataclasses
import decimal
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from rice_jax import files
from rice_jax.errors import UserError

_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_NUMBER = re.compile(r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)([kMGBT]?)")
_WRITTEN = re.compile(
    r"\s*(?P<sign>[+-]?)(?:(?P<whole>[1-9]\d{0,2}(?:,\d{3})+)|(?P<part>[\d_]*[.,]?\d+))"
    r"\s*(?P<unit>%|[kmgbt]?)(?:flops?)?\s*",
    re.ASCII | re.IGNORECASE,
)
"""A number as people write it elsewhere: 83m, 83 MFLOPs, 83,000,000, 0,005, 0.5%."""

_LONGEST = 65_536
"""Letters of a text: a path may have 4,096."""
MOST_EPOCHS, MOST_SEEDS = 50_000, 1_000
"""Rows of a history.csv and runs of a variant that are read, and so may be asked for. A row takes
some hundred bytes of the file, and some thousand of memory in a report."""


class Bounds(Protocol):
    """What is allowed; `str` of it completes 'give ...'."""

    def allows(self, value: Any) -> bool:
        """Whether a value is one of them."""

    def read(self, text: str) -> Any:
        """The value that a text stands for; ValueError where it can be none."""


@dataclasses.dataclass(frozen=True)
class Whole:
    """Whole numbers, both ends included."""

    least: int
    most: int

    def __str__(self) -> str:
        most = f"{self.most:,}" if self.most < 1e12 else f"{self.most:.0e}"
        return f"a whole number from {self.least:,} to {most}"

    def allows(self, value: Any) -> bool:
        """Whether it is an int within."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.least <= value <= self.most

    def read(self, text: str) -> int:
        """An int of '1000', '1e3', '1k' or '1_000'; ValueError for what is not whole."""
        exact = _exact(text)
        if exact != exact.to_integral_value():
            raise ValueError(f"{text!r} is not whole")
        return int(exact)


@dataclasses.dataclass(frozen=True)
class Budget(Whole):
    """A whole number, or a share of what there is: a `Decimal`, of '50%' 0.5."""

    def __str__(self) -> str:
        return f"{super().__str__()}, or a share of the whole net's, as 50%"

    def allows(self, value: Any) -> bool:
        """Whether it is an int within, or a Decimal between 0 and 1."""
        return 0 < value < 1 if isinstance(value, decimal.Decimal) else super().allows(value)

    def read(self, text: str) -> Any:
        """A Decimal of '12.5%', else an int as `Whole` reads it."""
        share = text.strip().removesuffix("%")
        return super().read(text) if share == text.strip() else _exact(share) / 100


@dataclasses.dataclass(frozen=True)
class Real:
    """Finite numbers from `least` to `most`; `above` and `below` leave out an end."""

    least: float
    most: float
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        start = f"above {self.least:g}" if self.above else f"from {self.least:g}"
        return f"a number {start} {'to below' if self.below else 'to'} {self.most:g}"

    def allows(self, value: Any) -> bool:
        """Whether it is an int or a float within; NaN is not."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        within = self.least <= value <= self.most and math.isfinite(value)
        ends = (self.above and value == self.least) or (self.below and value == self.most)
        return within and not ends

    def read(self, text: str) -> float:
        """A float of '0.5', '1e-3', '2M'."""
        return float(_exact(text))


@dataclasses.dataclass(frozen=True)
class Word:
    """One of a few words."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(filter(None, [", ".join(self.words[:-1]), self.words[-1]]))

    def allows(self, value: Any) -> bool:
        """Whether it is one of the words."""
        return value in self.words

    def read(self, text: str) -> str:
        """The text itself."""
        return text


@dataclasses.dataclass(frozen=True)
class Switch:
    """True or false."""

    def __str__(self) -> str:
        return "true or false"

    def allows(self, value: Any) -> bool:
        """Whether it is a bool."""
        return isinstance(value, bool)

    def read(self, text: str) -> bool:
        """'true', 't' or '1', 'false', 'f' or '0'; ValueError for any other text."""
        known = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
        if text.lower() not in known:
            raise ValueError(f"{text!r} is neither true nor false")
        return known[text.lower()]


@dataclasses.dataclass(frozen=True)
class Text:
    """Any text, as a path; null characters and halves of letters have no place in one."""

    about: str = "a text"
    may_be_empty: bool = True

    def __str__(self) -> str:
        return self.about

    def allows(self, value: Any) -> bool:
        """Whether it is such a text."""
        if not isinstance(value, str) or "\0" in value or not (value or self.may_be_empty):
            return False
        if len(value) > _LONGEST:
            return False
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            return False
        return True

    def read(self, text: str) -> str:
        """The text itself."""
        return text


@dataclasses.dataclass(frozen=True)
class Place(Text):
    """A path of what is there already, or one of a few words, or a prefix and a name."""

    about: str = "a path"
    words: tuple[str, ...] = ()
    prefix: str = ""

    def missing(self, value: str) -> bool:
        """Whether it is a path of this machine at which nothing is."""
        if value in ("", *self.words) or (self.prefix and value.startswith(self.prefix)):
            return False
        return not files.is_remote(value) and not _is_here(value)


_MOST_PARTS = 4096
"""Of a path between commas: more is longer than any that a system takes."""


@dataclasses.dataclass(frozen=True)
class Several:
    """A tuple of so many values of one kind."""

    each: Bounds
    least: int = 0
    most: int | None = None

    def __str__(self) -> str:
        if self.least == self.most:
            number = f"{self.least}"
        elif self.most is not None:
            number = f"{self.least} to {self.most:,}" if self.least else f"up to {self.most:,}"
        else:
            number = f"{self.least} or more" if self.least else "any number"
        return f"{number} of: {self.each}"

    def allows(self, value: Any) -> bool:
        """Whether it is a tuple or a list of as many, each of them allowed."""
        if not isinstance(value, tuple | list):
            return False
        enough = self.least <= len(value) <= (math.inf if self.most is None else self.most)
        return enough and all(map(self.each.allows, value))

    def read(self, text: str) -> tuple[Any, ...]:
        """Values with commas between."""
        return tuple(self.each.read(part.strip()) for part in text.split(",") if part.strip())


@dataclasses.dataclass(frozen=True)
class Paths(Several):
    """Paths of what is there; a comma may belong to the name of a local one."""

    def read(self, text: str) -> tuple[Any, ...]:
        """Paths with commas between: such that something is at each, if that can be."""
        parts = text.split(",")
        ends: dict[int, int] = {len(parts): 0}
        """Of the name that begins at each part, where names can take all parts from there."""
        for start in reversed(range(len(parts))):
            for end in reversed(ends):  # the nearest first
                if end - start > _MOST_PARTS:
                    break
                name = ",".join(parts[start:end]).strip()
                if not name or _is_here(name):
                    ends[start] = end
                    break
        if 0 not in ends:
            return super().read(text)
        start, names = 0, []
        while start < len(parts):
            names.append(",".join(parts[start : ends[start]]).strip())
            start = ends[start]
        return tuple(filter(None, map(self.each.read, names)))


_MOST_FILTERS = 65_536
"""Of a layer: as many as a configuration may give it."""


@dataclasses.dataclass(frozen=True)
class FilterNumbers:
    """Filters of a net: by layer path their numbers."""

    def __str__(self) -> str:
        return "layers with numbers of their filters, as conv1:4,conv1:6,conv3:0-7"

    def allows(self, value: Any) -> bool:
        """Whether it is a mapping that names a layer at least, each with numbers of filters."""
        number = Several(Whole(0, _MOST_FILTERS - 1), 1)
        named = isinstance(value, Mapping) and bool(value) and all(map(Text().allows, value))
        return named and all(map(number.allows, value.values()))

    def read(self, text: str) -> dict[str, list[int]]:
        """Of 'conv1:4,conv3:0-2' {'conv1': [4], 'conv3': [0, 1, 2]}, each number once."""
        found: dict[str, set[int]] = {}
        for part in text.split(","):
            path, _, numbers = part.strip().rpartition(":")
            first, dash, last = numbers.partition("-")
            least, most = int(first), int(last if dash else first)
            if not path or not least <= most < _MOST_FILTERS:
                raise ValueError(f"{part!r} names no filters")
            found.setdefault(path, set()).update(range(least, most + 1))
        return {path: sorted(numbers) for path, numbers in found.items()}


@dataclasses.dataclass(frozen=True)
class Field:
    """A setting: what it is without a word of the user's, what it means, what it may be."""

    default: Any
    meaning: str
    bounds: Bounds

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", fitted(self.default, self.bounds))


def fitted(value: Any, bounds: Bounds) -> Any:
    """A value as flags and JSON give it: 0 is 0.0 where any number may be, and a list a tuple.

    Else the type of a default, which a flag's has to be, would allow whole numbers alone.
    """
    if isinstance(bounds, Several) and isinstance(value, tuple | list):
        return tuple(fitted(each, bounds.each) for each in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if isinstance(bounds, Real) and whole else value


def checked(name: str, value: Any, bounds: Bounds) -> Any:
    """The value; UserError that names it and what is allowed where it is out of bounds."""
    if bounds.allows(value):
        return value
    raise refused(name, value, bounds)


def read(name: str, text: str, bounds: Bounds) -> Any:
    """The value of a text; UserError as `checked`."""
    try:
        value = bounds.read(text)
    except ValueError as error:
        raise refused(name, text, bounds) from error
    if not bounds.allows(value):
        raise refused(name, text, bounds)
    return value


def refused(name: str, value: Any, bounds: Bounds) -> UserError:
    """What to say of a value that is out of bounds."""
    shown = value if isinstance(value, str) else repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return UserError(f"{name}={shown}: give {bounds}{_meant(value, bounds)}")


def nearest(word: str, words: Iterable[str]) -> str:
    """The one of `words` that a mistyped one was meant for; empty where none is near."""
    known: Sequence[str] = sorted(words)
    if len(word) > 3 * max(map(len, known), default=0):  # near to none, and long to be compared
        return ""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), "")


def _is_here(path: str) -> bool:
    """Whether anything is at a path of this machine."""
    return os.path.exists(os.path.expanduser(path))


def _meant(value: Any, bounds: Bounds) -> str:
    """'; nearest is ...' where a word was mistyped, or a number is written as it is elsewhere."""
    if isinstance(bounds, Several):
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return ""
        return next(filter(None, (_meant(part, bounds.each) for part in parts)), "")
    if isinstance(bounds, Whole | Real) and isinstance(value, str):
        if isinstance(bounds, Budget) and "%" in value:  # one that is refused, and no number
            return ""
        with contextlib.suppress(ValueError):
            number = _as_written(value)
            return f"; nearest is {number}" if bounds.allows(bounds.read(number)) else ""
    if not isinstance(bounds, Word) or not isinstance(value, str) or value in bounds.words:
        return ""
    near = nearest(value, bounds.words)
    return f"; nearest is {near}" if near else ""


def _as_written(text: str) -> str:
    """A number in the notation of `_exact` that another notation tells; empty where none does."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        return ""
    digits = (found["whole"] or "").replace(",", "") or found["part"].replace(",", ".")
    if found["unit"] == "%":
        return f"{found['sign']}{_exact(digits) / 100:f}"
    units = {factor.lower(): factor for factor in _FACTORS}
    return f"{found['sign']}{digits}{units[found['unit'].lower()]}"


def _exact(text: str) -> decimal.Decimal:
    """A number of decimal notation, with its factor; ValueError for any other text."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no number")
    return decimal.Decimal(found[1].replace("_", "")) * _FACTORS[found[2]]
