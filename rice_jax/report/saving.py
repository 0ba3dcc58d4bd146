"""Figures into files, one compressed while the next is drawn."""

from collections.abc import Iterable
from concurrent import futures

from matplotlib.figure import Figure

from rice_jax.report import style
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


def _write(target: Run, name: str, compress: style.Compress) -> None:
    target.write_bytes(name, compress())
