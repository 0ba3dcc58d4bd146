"""Encoded images by index: a split of a prepared dataset, or the files of a folder."""

import functools
import operator
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from etils import epath

from rice_jax.data.archive import Archive
from rice_jax.data.decoded import Decoded, open_decoded
from rice_jax.data.images import decode_into, plain
from rice_jax.data.layout import Member
from rice_jax.data.parallel import AT_A_TIME, in_order, progress
from rice_jax.data.usable import checked, fingerprint, refuse_too_many, tell_made
from rice_jax.errors import UserError, reason

if TYPE_CHECKING:
    from rice_jax.data.builder import RiceImageDataset

_AHEAD = 64  # images checked ahead


class Source(Protocol):
    """Encoded images by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """{'image': encoded bytes, 'label': int, 'name': 'class folder/file'}.

        IndexError where there are not so many, so that it can be iterated.
        """
        ...


def decode_record(source: Source, whole_size: int, index: int, pixels: np.ndarray) -> int:
    """Decode image `index` into uint8 (H, W, 3) and return its label; UserError names the image.

    `whole_size` is as `decode_into` takes it.
    """
    record = source[index]
    try:
        decode_into(record["image"], pixels, whole_size)
    except UserError as error:
        raise UserError(f"{record['name']}: {error}") from error
    return record["label"]


class Records:
    """A split of a prepared dataset."""

    def __init__(self, builder: "RiceImageDataset", split: str, keep_decoded: bool) -> None:
        import tensorflow_datasets as tfds

        undecoded = {"image": tfds.decode.SkipDecoding()}
        # TFDS's logging decorator hides the signature from type checkers.
        self._records = builder.as_data_source(split, decoders=undecoded)
        self._place = builder.data_dir
        self._split = split
        self._classes = len(builder.classes)
        self._keep_decoded = keep_decoded
        self._decoded: dict[tuple[int, int], Decoded | None] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record; UserError where the prepared dataset is damaged."""
        place = range(len(self))[operator.index(index)]  # else array_record takes it for damage
        try:
            record = self._records[place]
        except Exception as error:  # array_record raises its own kinds
            raise UserError(
                f"the prepared images in {self._place} are damaged ({reason(error)}): "
                "delete that folder and start again"
            ) from error
        return {
            "image": record["image"],
            "label": int(record["label"]),
            "name": record["name"].decode(),
        }

    def decoded(self, image_size: int, whole_size: int = 0) -> Decoded | None:
        """The split's pixels at this size, decoded on first use; None where they are not kept.

        With a `whole_size` they are averages of images of that size.
        """
        sizes = (image_size, whole_size)
        if self._keep_decoded and sizes not in self._decoded:
            self._decoded[sizes] = open_decoded(
                epath.Path(self._place).parent.parent,
                f"{self._split}-{whole_size}" if whole_size else self._split,
                len(self),
                image_size,
                self._classes,
                functools.partial(decode_record, self, whole_size),
            )
        return self._decoded.get(sizes)


class Files:
    """The usable images of an archive, in order of their names."""

    def __init__(self, archive: Archive, class_names: Sequence[str], where: str) -> None:
        self._archive = archive
        self._labels = {name: index for index, name in enumerate(class_names)}
        members = sorted(archive.members)
        check = functools.partial(checked, archive)
        read = in_order(check, members, ahead=_AHEAD, at_a_time=AT_A_TIME)
        self._members: list[Member] = []
        checksums: dict[str, int] = {}
        made_of: dict[str, tuple[str, ...]] = {}
        self.skipped: list[dict[str, str]] = []
        for member, image in zip(
            members, progress(read, len(members), f"checking {where}"), strict=True
        ):
            if isinstance(image, UserError):
                self.skipped.append({"name": member.name, "reason": str(image)})
                refuse_too_many(self.skipped, len(members))
            else:
                self._members.append(member)
                checksums[member.name] = image.checksum
                made_of[member.name] = image.plain.made_of
        self.fingerprint = fingerprint(checksums)
        """Of the images' names and contents, wherever they lie."""
        self._others = {name for name, kinds in made_of.items() if kinds}
        tell_made(made_of.values())
        tell_skipped(self.skipped, len(members), where)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> dict[str, Any]:
        member = self._members[index]
        try:
            image = self._archive.read(member)
            content = plain(image).content if member.name in self._others else image
        except UserError as error:  # it was removed or written over meanwhile
            raise UserError(f"{member.name}: {error}") from error
        return {"image": content, "label": self._labels[member.label], "name": member.name}


def tell_skipped(skipped: Sequence[Mapping[str, str]], total: int, where: str) -> None:
    """Name on standard error the images that were left out."""
    if skipped:
        named = "; ".join(f"{item['name']}: {item['reason']}" for item in skipped)
        print(f"{where}: left out {len(skipped)} of {total} images: {named}", file=sys.stderr)
