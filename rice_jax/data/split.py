"""Which images train, validate and test."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from rice_jax.data.archive import SPLITS, Member
from rice_jax.errors import UserError

_SMALLEST = len(SPLITS)  # images a class: one for each split


def split(members: Sequence[Member], seed: int) -> dict[str, list[Member]]:
    """Cut each class 80/10/10 at random, by name; what has a split of its own keeps it.

    A function of the names, their classes and the seed alone: the order of `members` and the
    machine do not matter. Of a class of n images, n / 10 rounded to the nearest (one at least) go
    to validation and as many to test. A split is shuffled: any prefix of it is a fair sample.

    Raises UserError for a class of fewer than three images, or one that is missing in a split.
    """
    ranked = sorted(members, key=lambda member: _rank(member.name, seed))
    if any(member.split for member in members):
        return _own(ranked)
    by_class: defaultdict[str, list[Member]] = defaultdict(list)
    for member in ranked:
        by_class[member.label].append(member)
    where = {}
    for label, of_class in by_class.items():
        if len(of_class) < _SMALLEST:
            raise UserError(
                f"class {label!r} has {len(of_class)} of the {_SMALLEST} images needed at least: "
                "one each for training, validation and test"
            )
        held_out = max(1, (len(of_class) + 5) // 10)
        for index, member in enumerate(of_class):
            where[member.name] = SPLITS[max(0, 2 - index // held_out)]
    return {name: [m for m in ranked if where[m.name] == name] for name in SPLITS}


def _own(members: Sequence[Member]) -> dict[str, list[Member]]:
    """The splits that the members name, in the order given."""
    parts = {name: [member for member in members if member.split == name] for name in SPLITS}
    for name, part in parts.items():
        if missing := {member.label for member in members} - {member.label for member in part}:
            raise UserError(f"the {name} folder has no image of class {min(missing)!r}")
    return parts


def _rank(name: str, seed: int) -> bytes:
    """A random number that belongs to the name; no two names share one."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
