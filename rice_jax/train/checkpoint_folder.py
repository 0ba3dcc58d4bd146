"""The folder that a run's checkpoints are in: what may stand there, and what goes."""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence

import jax
from etils import epath

from rice_jax.errors import UserError, reason

_OURS = {"_CHECKPOINT_METADATA", "meta", "state"}
"""What a checkpoint's folder holds, in whole or in part."""
_MOST = 100
"""Files and folders among the checkpoints: a run leaves the newest two, the best of each, and what
is damaged until the next is whole. Orbax takes milliseconds for each."""
_PATIENCE, _PAUSE = 4.0, 0.05
"""Seconds that a failed save's last files are waited for, and between two looks."""


def clear(folder: epath.Path) -> None:
    """Remove all checkpoints in a folder, damaged ones too.

    Without Orbax, which would wait for the other processes of a job.

    Raises:
        UserError: that fails, or the folder has another program's, or too many.
    """
    refuse_many(folder)
    if not folder.exists():
        return
    found = [child for child in folder.iterdir() if child.name.isdecimal()]
    refuse_others(found)
    with telling(folder):
        clear_unfinished(folder)
        for child in sorted(found, key=lambda child: -int(child.name)):
            child.rmtree()


@contextlib.contextmanager
def telling(folder: epath.Path) -> Iterator[None]:
    """UserError in one line for whatever fails within, of Orbax or the system."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"cannot save in {folder}: {brief(error)}; once that is mended the same command "
            "(of train without --restart) goes on from the newest checkpoint"
        ) from error


def refuse_others(folders: Sequence[epath.Path]) -> None:
    """UserError for a folder of another program's, which would age away as a checkpoint."""
    for folder in folders:
        inside = {path.name for path in folder.iterdir()}
        if inside and inside.isdisjoint(_OURS):
            raise UserError(
                f"{folder} is no checkpoint of this program: move it away, or give the run another "
                "folder"
            )


def refuse_many(folder: epath.Path) -> None:
    """UserError where a folder has more in it than any run's checkpoints."""
    if folder.exists() and len(list(itertools.islice(folder.iterdir(), _MOST + 1))) > _MOST:
        raise UserError(
            f"{folder} has more than {_MOST} files and folders, and a run has a few: move away "
            "what is no checkpoint, or give the run another folder"
        )


def clear_unfinished(folder: epath.Path) -> None:
    """Remove what a killed run had half written.

    Orbax would do it too, but in a thread that goes on after its manager was closed, and meets the
    next writer's.
    """
    from orbax.checkpoint.utils import is_tmp_checkpoint

    if jax.process_index() == 0 and folder.exists():
        for path in folder.iterdir():
            if path.is_dir() and is_tmp_checkpoint(path):
                _remove_written_to(path)


def _remove_written_to(folder: epath.Path) -> None:
    """Remove a folder into which files may still come, for up to `_PATIENCE` seconds.

    Where one file of a save fails, Orbax lets the others go on, in threads that cannot be waited
    for: a training begun anew in the same process meets them.
    """
    until = time.monotonic() + _PATIENCE
    while folder.exists():
        try:
            folder.rmtree()
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(_PAUSE)  # a file that comes after it is gone makes it anew


def brief(error: Exception) -> str:
    """TensorStore tells of every file on the way, and then of all its settings."""
    text = reason(error)
    if number := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(number[1]))
    return text.partition(" [tensorstore_spec")[0]
