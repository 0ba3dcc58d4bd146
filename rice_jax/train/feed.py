"""From the loader's batches of one process to arrays spread over every device of all."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rice_jax import data
from rice_jax.errors import UserError

AXIS = "data"
"""Name of the mesh's one axis, over which each batch is split."""
_LARGE = 256 << 20
"""Bytes of a batch's pixels that are worth a word."""


def data_mesh(most: int | None = None) -> Mesh:
    """All devices of all processes in one row, those of a process side by side.

    Args:
        most: leave it at so many devices, for batches of no more images.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices[:most]), (AXIS,), axis_types=(AxisType.Auto,))


def told_of_large(config: ml_collections.ConfigDict, image_size: int) -> str:
    """What to say beforehand of batches that take much memory; empty where they do not."""
    field = max("train", "eval", key=lambda part: config[part].batch_size)
    count = config[field].batch_size
    size = data.require_memory(count, image_size)
    if size < _LARGE:
        return ""
    return (
        f"a batch of {count:,} images of {image_size:,} x {image_size:,} pixels takes "
        f"{size / 1e9:.1f} GB, and a few are in memory at once: a smaller "
        f"--config.{field}.batch_size takes less"
    )


def require_labels(batch: data.Batch, classes: int) -> None:
    """UserError where the label of an image is none of so many classes, from 0 on.

    Its loss would be no number, and it would be in no row of a confusion matrix, or in another's.
    """
    labels = batch["label"]
    unknown = labels[(labels < 0) | (labels >= classes)]
    if unknown.size:
        raise UserError(
            f"an image has the label {unknown[0]}, and of {classes} classes the labels are "
            f"0 to {classes - 1}"
        )


class Feed:
    """Puts batches on the devices of a mesh, padded where they do not divide.

    The padding (the last image again, weight 0) stands at the end of the global batch, so that an
    image's place in it, which dropout and augmentation go by, depends on no number of devices.
    """

    def __init__(self, mesh: Mesh, batch_size: int) -> None:
        self.mesh = mesh
        self.batch_size = batch_size
        self.rows = -(-batch_size // mesh.size) * mesh.size
        self._sharding = NamedSharding(mesh, PartitionSpec(AXIS))
        whole = self.rows == batch_size
        self.shard = (jax.process_index(), jax.process_count()) if whole else (0, 1)
        """What this process reads, as `data.batches` takes it. Where a batch does not divide,
        each process reads all of it and keeps its own rows."""

    def __call__(self, batch: Mapping[str, np.ndarray], signal: int = 0) -> dict[str, Any]:
        """The global arrays of a batch, and 'signal': a number from each process to all.

        Args:
            batch: image (B, H, W, C), label (B,), weight (B,) of this process's shard.
            signal: reaches every process as the maximum over all, with the step's metrics.
        """
        rows = {name: self._local(name, array) for name, array in batch.items()}
        devices = self.mesh.size // jax.process_count()
        rows["signal"] = np.full(devices, signal, np.int32)
        return {
            name: jax.make_array_from_process_local_data(self._sharding, array)
            for name, array in rows.items()
        }

    def _local(self, name: str, array: np.ndarray) -> np.ndarray:
        if self.rows == self.batch_size:
            return array
        missing = self.rows - len(array)
        last = np.zeros_like(array[-1:]) if name == "weight" else array[-1:]
        share = self.rows // jax.process_count()
        whole = np.concatenate([array, np.repeat(last, missing, axis=0)])
        return whole[jax.process_index() * share :][:share]


class Lagged:
    """Results of asynchronous steps, brought to the host a few steps after their dispatch.

    By then they are there, so that reading one does not keep the devices waiting; and since no
    more than `lag` steps are ever under way, neither do batches pile up.
    """

    def __init__(self, lag: int = 2) -> None:
        self._lag = lag
        self._pending: deque[Any] = deque()

    def push(self, result: Any) -> list[Any]:
        """Take a step's result (a pytree of arrays); those that are due, as NumPy arrays."""
        for array in jax.tree.leaves(result):
            array.copy_to_host_async()
        self._pending.append(result)
        return self._oldest(len(self._pending) - self._lag)

    def drain(self) -> list[Any]:
        """Wait for all that is under way."""
        return self._oldest(len(self._pending))

    def _oldest(self, count: int) -> list[Any]:
        return [jax.device_get(self._pending.popleft()) for _ in range(count)]
