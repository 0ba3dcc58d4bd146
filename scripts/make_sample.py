"""Make the sample of photographs that the package carries, out of the whole Kaggle data set.

  python scripts/make_sample.py --data=rice-image-dataset.zip

From the test split that seed 0 cuts it takes the first 200 photographs of each class, their bytes
as they are: 100 for training, 40 for validation, 60 for the test. Photographs that the data set
holds twice are left out, so that no net of the zoo was trained on any. The same data set gives the
same file, byte for byte.
"""

import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator

from absl import app, flags

from rice_jax import zoo
from rice_jax.data.archive import Archive, open_archive
from rice_jax.data.copies import digest
from rice_jax.data.layout import Member
from rice_jax.data.split import split

EACH = {"test": 60, "validation": 40, "train": 100}
"""Photographs of each class in the sample's own splits."""
SPLIT_SEED = 0
_LICENCE = zoo.SAMPLE.with_name("LICENCE.txt")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can tell

_DATA = flags.DEFINE_string("data", None, "The Kaggle zip or its unpacked folder.", required=True)
_OUT = flags.DEFINE_string("out", str(zoo.SAMPLE), "The zip to write.")


def chosen(archive: Archive) -> Iterator[tuple[str, Member]]:
    """Name in the sample and member of the whole set, in the order of the names."""
    digests = {member.name: digest(archive.read(member)) for member in archive.members}
    held = Counter(digests.values())
    by_class: defaultdict[str, list[Member]] = defaultdict(list)
    for member in split(archive.members, SPLIT_SEED)["test"]:
        if held[digests[member.name]] == 1:
            by_class[member.label].append(member)
    places = [name for name, number in EACH.items() for _ in range(number)]
    return iter(
        sorted(
            (f"{place}/{member.name}", member)
            for members in by_class.values()
            for place, member in zip(places, members, strict=False)
        )
    )


def main(argv: list[str]) -> None:
    """Write the sample and say how large it is."""
    del argv
    archive = open_archive(_DATA.value)
    with zipfile.ZipFile(_OUT.value, "w", zipfile.ZIP_STORED) as sample:
        sample.writestr(zipfile.ZipInfo(_LICENCE.name, _DATE), _LICENCE.read_bytes())
        for name, member in chosen(archive):
            sample.writestr(zipfile.ZipInfo(name, _DATE), archive.read(member))
        size = sum(info.file_size for info in sample.infolist())
        print(f"{_OUT.value}: {len(sample.infolist()) - 1} photographs, {size:,} bytes of files")


if __name__ == "__main__":
    app.run(main)
