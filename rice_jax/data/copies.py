"""Images that a data set holds more than once, byte for byte."""

import hashlib
import sys
from collections import Counter
from collections.abc import Collection, Iterable

from rice_jax.data.split import SPLITS
from rice_jax.records import Copies

Place = tuple[str, str]
"""The split and the class of an image."""


def digest(content: bytes) -> bytes:
    """The same for two images that are the same byte for byte, another for any other."""
    return hashlib.blake2b(content, digest_size=16).digest()


def count(places: Iterable[Collection[Place]]) -> Copies:
    """Count them, from the places of each content that there is."""
    in_training: Counter[str] = Counter()
    in_two_classes = 0
    for of_one in places:
        splits, labels = zip(*of_one, strict=True)
        if SPLITS[0] in splits:
            in_training.update(splits)
        if len(set(labels)) > 1:
            in_two_classes += len(of_one)
    return Copies(
        in_training={split: in_training[split] for split in SPLITS[1:]},
        in_two_classes=in_two_classes,
    )


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
    """Say it on standard error."""
    if said := told(copies):
        print(f"{where}: {said}", file=sys.stderr)
