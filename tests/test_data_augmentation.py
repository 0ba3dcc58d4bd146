"""The five transforms against SciPy in float64, Keras's layers and their own laws."""

import os
import re

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from rice_jax import data


def random_images(batch, height, width, channels=3, seed=0):
    shape = (batch, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def parameters(batch, **changed):
    """The parameters that leave an image as it is, and those changed."""
    neutral = {
        "flip": np.zeros(batch, bool),
        "angle": np.zeros(batch, np.float32),
        "zoom": np.ones(batch, np.float32),
        "shift": np.zeros((batch, 2), np.float32),
        "contrast": np.ones(batch, np.float32),
    }
    return neutral | {name: np.asarray(value) for name, value in changed.items()}


def reference(image, flip, angle, zoom, shift, contrast):
    """Each step a matrix on (column, row, 1), multiplied; SciPy interpolates, in float64."""
    height, width, _ = image.shape
    to_centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1.0]])
    cos, sin = np.cos(angle), np.sin(angle)
    steps = [
        np.diag([-1.0 if flip else 1.0, 1, 1]),
        np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]),
        np.diag([zoom, zoom, 1]),
        np.array([[1, 0, -shift[1] * width], [0, 1, -shift[0] * height], [0, 0, 1]]),
    ]
    pull = np.linalg.inv(to_centre) @ np.linalg.multi_dot(steps) @ to_centre
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    columns, rows, _ = pull @ np.stack([columns, rows, np.ones_like(rows)])
    channels = [
        scipy.ndimage.map_coordinates(channel, [rows, columns], order=1, mode="reflect")
        for channel in np.moveaxis(image.astype(np.float64), -1, 0)
    ]
    moved = np.stack(channels, -1).reshape(image.shape)
    mean = moved.mean((0, 1))
    return np.clip(mean + contrast * (moved - mean), 0, 255)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(9, 14), (16, 16), (2, 3)]),
    flip=st.booleans(),
    angle=st.floats(-7, 7),
    zoom=st.floats(0.1, 4),
    shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    contrast=st.floats(0, 3),
)
def test_any_parameters_equal_scipy_in_float64(seed, size, flip, angle, zoom, shift, contrast):
    image = random_images(1, *size, seed=seed)
    given_parameters = {
        "flip": flip,
        "angle": np.float32(angle),
        "zoom": np.float32(zoom),
        "shift": np.float32(shift),
        "contrast": np.float32(contrast),
    }
    ours = data.transform(image, **{k: np.asarray(v)[None] for k, v in given_parameters.items()})
    expected = reference(image[0], **given_parameters)
    # Coordinates reach 60 pixels: float32 rounds them by 4e-6, and a pixel differs by up to 255.
    np.testing.assert_allclose(ours[0], expected, atol=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_neutral_parameters_return_the_image(dtype):
    images = random_images(3, 15, 20).astype(dtype)
    ours = data.transform(images, **parameters(3))
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, images, atol=1e-4)


def test_flip_mirrors_left_and_right():
    images = random_images(2, 6, 7)
    ours = data.transform(images, **parameters(2, flip=[True, False]))
    np.testing.assert_allclose(ours[0], images[0, :, ::-1], atol=1e-4)
    np.testing.assert_allclose(ours[1], images[1], atol=1e-4)


def test_shift_moves_down_and_right_and_reflects_half_samples():
    row = np.array([10, 20, 30, 40], np.uint8)
    image = np.broadcast_to(row[:, None, None], (4, 4, 1))[None]
    down = data.transform(image, **parameters(1, shift=np.float32([[0.5, 0]])))
    np.testing.assert_allclose(down[0, :, 0, 0], [20, 10, 10, 20], atol=1e-4)
    right = data.transform(
        image.transpose(0, 2, 1, 3), **parameters(1, shift=np.float32([[0, 0.25]]))
    )
    np.testing.assert_allclose(right[0, 0, :, 0], [10, 10, 20, 30], atol=1e-4)


def test_zoom_above_one_shows_more():
    """At zoom 2 the outermost centres of 4 pixels, 1.5 off, are pulled from 3 off: by reflection
    at 3 off lie 0 -> -1.5 -> pixel 0.5 beyond the edge, the average of the two outer pixels."""
    row = np.array([10, 20, 30, 40], np.uint8)
    image = np.broadcast_to(row[None, :, None], (4, 4, 1))[None]
    seen = data.transform(image, **parameters(1, zoom=np.float32([2])))
    np.testing.assert_allclose(seen[0, 0, :, 0], [15, 15, 35, 35], atol=1e-4)


def test_contrast_is_about_the_mean_of_each_channel_and_clipped():
    image = np.stack([np.array([[0, 100]]), np.array([[50, 250]])], -1).astype(np.uint8)
    image = np.concatenate([image, image])[None]
    ours = data.transform(image, **parameters(1, contrast=np.float32([1.5])))
    np.testing.assert_allclose(ours[0, 0], [[0, 0], [125, 255]], atol=1e-4)


def keras_layer(name, arguments, images):
    """A random layer of Keras, and what it drew for these images, in its own terms."""
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, name)(**arguments, seed=3)
    return layer, layer.get_random_transformation(images, training=True)


def in_our_terms(name, drawn, height, width):
    values = {key: np.asarray(value) for key, value in drawn.items()}
    match name:
        case "RandomFlip":
            return {"flip": values["flips"].reshape(-1)}
        case "RandomRotation":
            return {"angle": np.deg2rad(values["angle"])}
        case "RandomZoom":
            return {"zoom": values["height_zoom"].reshape(-1)}
        case "RandomTranslation":
            return {"shift": values["translations"][:, ::-1] / np.float32([height, width])}
        case "RandomContrast":
            return {"contrast": values["contrast_factor"].reshape(-1)}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RandomFlip", {"mode": "horizontal"}),
        ("RandomRotation", {"factor": 0.1}),
        ("RandomZoom", {"height_factor": 0.1}),
        ("RandomTranslation", {"height_factor": 0.1, "width_factor": 0.1}),
        ("RandomContrast", {"factor": 0.1, "value_range": (0, 255)}),
    ],
)
def test_each_transform_equals_keras(name, arguments):
    images = random_images(8, 10, 12)
    layer, drawn = keras_layer(name, arguments, images)
    ours = data.transform(images, **parameters(8, **in_our_terms(name, drawn, 10, 12)))
    expected = layer.transform_images(images.astype(np.float32), drawn, training=True)
    np.testing.assert_allclose(ours, np.asarray(expected), atol=0.01)
    assert not np.allclose(ours, images, atol=1)


def test_an_image_depends_on_the_key_and_its_global_index_alone():
    images = random_images(6, 12, 12)
    key = jax.random.key(5)
    whole = data.augment(key, images)
    parts = [data.augment(key, images[:2]), data.augment(key, images[2:], 2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    same = data.augment(key, np.repeat(images[:1], 2, 0), 4)
    assert not np.allclose(same[0], same[1])
    assert not np.allclose(whole, data.augment(jax.random.key(6), images))


def test_it_works_inside_shard_map_and_jit():
    images = random_images(4, 8, 8)
    key = jax.random.key(1)
    mesh = Mesh(np.array(jax.devices()[:1]), ("d",))
    spec = PartitionSpec("d")

    def shard(images):
        return data.augment(key, images, jax.lax.axis_index("d") * images.shape[0])

    sharded = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=spec, out_specs=spec))
    np.testing.assert_allclose(sharded(images), data.augment(key, images), atol=1e-3)


def test_drawn_parameters_stay_in_the_studys_ranges(monkeypatch):
    """Recovered from what happens to a ramp and a checkerboard rather than from the draw itself."""
    count = 512
    rows, columns = np.mgrid[:64, :64].astype(np.float32)
    ramps = np.broadcast_to(np.stack([columns, rows], -1), (count, 64, 64, 2))
    # A weak ramp around 100 is not clipped; contrast scales it, geometry turns and shifts it.
    images = 100 + ramps
    moved = np.asarray(data.augment(jax.random.key(0), images), np.float64) - 100
    centre = moved[:, 28:36, 28:36]  # far from the reflected edges
    right = (centre[:, :, -1] - centre[:, :, 0]).mean(1) / 7  # (n, 2): d(column, row) / dx
    down = (centre[:, -1] - centre[:, 0]).mean(1) / 7
    determinant = right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]
    flipped = determinant < 0
    assert 0.4 < flipped.mean() < 0.6
    scale = np.sqrt(abs(determinant))  # zoom x contrast
    assert 0.81 - 1e-3 < scale.min() < 0.85
    assert 1.15 < scale.max() < 1.21 + 1e-3
    angle = np.arctan2(right[:, 1], down[:, 1])
    assert 35 < np.rad2deg(abs(angle)).max() <= 36.01
    assert abs(np.rad2deg(angle).mean()) < 3


def test_one_gather_index_a_pixel_serves_all_channels():
    images = jnp.zeros((4, 16, 24, 3), jnp.uint8)
    lowered = jax.jit(data.augment).lower(jax.random.key(0), images).as_text()
    assert "tensor<4x16x24xi32>" in lowered or "tensor<4x16x24x1xi32>" in lowered
    assert re.search(r"16x24x3x(\d+x)*u?i32", lowered) is None
