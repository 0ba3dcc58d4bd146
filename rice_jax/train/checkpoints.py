"""A run's checkpoints: the best epoch, the newest step and the one before, each proved whole."""

import contextlib
import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from rice_jax import files
from rice_jax.errors import UserError, of_an_interrupt
from rice_jax.train import checkpoint_folder, readable
from rice_jax.train.orbax_quiet import keep_orbax_quiet
from rice_jax.train.progress import Progress
from rice_jax.train.readable import DamagedError
from rice_jax.train.state import TrainState

_ABOUT = ("progress", "origin")
"""What a checkpoint says about its arrays."""
_DENSEST, _SMALL = 64, 64 << 20
"""Bytes of arrays to one of a file that are believed, and how many are whatever the files have.

Moments at zero are saved in next to nothing, a net's weights at 0.9: a folder from elsewhere that
claims more than that would be given memory for nothing.
"""


@dataclasses.dataclass
class Checkpoint:
    """What is saved and restored together."""

    state: TrainState
    progress: Progress
    origin: dict[str, Any]
    """What was trained on what, as `origin.describe` tells it: plain JSON types."""


class Checkpoints:
    """The checkpoints in a folder, each named by `Progress.checkpoint`.

    Orbax writes a checkpoint beside its place and moves it there when it is complete. A digest
    over all numbers, saved along, tells a damaged one from a whole one.
    """

    def __init__(self, folder: epath.Path, *, read_only: bool = False) -> None:
        """UserError where another program's folders are among the checkpoints, or too many.

        Of several processes all write together, and each may read alone (`read_only`).
        """
        import orbax.checkpoint as ocp  # here: half a second, which only training takes

        keep_orbax_quiet()
        self.folder, self._read_only = folder, read_only
        checkpoint_folder.refuse_many(folder)
        if not read_only:
            with checkpoint_folder.telling(folder):
                checkpoint_folder.clear_unfinished(folder)
        self._keep = _Keep()

        def manager(create: bool) -> Any:
            return ocp.CheckpointManager(
                folder,
                item_names=("state", "meta"),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=self._keep,
                    create=create,
                    **({} if create else {"multiprocessing_options": _alone()}),
                ),
            )

        self._manager = manager(create=not read_only)
        # Read by all at once, the end of another process would pass for damage.
        alone = read_only or jax.process_count() == 1
        self._reader = self._manager if alone else manager(create=False)
        checkpoint_folder.refuse_others([folder / str(number) for number in self._numbers()])

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to save what is not saved yet; the arrays may be donated as soon as this returns.

        Raises:
            UserError: this or the save before it failed, as on a full disk.
        """
        import orbax.checkpoint as ocp

        if not self.folder.exists():  # Orbax would make it anew, without the run's other files
            raise UserError(f"{self.folder} was removed while the run was at work: nothing is left")
        progress = checkpoint.progress
        if progress.checkpoint in self._keep.damaged:
            self._guarded(lambda: self._manager.delete(progress.checkpoint))
            self._keep.damaged.discard(progress.checkpoint)
        if progress.checkpoint in self._numbers():  # stopped in validation, after the step's save
            return
        self._keep.best.append(progress.best_checkpoint)
        about: dict[str, Any] = {"progress": progress.to_json(), "origin": checkpoint.origin}
        meta = about | {
            "about": _described(about).hexdigest(),
            "digest": _digest(checkpoint.state, about),
        }
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_for_orbax(checkpoint.state)), meta=ocp.args.JsonSave(meta)
        )
        self._guarded(lambda: self._manager.save(progress.checkpoint, args=items, force=True))

    def wait(self) -> None:
        """Return when all that was saved is durable; UserError where that failed."""
        self._guarded(self._manager.wait_until_finished)

    def close(self) -> None:
        """Wait, then let go of Orbax's threads."""
        self._guarded(self._manager.close)
        if self._reader is not self._manager:
            self._guarded(self._reader.close)

    def newest(self, like: Callable[[dict[str, Any]], TrainState]) -> Checkpoint | None:
        """The newest whole checkpoint, None where there is none at all.

        Args:
            like: of a checkpoint's origin, the state's shapes, types and shardings; it may raise
                UserError where that origin is not what is wanted.

        Raises:
            UserError: every checkpoint is damaged, or one cannot be read for a reason of the
                system's: then it may be whole.
        """
        numbers = self._numbers()
        for number in numbers:
            checkpoint = self._whole(number, like)
            if checkpoint is not None:
                self._keep.best.append(checkpoint.progress.best_checkpoint)
                return checkpoint
            self._keep.damaged.add(number)
        if numbers:
            raise UserError(
                f"every checkpoint in {self.folder} is damaged: rice-jax train with --restart "
                "trains the run anew, or give another folder"
            )
        return None

    def progress(self) -> Progress | None:
        """Where the training stands by the newest readable description; no array is read."""
        for number in self._numbers():
            with contextlib.suppress(DamagedError):
                return Progress.from_json(self._meta(number)["progress"])
        return None

    def best(self, like: Callable[[dict[str, Any]], TrainState]) -> Checkpoint | None:
        """The best epoch's checkpoint; where that is damaged, the newest whole one.

        Raises:
            UserError: there are checkpoints, but not a whole one; or as `newest`.
        """
        numbers = self._numbers()
        for number in numbers:
            try:
                wanted = self._meta(number)["progress"]["best_checkpoint"]
            except DamagedError:
                continue
            if wanted in numbers:
                numbers.insert(0, wanted)
            break
        for number in dict.fromkeys(numbers):
            checkpoint = self._whole(number, like)
            if checkpoint is not None:
                return checkpoint
        if numbers:
            raise UserError(f"every checkpoint in {self.folder} is damaged: train the run again")
        return None

    def _numbers(self) -> list[int]:
        return sorted(self._manager.all_steps(), reverse=True)

    def _whole(
        self, number: int, like: Callable[[dict[str, Any]], TrainState]
    ) -> Checkpoint | None:
        try:
            meta = self._meta(number)
            state = self._state(number, self._held(number, like(meta["origin"])))
            if _digest(state, {key: meta[key] for key in _ABOUT}) != meta["digest"]:
                raise DamagedError("its numbers are not those that were saved")
        except DamagedError as error:
            path = self.folder / str(number)
            print(f"WARNING: {path} is damaged ({error}): going back to the one before it")
            return None
        return Checkpoint(state, Progress.from_json(meta["progress"]), meta["origin"])

    def _meta(self, number: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        readable.require_readable(self.folder / str(number))
        items = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = _undamaged(lambda: self._reader.restore(number, args=items)).meta
        if not isinstance(meta, dict) or meta.keys() - {"about"} != {*_ABOUT, "digest"}:
            raise DamagedError("its description is incomplete")
        # Proved before anything is made of it, such as arrays of the shapes that it tells.
        described = _described({key: meta[key] for key in _ABOUT}).hexdigest()
        if meta.get("about", described) != described:  # older versions did not write it
            raise DamagedError("its description is not what was saved")
        if not Progress.is_told_by(meta["progress"]):
            raise DamagedError("it is of another version")
        return meta

    def _held(self, number: int, like: TrainState) -> TrainState:
        """`like`, where the checkpoint's files can hold as much."""
        folder = self.folder / str(number)
        if files.is_remote(folder):
            return like
        claimed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))
        held = readable.held(folder)
        if claimed > _DENSEST * held + _SMALL:
            raise DamagedError(f"it tells of {claimed / 1e6:,.0f} MB and has {held / 1e6:,.1f}")
        return like

    def _state(self, number: int, like: TrainState) -> TrainState:
        import orbax.checkpoint as ocp

        items = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return _undamaged(lambda: self._reader.restore(number, args=items)).state

    def _guarded(self, action: Callable[[], Any]) -> None:
        """Do it; what a failed save has half written goes: a full disk may be full of it."""
        try:
            with checkpoint_folder.telling(self.folder):
                action()
        except UserError:
            if not self._read_only:  # or it is another process's, which is at work on it
                with contextlib.suppress(OSError):
                    checkpoint_folder.clear_unfinished(self.folder)
            raise


def _alone() -> Any:
    """Orbax's settings for what a process does without waiting for the others of its job."""
    import orbax.checkpoint as ocp

    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"alone_{me}"
    )


class _Keep:
    """Orbax's preservation policy: the newest two, and the best as each of them knew it.

    Damaged ones go when the next checkpoint is durable, not before: they may be found damaged for
    no fault of theirs, such as a network that failed.
    """

    def __init__(self) -> None:
        self.best: deque[int] = deque(maxlen=2)
        self.damaged: set[int] = set()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        whole = sorted({checkpoint.step for checkpoint in checkpoints} - self.damaged)
        kept = {*whole[-2:], *self.best}
        return [checkpoint.step in kept for checkpoint in checkpoints]


def _undamaged(restore: Callable[[], Any]) -> Any:
    try:
        return restore()
    except Exception as error:  # Orbax and TensorStore raise whatever the damage makes of it
        if of_an_interrupt(error):
            raise KeyboardInterrupt from error
        if refusal := readable.of_the_system(error):
            raise readable.unread(refusal) from error
        raise DamagedError(checkpoint_folder.brief(error)) from error


def _described(about: Mapping[str, Any]) -> Any:
    """SHA-256 over the description."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode())


def _digest(state: TrainState, about: Mapping[str, Any]) -> str:
    """SHA-256 over the description, and over every array's path, type, shape and bytes."""
    digest = _described(about)
    for path, array in _host_arrays(state):
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _for_orbax(state: TrainState) -> TrainState:
    """The state with one copy of each array, where this process writes all of it.

    Of several copies Orbax writes a slice each, and JAX compiles one for each shape of an array:
    seconds for a net of many layers.
    """
    if jax.process_count() > 1:
        return state
    return jax.tree.map(lambda array: array.addressable_data(0), state)


def _host_arrays(state: TrainState) -> Iterator[tuple[str, np.ndarray]]:
    for path, array in jax.tree_util.tree_flatten_with_path(state)[0]:
        # Replicated: any device's copy is the whole array.
        yield jax.tree_util.keystr(path), np.asarray(array.addressable_data(0))
