"""Names for what public functions take and give, by shape: NumPy and JAX know one kind of array."""

from collections.abc import Sequence

import jax
import numpy as np

InputShape = Sequence[int]
"""(H, W, C) of an image, or (N, ...) of what a net takes: `input_shape.whole_shape` says which."""
Images = np.ndarray | jax.Array
"""(N, H, W, C), floats as the net takes them."""
Maps = jax.Array
"""(N, H', W', filters) of a convolution."""
Ends = tuple[np.ndarray, np.ndarray]
"""The least and the largest that each number of an array can be, in two arrays of its shape."""
Chosen = np.ndarray
"""(channels,) of bool: which of a net's `Dependencies.channels` are meant."""
