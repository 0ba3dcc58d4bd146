"""Images of rice, or of anything in class folders: prepared once, split, fed and augmented."""

from rice_jax.data.augmentation import augment, transform
from rice_jax.data.dataset import Dataset, Source, folder, load
from rice_jax.data.images import decode
from rice_jax.data.loader import Batch, batches

__all__ = [
    "Batch",
    "Dataset",
    "Source",
    "augment",
    "batches",
    "decode",
    "folder",
    "load",
    "transform",
]
