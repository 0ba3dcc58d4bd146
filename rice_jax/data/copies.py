"""Images that a data set holds more than once, byte for byte."""

import hashlib
import itertools
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from rice_jax.data.split import SPLITS
from rice_jax.records import Copies

_MOST_PAIRS = 100  # that are named
_SHOWN = 3  # of them, on a terminal


class Kept(NamedTuple):
    """An image that is kept."""

    split: str
    label: str
    name: str


def digest(content: bytes) -> bytes:
    """The same for two images that are the same byte for byte, another for any other."""
    return hashlib.blake2b(content, digest_size=16).digest()


def count(images: Collection[Sequence[Kept]]) -> Copies:
    """Count them, from the images of each content that there is."""
    learned = [pair for of_one in images for pair in _learned(of_one)]
    mixed = [of_one for of_one in images if len({image.label for image in of_one}) > 1]
    held_out = Counter(image.split for image, _ in learned)
    pairs = itertools.islice([*map(_of_two_classes, mixed), *learned], _MOST_PAIRS)
    return Copies(
        in_training={split: held_out[split] for split in SPLITS[1:]},
        in_two_classes=sum(map(len, mixed)),
        pairs=tuple((one.name, other.name) for one, other in pairs),
    )


def _learned(of_one: Sequence[Kept]) -> list[tuple[Kept, Kept]]:
    """Those of one content that are held out, each with one that is for training."""
    training = [image for image in of_one if image.split == SPLITS[0]]
    return [(image, training[0]) for image in of_one if training and image.split != SPLITS[0]]


def _of_two_classes(of_one: Sequence[Kept]) -> tuple[Kept, Kept]:
    first = of_one[0]
    return first, next(image for image in of_one if image.label != first.label)


def told(copies: Copies) -> str:
    """What there is to say of them; empty where nothing is."""
    held_out = [
        f"{number:,} of the {split} images"
        for split, number in copies.in_training.items()
        if number
    ]
    said = []
    if held_out:
        said.append(f"the same as training images, byte for byte: {', '.join(held_out)}")
    if copies.in_two_classes:
        said.append(f"the same in two classes, byte for byte: {copies.in_two_classes:,} images")
    return "; ".join(said)


def tell(copies: Copies, where: str) -> None:
    """Say it on standard error, and which some of them are, of both kinds."""
    if not (said := told(copies)):
        return
    pairs = named(copies.pairs, " in config.json")
    print(f"{where}: {said}. Such are {pairs}", file=sys.stderr)


def named(pairs: Sequence[tuple[str, str]], where: str = "") -> str:
    """The first pairs of names, and how many more there are, and `where`."""
    shown = [" and ".join(pair) for pair in pairs[:_SHOWN]]
    more = len(pairs) - len(shown)
    rest = [f"{more:,} more {'pair' if more == 1 else 'pairs'}{where}"] if more else []
    return "; ".join(shown + rest)
