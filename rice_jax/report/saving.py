"""Figures into files, one compressed while the next is drawn."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rice_jax.report import figures, style
from rice_jax.run import Run


def save(target: Run, pictures: Iterable[tuple[str, Figure]]) -> None:
    """Write each figure of (name of the file, figure) as PNG into the folder of `target`.

    Raises:
        UserError: a file cannot be written.
    """
    for name, content in compressed(pictures):
        target.write_bytes(name, content)


def compressed(pictures: Iterable[tuple[str, Figure]]) -> Iterator[tuple[str, bytes]]:
    """Each figure of (name of the file, figure) as (that name, PNG)."""
    with futures.ThreadPoolExecutor(1) as beside:
        before: tuple[str, futures.Future[bytes]] | None = None
        for name, figure in pictures:
            compress = style.drawn(figure)
            if before:
                yield before[0], before[1].result()
            before = name, beside.submit(compress)
        if before:
            yield before[0], before[1].result()


def feature_maps(
    maps: Mapping[str, Any],
    files: Mapping[str, str],
    marks: Mapping[str, Mapping[str, Any]],
    **told: Any,
) -> Iterator[tuple[str, Figure]]:
    """Pictures of each layer's maps (1, H, W, filters) of one image, as `save` takes them.

    Args:
        maps: by path of the layer.
        files: by path the name of the picture.
        marks: by path what `fates.marked` tells of the layer's filters.
        **told: title, image and synthetic, as `figures.feature_maps` has them.
    """
    whole = {path: np.asarray(values)[0] for path, values in maps.items()}  # JAX compiles a [0]
    for path, values in whole.items():
        yield files[path], figures.feature_maps(path, values, **told, **marks.get(path, {}))
