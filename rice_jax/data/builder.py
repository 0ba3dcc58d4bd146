"""The TFDS builder `rice_image_dataset`: an archive's images as array_record, in three splits."""

import functools
import hashlib
import itertools
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import tensorflow_datasets as tfds

from rice_jax.data import images
from rice_jax.data.archive import Archive, Member, classes
from rice_jax.data.parallel import in_order, progress
from rice_jax.data.split import SPLITS, split
from rice_jax.errors import UserError

MOST_SKIPPED = 0.01  # of the images, before the archive is refused

_SHARD_BYTES = 64 << 20
_AHEAD = 256  # images read before they are written

CITATION = """@article{koklu2021classification,
  title={Classification of rice varieties with deep learning methods},
  author={Koklu, Murat and Cinar, Ilkay and Taspinar, Yavuz Selim},
  journal={Computers and Electronics in Agriculture},
  volume={187}, pages={106285}, year={2021}}"""


class RiceImageDataset(tfds.core.ShardBasedBuilder):
    """Images of an archive: their encoded bytes as they are where these are of plain RGB.

    Shard based, since TFDS's generator-based builder keeps a dataset in memory up to 1 GB and
    needs TensorFlow beyond. Each example is {'image': bytes, 'label': int, 'name': str}.
    """

    VERSION = tfds.core.Version("1.0.0")
    # TFDS would look beside the code for checksums of downloads, by a package it does not require.
    code_path = None

    def __init__(self, *, archive: Archive, seed: int, **kwargs: Any) -> None:
        """`archive` holds the images, `seed` decides the splits; `kwargs` are TFDS's."""
        self._archive = archive
        self._seed = seed
        self._skipped: list[dict[str, str]] = []
        self._contents: dict[str, int] = {}  # checksum of each image as it was found, by name
        self._made_of: list[tuple[str, ...]] = []  # of images that are kept as others
        self._kept: set[tuple[str, str]] = set()  # split and class
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=classes(self._archive)),
                "name": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="One folder of images for each class, split 80/10/10 by name and seed.",
            features=features,
            supervised_keys=("image", "label"),
            homepage="https://www.muratkoklu.com/datasets/",
            citation=CITATION,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        super()._download_and_prepare(*args, **kwargs)
        for wanted in itertools.product(SPLITS, classes(self._archive)):
            if wanted not in self._kept:
                raise UserError(f"the {wanted[0]} split has no usable image of class {wanted[1]!r}")
        self._metadata.update(fingerprint=fingerprint(self._contents), skipped=self._skipped)
        tell_made(self._made_of)

    @property
    def _metadata(self) -> dict[str, Any]:
        return cast(tfds.core.MetadataDict, self.info.metadata)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels."""
        return classes(self._archive)

    @property
    def fingerprint(self) -> str:
        """A digest of the names and contents of the images written."""
        return self._metadata["fingerprint"]

    @property
    def skipped(self) -> list[dict[str, str]]:
        """Name and reason of each image left out."""
        return self._metadata["skipped"]

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        del dl_manager  # nothing is downloaded
        return {
            name: [functools.partial(self._examples, name, shard) for shard in _shards(members)]
            for name, members in split(self._archive.members, self._seed).items()
        }

    def _examples(
        self, split_name: str, members: Sequence[Member]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The images of one shard that are as they should be; the others are noted."""
        labels = {label: index for index, label in enumerate(classes(self._archive))}
        read = in_order(functools.partial(checked, self._archive), members, ahead=_AHEAD)
        for member, image in zip(
            members, progress(read, len(members), f"preparing {split_name}"), strict=True
        ):
            if isinstance(image, UserError):
                self._skipped.append({"name": member.name, "reason": str(image)})
                refuse_too_many(self._skipped, len(self._archive.members))
                continue
            self._kept.add((split_name, member.label))
            self._contents[member.name] = image.checksum
            self._made_of.append(image.plain.made_of)
            example = {"image": image.plain.content, "label": labels[member.label]}
            yield member.name, example | {"name": member.name.encode()}


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


def checked(archive: Archive, member: Member) -> Usable | UserError:
    """The image, or what is wrong with it."""
    try:
        data = archive.read(member)
        return Usable(images.plain(data), zlib.crc32(data))
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


def _shards(members: Sequence[Member]) -> list[Sequence[Member]]:
    """The members in order, cut into parts of about 64 MiB that differ by one image at most."""
    count = min(len(members), 1 + sum(member.size for member in members) // _SHARD_BYTES)
    edges = [len(members) * part // count for part in range(count + 1)]
    return [members[start:end] for start, end in itertools.pairwise(edges)]
