"""Images to be evaluated that are training images too, byte for byte."""

import sys
from collections.abc import Iterable, Iterator

from rice_jax.data.copies import digest, named
from rice_jax.data.loader import spread
from rice_jax.data.parallel import progress
from rice_jax.data.sources import Source


def count_learned(source: Source, training: Source, where: str, *, limit: int = 0) -> int:
    """How many images of a source are among the training images of a run too.

    Where any are it is said on standard error, with some of their names.

    Args:
        source: the images to be evaluated.
        training: the run's.
        where: what to call the former.
        limit: of the training images that are learned from, as `batches` takes it.
    """
    places = spread(len(training), limit).tolist()
    read = progress(_contents(training, places), len(places), "reading training images")
    known, every = dict(read), _contents(source, range(len(source)))
    pairs = [(name, known[content]) for content, name in every if content in known]
    if pairs:
        print(
            f"{where}: {len(pairs):,} of {len(source):,} images "
            f"{'is a training image' if len(pairs) == 1 else 'are training images'} of the run "
            f"too, byte for byte ({named(pairs)}): it has seen what it names",
            file=sys.stderr,
        )
    return len(pairs)


def _contents(source: Source, places: Iterable[int]) -> Iterator[tuple[bytes, str]]:
    """Of each image at these places a digest of its bytes, and its name."""
    for index in places:
        record = source[index]
        yield digest(record["image"]), record["name"]
