"""Images to be evaluated that are training images too, byte for byte."""

import sys
from collections.abc import Iterator

from rice_jax.data.copies import digest, named
from rice_jax.data.parallel import progress
from rice_jax.data.sources import Source


def count_learned(source: Source, training: Source, where: str) -> int:
    """How many images of a source are among the training images of a run too.

    Where any are it is said on standard error, with some of their names.

    Args:
        source: the images to be evaluated.
        training: the run's.
        where: what to call the former.
    """
    known = dict(progress(_contents(training), len(training), "reading training images"))
    pairs = [(name, known[content]) for content, name in _contents(source) if content in known]
    if pairs:
        print(
            f"{where}: {len(pairs):,} of {len(source):,} images are training images of the run "
            f"too, byte for byte ({named(pairs)}): it has seen what it names",
            file=sys.stderr,
        )
    return len(pairs)


def _contents(source: Source) -> Iterator[tuple[bytes, str]]:
    """Of each image a digest of its bytes, and its name."""
    for index in range(len(source)):
        record = source[index]
        yield digest(record["image"]), record["name"]
