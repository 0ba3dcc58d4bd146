"""The study's generalisation test: five random transforms of an image, on the device."""

import math

import jax
import jax.numpy as jnp
from jax import lax

TURN = 0.1  # rotation, of a full turn, either way
ZOOM = 0.1  # either way, the same on both axes
SHIFT = 0.1  # of the height and of the width, either way
CONTRAST = 0.1  # either way


@jax.jit
def augment(key: jax.Array, images: jax.Array, first: int | jax.Array = 0) -> jax.Array:
    """Flip, turn, zoom, shift and change the contrast of each image at random.

    The ranges are those of the study: half of the images flipped, up to 36 degrees, 10% zoom,
    10% of height and of width, 10% contrast. What happens to an image depends on `key` and its
    global index alone, so that batches may be cut and sharded anyhow.

    Args:
      key: a JAX PRNG key.
      images: (B, H, W, C), values in 0..255, uint8 or float.
      first: index of the first image in the global batch.

    Returns:
      float32 (B, H, W, C) in 0..255.
    """
    indices = jnp.arange(images.shape[0], dtype=jnp.uint32) + jnp.asarray(first, jnp.uint32)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
    return transform(images, **jax.vmap(_draw)(keys))


def _draw(key: jax.Array) -> dict[str, jax.Array]:
    """The random parameters of one image, as `transform` takes them."""
    flip, angle, zoom, shift, contrast = jax.random.split(key, 5)

    def around(
        key: jax.Array, center: float, extent: float, shape: tuple[int, ...] = ()
    ) -> jax.Array:
        return jax.random.uniform(key, shape, jnp.float32, center - extent, center + extent)

    return {
        "flip": jax.random.bernoulli(flip),
        "angle": around(angle, 0, 2 * math.pi * TURN),
        "zoom": around(zoom, 1, ZOOM),
        "shift": around(shift, 0, SHIFT, (2,)),
        "contrast": around(contrast, 1, CONTRAST),
    }


@jax.jit
def transform(
    images: jax.Array,
    flip: jax.Array,
    angle: jax.Array,
    zoom: jax.Array,
    shift: jax.Array,
    contrast: jax.Array,
) -> jax.Array:
    """Flip, then turn, zoom and shift each image about its centre, then change its contrast.

    The four geometric steps are one affine map, so that a pixel is interpolated once: bilinear,
    edges continued by half-sample reflection (dcba|abcd|dcba).

    Args:
      images: (B, H, W, C) in 0..255, H and W at least 2.
      flip: bool (B,), left to right.
      angle: (B,) radians, in the sense of Keras's RandomRotation.
      zoom: (B,) the part of the image that is seen: above 1 zooms out, 1 leaves it.
      shift: (B, 2) down and right, as fractions of height and width.
      contrast: (B,) factor of each channel's distance from its mean, clipped to 0..255.

    Returns:
      float32 (B, H, W, C).

    Source: the pull mappings of Keras's RandomFlip, RandomRotation, RandomZoom,
    RandomTranslation and RandomContrast.
    """
    return jax.vmap(_transform)(images, flip, angle, zoom, shift, contrast)


def _transform(
    image: jax.Array,
    flip: jax.Array,
    angle: jax.Array,
    zoom: jax.Array,
    shift: jax.Array,
    contrast: jax.Array,
) -> jax.Array:
    moved = _sample(image, *_positions(image.shape[:2], flip, angle, zoom, shift))
    mean = moved.mean(0).mean(0)  # row by row: XLA's CPU backend would go pixel by pixel
    return jnp.clip(mean + contrast * (moved - mean), 0, 255)


def _positions(
    size: tuple[int, ...], flip: jax.Array, angle: jax.Array, zoom: jax.Array, shift: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Where in the input each output pixel is found: rows (H, W) and columns (H, W).

    Written out rather than as a matrix product, which a TPU would round to bfloat16.
    """
    height, width = size
    middle = (height - 1) / 2, (width - 1) / 2
    down = jnp.arange(height, dtype=jnp.float32)[:, None] - middle[0] - shift[0] * height
    right = jnp.arange(width, dtype=jnp.float32)[None, :] - middle[1] - shift[1] * width
    cos, sin = zoom * jnp.cos(angle), zoom * jnp.sin(angle)
    rows = sin * right + cos * down + middle[0]
    columns = jnp.where(flip, -1.0, 1.0) * (cos * right - sin * down) + middle[1]
    return _reflect(rows, height), _reflect(columns, width)


def _reflect(position: jax.Array, size: int) -> jax.Array:
    """Fold a coordinate into [0, size - 1].

    Half-sample reflection folds about -0.5 and size - 0.5; in the half pixel beyond the outermost
    centre both neighbours are the same pixel, so that clipping is exact.
    """
    position = position + 0.5
    folded = jnp.abs(position - 2 * size * jnp.round(position / (2 * size))) - 0.5
    return jnp.clip(folded, 0, size - 1)


def _sample(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Bilinear values (H, W, C) of an image at rows and columns inside it.

    One index a pixel serves all channels; the four neighbours are the same index, offset. Each is
    used once, so that XLA fuses the gather with the sum: twice would materialise it. The places
    are materialised: fused too, they would be computed for each channel anew.
    """
    height, width, channels = image.shape
    top = jnp.minimum(jnp.floor(rows), height - 2)
    left = jnp.minimum(jnp.floor(columns), width - 2)
    index = top.astype(jnp.int32) * width + left.astype(jnp.int32)
    index, down, right = lax.optimization_barrier((index, rows - top, columns - left))
    below, beside = down[..., None], right[..., None]
    pixels = image.reshape(-1, channels)

    def neighbour(offset: int) -> jax.Array:
        return pixels.at[index + offset].get(mode="promise_in_bounds").astype(jnp.float32)

    upper = (1 - beside) * neighbour(0) + beside * neighbour(1)
    lower = (1 - beside) * neighbour(width) + beside * neighbour(width + 1)
    return (1 - below) * upper + below * lower
