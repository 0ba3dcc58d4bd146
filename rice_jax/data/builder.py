"""The TFDS builder `rice_image_dataset`: an archive's images as array_record, in three splits."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import tensorflow_datasets as tfds

from rice_jax.data import copies
from rice_jax.data.archive import Archive, classes
from rice_jax.data.layout import Member
from rice_jax.data.parallel import AT_A_TIME, in_order, progress
from rice_jax.data.split import SPLITS, split
from rice_jax.data.usable import checked, fingerprint, refuse_too_many, tell_made
from rice_jax.errors import UserError
from rice_jax.records import Copies, made

_SHARD_BYTES = 64 << 20
_AHEAD = 256  # images read before they are written

CITATION = """@article{koklu2021classification,
  title={Classification of rice varieties with deep learning methods},
  author={Koklu, Murat and Cinar, Ilkay and Taspinar, Yavuz Selim},
  journal={Computers and Electronics in Agriculture},
  volume={187}, pages={106285}, year={2021}}"""


class _OfNoBucket(tfds.core.DatasetInfo):
    """What is known of a dataset that nobody has published."""

    def initialize_from_bucket(self) -> None:
        """Ask nothing of TFDS's bucket, for which it makes a temporary folder that stays."""


class RiceImageDataset(tfds.core.ShardBasedBuilder):
    """Images of an archive: their encoded bytes as they are where these are of plain RGB.

    Shard based, since TFDS's generator-based builder keeps a dataset in memory up to 1 GB and
    needs TensorFlow beyond. Each example is {'image': bytes, 'label': int, 'name': str}.
    """

    # Raised whenever what is kept of an image changes: older prepared sets are then made anew.
    VERSION = tfds.core.Version("1.2.0")
    # TFDS would look beside the code for checksums of downloads, by a package it does not require.
    code_path = None

    def __init__(self, *, archive: Archive, seed: int, **kwargs: Any) -> None:
        """`archive` holds the images, `seed` decides the splits; `kwargs` are TFDS's."""
        self._archive = archive
        self._seed = seed
        self._skipped: list[dict[str, str]] = []
        self._contents: dict[str, int] = {}  # checksum of each image as it was found, by name
        self._made_of: list[tuple[str, ...]] = []  # of images that are kept as others
        # Of each content that there is, by its digest.
        self._kept: collections.defaultdict[bytes, list[copies.Kept]] = collections.defaultdict(
            list
        )
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=classes(self._archive)),
                "name": tfds.features.Text(),
            }
        )
        return _OfNoBucket(
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
        have = {(image.split, image.label) for of_one in self._kept.values() for image in of_one}
        for wanted in itertools.product(SPLITS, classes(self._archive)):
            if wanted not in have:
                raise UserError(f"the {wanted[0]} split has no usable image of class {wanted[1]!r}")
        self._metadata.update(
            fingerprint=fingerprint(self._contents),
            skipped=self._skipped,
            copies=dataclasses.asdict(copies.count(self._kept.values())),
        )
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

    @property
    def copies(self) -> Copies:
        """The images that are there more than once."""
        return made(Copies, self._metadata["copies"])

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        del dl_manager  # nothing is downloaded
        return {
            name: [
                functools.partial(self._examples, name, members, start, end)
                for start, end in itertools.pairwise(_edges(members))
            ]
            for name, members in split(self._archive.members, self._seed).items()
        }

    def _examples(
        self, split_name: str, members: Sequence[Member], start: int, end: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The images of one shard that are as they should be; the others are noted."""
        labels = {label: index for index, label in enumerate(classes(self._archive))}
        shard = members[start:end]
        check = functools.partial(checked, self._archive)
        read = in_order(check, shard, ahead=_AHEAD, at_a_time=AT_A_TIME)
        told = progress(read, len(members), f"preparing {split_name}", done=start)
        for member, image in zip(shard, told, strict=True):
            if isinstance(image, UserError):
                self._skipped.append({"name": member.name, "reason": str(image)})
                refuse_too_many(self._skipped, len(self._archive.members))
                continue
            kept = copies.Kept(split_name, member.label, member.name)
            self._kept[image.digest].append(kept)
            self._contents[member.name] = image.checksum
            self._made_of.append(image.plain.made_of)
            example = {"image": image.plain.content, "label": labels[member.label]}
            yield member.name, example | {"name": member.name.encode()}


def _edges(members: Sequence[Member]) -> list[int]:
    """Where shards of about 64 MiB begin, which differ by one image at most, and the last ends."""
    count = min(len(members), 1 + sum(member.size for member in members) // _SHARD_BYTES)
    return [len(members) * part // count for part in range(count + 1)]
