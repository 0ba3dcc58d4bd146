"""Images of rice, or of anything in class folders: prepared once, split, fed and augmented."""

from rice_jax.data.augmentation import augment, transform
from rice_jax.data.capacity import compared, memory
from rice_jax.data.dataset import (
    DOWNLOAD,
    SAMPLE,
    SYNTHETIC,
    VARIABLE,
    Dataset,
    chosen,
    first_of_each,
    folder,
    load,
)
from rice_jax.data.images import decode
from rice_jax.data.learned import count_learned
from rice_jax.data.loader import Batch, batches, require_memory
from rice_jax.data.sources import Source

__all__ = [
    "DOWNLOAD",
    "SAMPLE",
    "SYNTHETIC",
    "VARIABLE",
    "Batch",
    "Dataset",
    "Source",
    "augment",
    "batches",
    "chosen",
    "compared",
    "count_learned",
    "decode",
    "first_of_each",
    "folder",
    "load",
    "memory",
    "require_memory",
    "transform",
]
