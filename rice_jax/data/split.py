"""Which images train, validate and test."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from rice_jax.data.layout import SPLITS, Member
from rice_jax.errors import UserError


def split(members: Sequence[Member], seed: int) -> dict[str, list[Member]]:
    """Cut each class 80/10/10 at random, by name; what has a split of its own keeps it.

    A function of the names, their classes and the seed alone: the order of `members` and the
    machine do not matter. Of a class of n images, n / 10 rounded to the nearest (one at least) go
    to validation and as many to test; where the members name one of these and not the other, that
    is cut out of train by the same rule. A split is shuffled: any prefix of it is a fair sample.

    Raises UserError for a class of too few images, or one that is missing in a split.
    """
    ranked = sorted(members, key=lambda member: _rank(member.name, seed))
    own = {member.split for member in members if member.split}
    to_cut = [name for name in reversed(SPLITS[1:]) if name not in own]
    where = {member.name: member.split for member in members}
    by_class: defaultdict[str, list[Member]] = defaultdict(list)
    for member in ranked:
        if member.split in ("", SPLITS[0]):
            by_class[member.label].append(member)
    for label, of_class in by_class.items():
        if len(of_class) <= len(to_cut):
            raise UserError(
                f"class {label!r} has {len(of_class)} of the {len(to_cut) + 1} images needed at "
                f"least: one each for {_and(['training', *reversed(to_cut)])}"
            )
        held_out = max(1, (len(of_class) + 5) // 10)
        for index, member in enumerate(of_class):
            where[member.name] = [*to_cut, SPLITS[0]][min(index // held_out, len(to_cut))]
    parts = {name: [m for m in ranked if where[m.name] == name] for name in SPLITS}
    for name in own:
        if missing := {m.label for m in members} - {m.label for m in parts[name]}:
            raise UserError(f"the {name} folder has no image of class {min(missing)!r}")
    return parts


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _rank(name: str, seed: int) -> bytes:
    """A random number that belongs to the name; no two names share one."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
