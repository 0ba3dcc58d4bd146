"""Which images of an archive can be used, what they are made of, and what is said of the others."""

import hashlib
import itertools
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rice_jax.data import copies, images
from rice_jax.data.archive import Archive
from rice_jax.data.layout import Member
from rice_jax.errors import UserError

MOST_SKIPPED = 0.01  # of the images, before the archive is refused


def fingerprint(checksums: Mapping[str, int]) -> str:
    """A digest of images' names and CRC-32 checksums."""
    digest = hashlib.sha256()
    for name, checksum in sorted(checksums.items()):
        digest.update(f"{name}\0{checksum:08x}\n".encode())
    return digest.hexdigest()[:16]


class Usable(NamedTuple):
    """An image that can be used."""

    plain: images.Plain
    checksum: int
    """CRC-32 of its bytes as they were found."""
    digest: bytes
    """Of the same bytes, as `copies.digest`."""


def checked(archive: Archive, member: Member) -> Usable | UserError:
    """The image, or what is wrong with it."""
    try:
        data = archive.read(member)
        return Usable(images.plain(data), zlib.crc32(data), copies.digest(data))
    except UserError as error:
        return error


def tell_made(made_of: Iterable[Sequence[str]]) -> None:
    """Say on standard error how many images were something else than plain RGB, and what."""
    others = [kinds for kinds in made_of if kinds]
    if others:
        what = "1 image was" if len(others) == 1 else f"{len(others):,} images were"
        kinds = images.told(itertools.chain(*others))
        print(f"{what} made plain 8-bit RGB: {kinds}", file=sys.stderr)


def refuse_too_many(skipped: Sequence[Mapping[str, str]], total: int) -> None:
    """UserError when more than 1% of `total` images were skipped."""
    if len(skipped) > MOST_SKIPPED * total:
        named = ", ".join(f"{item['name']} ({item['reason']})" for item in skipped[:5])
        raise UserError(
            f"more than {MOST_SKIPPED:.0%} of {total} images cannot be used, such as {named}: "
            "mend or remove them"
        )
