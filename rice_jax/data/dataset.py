"""Images by split, ready to be read at random: real ones, or grains drawn in their stead."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow_datasets as tfds

from rice_jax.data.archive import Archive, Member, classes, open_archive
from rice_jax.data.builder import RiceImageDataset, checked, refuse_too_many
from rice_jax.data.cache import prepare
from rice_jax.data.grains import Grains
from rice_jax.data.parallel import in_order, progress
from rice_jax.data.split import SPLITS
from rice_jax.errors import UserError, reason

VARIABLE = "RICE_IMAGE_DATASET"
DOWNLOAD = "kaggle datasets download -d muratkokludataset/rice-image-dataset"

_AHEAD = 64  # images checked ahead


class Source(Protocol):
    """Encoded images by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """{'image': encoded bytes, 'label': int, 'name': 'class folder/file'}."""
        ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What `load` found.

    `fingerprint` is of the images' names and contents, and the same whether they came from a zip
    or a folder, on any machine. `skipped` names the images that could not be used, with the
    reason of each.
    """

    name: str
    synthetic: bool
    classes: tuple[str, ...]
    splits: Mapping[str, Source]
    fingerprint: str
    skipped: Sequence[Mapping[str, str]]


def load(
    path: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str],
    *,
    image_size: int = 224,
    seed: int = 0,
    synthetic_per_class: int = 200,
) -> Dataset:
    """Prepare the images once, in `cache_dir`, and open their three splits.

    Args:
      path: the Kaggle zip, its unpacked folder or any folder of class folders. Empty: what
        RICE_IMAGE_DATASET says, and without that synthetic grains, with a warning.
      cache_dir: where prepared datasets are kept.
      seed: decides the splits, and the grains where they are drawn.
      synthetic_per_class: grains of each class, where they are drawn.

    Raises UserError where `path` is no such thing, more than 1% of the images cannot be used, or
    the cache cannot be written.
    """
    path = os.fspath(path) or os.environ.get(VARIABLE, "")
    if path:
        archive, name = open_archive(path), os.path.basename(path.rstrip("/"))
    else:
        archive, name = Grains(synthetic_per_class, seed), "synthetic grains"
        print(
            f"WARNING: SYNTHETIC grains stand in for real rice, {synthetic_per_class} of each "
            f"class: no figure says anything about rice. For real images: {DOWNLOAD}, then "
            f"--config.data.path=rice-image-dataset.zip or {VARIABLE}=rice-image-dataset.zip",
            file=sys.stderr,
        )
    builder = prepare(archive, cache_dir, seed)
    _tell_skipped(builder.skipped, len(archive.members), name)
    return Dataset(
        name=name,
        synthetic=not path,
        classes=builder.classes,
        splits={split: Records(builder, split) for split in SPLITS},
        fingerprint=builder.fingerprint,
        skipped=builder.skipped,
    )


def folder(path: str | os.PathLike[str], class_names: Sequence[str]) -> "Files":
    """All images of a folder (or zip) of class folders, to be evaluated as they are.

    Class folders are matched with `class_names` by name. Every image is decoded once now; those
    that cannot be used are named on standard error and left out.

    Raises UserError for a class that is missing or unknown, and where more than 1% of the images
    cannot be used.
    """
    archive = open_archive(path)
    found = classes(archive)
    if unknown := sorted(set(found) - set(class_names)):
        raise UserError(
            f"{os.fspath(path)} has class folders that the net does not know: "
            f"{', '.join(unknown)}; it knows {', '.join(class_names)}"
        )
    if missing := sorted(set(class_names) - set(found)):
        raise UserError(f"{os.fspath(path)} has no class folder {', '.join(missing)}")
    return Files(archive, class_names, os.fspath(path))


class Records:
    """A split of a prepared dataset."""

    def __init__(self, builder: RiceImageDataset, split: str) -> None:
        self._records = builder.as_data_source(
            split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        self._place = builder.data_dir

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One record; UserError where the prepared dataset is damaged."""
        try:
            record = self._records[index]
        except IndexError:
            raise
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


class Files:
    """The usable images of an archive, in order of their names."""

    def __init__(self, archive: Archive, class_names: Sequence[str], where: str) -> None:
        self._archive = archive
        self._labels = {name: index for index, name in enumerate(class_names)}
        members = sorted(archive.members)
        read = in_order(
            lambda index: checked(archive, members[index]), range(len(members)), ahead=_AHEAD
        )
        self._members: list[Member] = []
        self.skipped: list[dict[str, str]] = []
        for member, image in zip(
            members, progress(read, len(members), f"checking {where}"), strict=True
        ):
            if isinstance(image, UserError):
                self.skipped.append({"name": member.name, "reason": str(image)})
                refuse_too_many(self.skipped, len(members))
            else:
                self._members.append(member)
        _tell_skipped(self.skipped, len(members), where)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> dict[str, Any]:
        member = self._members[index]
        return {
            "image": self._archive.read(member),
            "label": self._labels[member.label],
            "name": member.name,
        }


def _tell_skipped(skipped: Sequence[Mapping[str, str]], total: int, where: str) -> None:
    if skipped:
        named = "; ".join(f"{item['name']}: {item['reason']}" for item in skipped)
        print(f"{where}: left out {len(skipped)} of {total} images: {named}", file=sys.stderr)
