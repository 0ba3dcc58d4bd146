"""Images by split, ready to be read at random: photographs, or grains drawn in their stead."""

import dataclasses
import functools
import os
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rice_jax import files, zoo
from rice_jax.data.archive import Archive, classes, open_archive
from rice_jax.data.cache import prepare
from rice_jax.data.copies import tell
from rice_jax.data.grains import Grains
from rice_jax.data.images import size
from rice_jax.data.sources import Files, Records, Source, tell_skipped
from rice_jax.data.split import SPLITS
from rice_jax.errors import UserError
from rice_jax.records import Copies

VARIABLE = "RICE_IMAGE_DATASET"
"""Of the environment: where the images are if no configuration says so."""
DOWNLOAD = "kaggle datasets download -d muratkokludataset/rice-image-dataset"
"""The command that fetches the 75,000 photographs."""
SAMPLE = "sample"
"""Path of the photographs that come with the package."""
SYNTHETIC = "synthetic"
"""Path of the package's drawn grains."""
_MEASURED = 50  # images whose size is read


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What `load` found.

    `fingerprint` is of the images' names and contents, and the same whether they came from a zip
    or a folder, on any machine. `skipped` names the images that could not be used, with the
    reason of each; `copies` counts those that are there more than once.
    """

    name: str
    synthetic: bool
    classes: tuple[str, ...]
    splits: Mapping[str, Source]
    fingerprint: str
    skipped: Sequence[Mapping[str, str]]
    copies: Copies

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the images as they come, in pixels: medians of training images."""
        source = self.splits["train"]
        number = min(_MEASURED, len(source))
        places = (place * len(source) // number for place in range(number))
        heights, widths = zip(*(size(source[place]["image"]) for place in places), strict=True)
        return statistics.median_low(heights), statistics.median_low(widths)


def first_of_each(
    dataset: Dataset, split: str, each: int, most_classes: int
) -> dict[int, list[tuple[int, dict[str, Any]]]]:
    """By label the first `each` images of a class in a split: index and record.

    Of more than `most_classes` some are looked for, evenly spread; where there are fewer images of
    one it has fewer.
    """
    step, source = -(-len(dataset.classes) // most_classes), dataset.splits[split]
    found: dict[int, list[tuple[int, dict[str, Any]]]] = {
        label: [] for label in range(0, len(dataset.classes), step)
    }
    for index in range(len(source)):
        record = source[index]
        images = found.get(record["label"])
        if images is not None and len(images) < each:
            images.append((index, record))
        if all(len(images) == each for images in found.values()):
            break
    return found


def load(
    path: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str],
    *,
    seed: int = 0,
    synthetic_per_class: int = 200,
    keep_decoded: bool = True,
) -> Dataset:
    """Prepare the images once, in `cache_dir`, and open their three splits.

    Args:
      path: the Kaggle zip, its unpacked folder or any folder of class folders; 'sample' for the
        photographs that come with the package, 'synthetic' for drawn grains, with a warning.
        Empty: as `chosen` says.
      cache_dir: where prepared datasets are kept.
      seed: decides the splits, and the grains where they are drawn.
      synthetic_per_class: grains of each class, where they are drawn.
      keep_decoded: decode each split once and keep its pixels in the cache, where that pays.

    Raises UserError where `path` is no such thing, as `chosen`, where there is one class only or
    one of too few images for three splits, more than 1% of the images cannot be used, or the cache
    cannot be written.
    """
    path = chosen(path)
    archive, name = _opened(path, synthetic_per_class, seed)
    if len(found := classes(archive)) < 2:
        raise UserError(f"{path} has one class only, {found[0]!r}: at least two are needed")
    if path != SAMPLE:
        _tell_own_split({member.split for member in archive.members}, name)
    builder = prepare(archive, cache_dir, seed)
    tell_skipped(builder.skipped, len(archive.members), name)
    tell(builder.copies, name)
    return Dataset(
        name=name,
        synthetic=path == SYNTHETIC,
        classes=builder.classes,
        splits={split: Records(builder, split, keep_decoded) for split in SPLITS},
        fingerprint=builder.fingerprint,
        skipped=builder.skipped,
        copies=builder.copies,
    )


def chosen(path: str | os.PathLike[str]) -> str:
    """`path`; where it is empty what RICE_IMAGE_DATASET says, and without that the sample.

    Raises UserError where RICE_IMAGE_DATASET names what is not there.
    """
    if given := os.fspath(path):
        return given
    path = os.environ.get(VARIABLE, "")
    if path and not files.reached(path).exists():
        raise UserError(f"{VARIABLE}={path}: that does not exist")
    return path or SAMPLE


def _opened(path: str, per_class: int, seed: int) -> tuple[Archive, str]:
    """The images under `path` and what to call them."""
    if path == SYNTHETIC:
        return _grains(per_class, seed), "synthetic grains"
    if path == SAMPLE:
        return open_archive(zoo.SAMPLE), "sample of Rice_Image_Dataset"
    whole = path.rstrip("/") if files.is_remote(path) else os.path.abspath(os.path.expanduser(path))
    return open_archive(path), os.path.basename(whole) or path


def _grains(per_class: int, seed: int) -> Grains:
    print(
        f"WARNING: SYNTHETIC grains stand in for real rice, {per_class} of each class: no figure "
        f"says anything about rice. For photographs: --config.data.path={SAMPLE}, or all of them: "
        f"{DOWNLOAD}, then --config.data.path=rice-image-dataset.zip",
        file=sys.stderr,
    )
    return Grains(per_class, seed)


def _tell_own_split(named: Collection[str], name: str) -> None:
    """Say on standard error that images are split already, and what is cut out of train."""
    if "train" in named:
        cut = [split for split in SPLITS if split not in named]
        rest = f"; {' and '.join(cut)} is cut out of train" if cut else ""
        print(f"{name}: split as its folders are{rest}", file=sys.stderr)


def folder(path: str | os.PathLike[str], class_names: Sequence[str]) -> Files:
    """All images of a folder (or zip) of class folders, to be evaluated as they are.

    Class folders are matched with `class_names` by name; there may be fewer of them. Every image
    is decoded once now; those that cannot be used are named on standard error and left out. Of a
    folder with a split of its own all parts are evaluated together, which is said there too.

    Raises UserError for a class that is unknown, and where more than 1% of the images cannot be
    used.
    """
    archive = open_archive(path, "--config.eval.path")
    found = classes(archive)
    if unknown := sorted(set(found) - set(class_names)):
        raise UserError(
            f"{os.fspath(path)} has class folders that the net does not know: "
            f"{', '.join(unknown)}; it knows {', '.join(class_names)}"
        )
    if parts := {member.split for member in archive.members} - {""}:
        print(
            f"{os.fspath(path)}: {', '.join(split for split in SPLITS if split in parts)} are "
            "evaluated together; the folder of one of them is evaluated by itself",
            file=sys.stderr,
        )
    return Files(archive, class_names, os.fspath(path))
