"""What counts as an image, and its pixels."""

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rice_jax import data
from rice_jax.errors import UserError


def picture(height=20, width=24, seed=0):
    """Smooth RGB, so that JPEG keeps it nearly as it is."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(file, format, **options)
    return file.getvalue()


def half_pixel_bilinear(image, size):
    """Resized by the definition, in float64: pixel i of the output looks at (i + 1/2) s - 1/2."""
    for axis in (0, 1):
        length = image.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.minimum(place.astype(int), max(length - 2, 0))
        high = np.minimum(low + 1, length - 1)
        part = np.expand_dims(place - low, tuple(i for i in range(3) if i != axis))
        taken = [np.take(image.astype(np.float64), index, axis) for index in (low, high)]
        image = (1 - part) * taken[0] + part * taken[1]
    return image


@pytest.mark.parametrize("shape", [(250, 250), (20, 24), (7, 400), (224, 224), (1, 1)])
def test_resized_at_half_pixel_centres_without_antialiasing(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    ours = data.decode(encoded(image), 224)
    assert ours.dtype == np.uint8
    assert ours.shape == (224, 224, 3)
    # OpenCV rounds weights to 1/2048, so that a value may round the other way.
    np.testing.assert_allclose(ours, half_pixel_bilinear(image, 224), atol=1)


@pytest.mark.parametrize("format", ["PNG", "BMP"])
def test_lossless_formats_return_red_green_blue_as_stored(format):
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0], image[2, 3] = 200, (1, 2, 3)
    np.testing.assert_array_equal(data.decode(encoded(image, format), 8), image)


@pytest.mark.parametrize(
    ("format", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})]
)
def test_lossy_formats_decode_close(format, options):
    image = picture(32, 32)
    ours = data.decode(encoded(image, format, **options), 32).astype(int)
    assert abs(ours - image).mean() < 6


def test_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image = picture(16, 16)
    turned = data.decode(encoded(image, "JPEG", exif=exif), 16)
    np.testing.assert_array_equal(turned, data.decode(encoded(image, "JPEG"), 16))


def png_claiming(width, height):
    """A PNG whose header tells a size that its data do not have."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def animation(format):
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:])


DAMAGED = {
    "empty": (b"", "not a JPEG"),
    "text": (b"Not an image at all, but called one.jpg", "not a JPEG"),
    "gif": (encoded(picture(), "GIF"), "not a JPEG"),
    "tiff": (encoded(picture(), "TIFF"), "not a JPEG"),
    "cmyk": (encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG"), "not RGB"),
    "grey": (encoded(Image.fromarray(picture()).convert("L"), "JPEG"), "not RGB"),
    "transparent": (encoded(Image.fromarray(picture()).convert("RGBA")), "not RGB"),
    "palette": (encoded(Image.fromarray(picture()).convert("P")), "not RGB"),
    "16-bit grey": (encoded(np.zeros((4, 4), np.uint16)), "not RGB"),
    "16-bit RGB": (cv2.imencode(".png", np.zeros((4, 4, 3), np.uint16))[1].tobytes(), "16 bits"),
    "animated WebP": (animation("WEBP"), "animated"),
    "animated PNG": (animation("PNG"), "animated"),
    "cut JPEG": (encoded(picture(200, 200), "JPEG")[:-300], "does not decode"),
    "cut PNG": (encoded(picture(200, 200))[:-300], "does not decode"),
    "huge": (png_claiming(2**31 - 1, 2**31 - 1), "million pixels"),
    "large": (png_claiming(12_000, 12_000), "million pixels"),
    "too large by little": (png_claiming(8200, 8200), "too large"),
    "nothing behind its header": (png_claiming(8000, 8000), "does not decode"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_other_things_are_refused_by_their_fault(kind):
    content, fault = DAMAGED[kind]
    with pytest.raises(UserError, match=fault):
        data.decode(content, 8)


WHOLE = {
    "jpeg": encoded(picture(40, 40), "JPEG"),
    "progressive": encoded(picture(40, 40), "JPEG", progressive=True),
    "png": encoded(picture(40, 40)),
    "bmp": encoded(picture(10, 10), "BMP"),
    "webp": encoded(picture(40, 40), "WEBP"),
}


@settings(max_examples=200, deadline=None)
@given(content=st.sampled_from(sorted(WHOLE)), change=st.data())
def test_flipped_or_missing_bytes_are_refused_or_decoded_but_nothing_else(content, change):
    damaged = bytearray(WHOLE[content])
    for _ in range(change.draw(st.integers(1, 4))):
        damaged[change.draw(st.integers(0, len(damaged) - 1))] = change.draw(st.integers(0, 255))
    damaged = bytes(damaged[: change.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(UserError):
        assert data.decode(damaged, 16).shape == (16, 16, 3)
