"""Figures into files, one compressed while the next is drawn."""

from collections.abc import Iterable, Mapping
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
    with futures.ThreadPoolExecutor(1) as beside:
        before: futures.Future[None] | None = None
        for name, figure in pictures:
            compress = style.drawn(figure)
            if before:
                before.result()
            before = beside.submit(_write, target, name, compress)
        if before:
            before.result()


def save_feature_maps(
    target: Run,
    maps: Mapping[str, Any],
    files: Mapping[str, str],
    marks: Mapping[str, Mapping[str, Any]],
    **told: Any,
) -> None:
    """Write a picture of each layer's maps (1, H, W, filters) of one image.

    Args:
        target: whose folder they go to.
        maps: by path of the layer.
        files: by path the name of the picture.
        marks: by path what `fates.marked` tells of the layer's filters.
        **told: title, image and synthetic, as `figures.feature_maps` has them.

    Raises:
        UserError: a file cannot be written.
    """
    whole = {path: np.asarray(values)[0] for path, values in maps.items()}  # JAX compiles a [0]
    save(
        target,
        (
            (files[path], figures.feature_maps(path, values, **told, **marks.get(path, {})))
            for path, values in whole.items()
        ),
    )


def _write(target: Run, name: str, compress: style.Compress) -> None:
    target.write_bytes(name, compress())
