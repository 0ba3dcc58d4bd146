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
from rice_jax.data import images
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


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
RGB = np.dstack([GREY, GREY.T, 255 - GREY])
ALPHA = np.full((16, 16), 51, np.uint8)  # a fifth
ON_BLACK = np.rint(RGB / 5).astype(np.uint8)
FEW = (RGB > 127) * np.uint8(255)  # eight colours, which any palette has


def png_with_colour_key():
    """RGB whose pure black is declared transparent; on black nothing changes."""
    return encoded(Image.fromarray(FEW), transparency=(0, 0, 0))


def sixteen_bits(suffix, *shape):
    deep = np.random.default_rng(0).integers(0, 2**16, (16, 16, *shape), np.uint16)
    high = (deep >> 8).astype(np.uint8)
    expected = high[..., ::-1] if shape else np.dstack([high] * 3)  # OpenCV writes blue first
    return cv2.imencode(suffix, deep)[1].tobytes(), expected


# An encoded image, what it is made of, and the pixels that it then has.
CONVERTED = {
    "grey": (encoded(GREY), (images.GREY,), np.dstack([GREY] * 3)),
    "grey JPEG": (encoded(GREY, "JPEG", quality=100), (images.GREY,), np.dstack([GREY] * 3)),
    "two levels": (
        encoded(Image.fromarray(GREY > 127)),
        (images.GREY,),
        np.dstack([(GREY > 127) * np.uint8(255)] * 3),
    ),
    "grey with alpha": (
        encoded(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])),
        (images.GREY, images.ALPHA),
        np.dstack([np.rint(GREY / 5)] * 3),
    ),
    "palette": (encoded(Image.fromarray(FEW).convert("P")), (images.PALETTE,), FEW),
    "gif": (encoded(FEW, "GIF"), (images.PALETTE,), FEW),
    "alpha": (encoded(np.dstack([RGB, ALPHA])), (images.ALPHA,), ON_BLACK),
    "alpha WebP": (
        encoded(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True),
        (images.ALPHA,),
        ON_BLACK,
    ),
    "all in the alpha channel": (
        encoded(np.dstack([0 * RGB, GREY])),
        (images.ALPHA, images.BLACK),
        0 * RGB,
    ),
    "colour key": (png_with_colour_key(), (images.ALPHA,), FEW),
    "CMYK": (
        encoded(Image.fromarray(FEW).convert("CMYK"), "TIFF"),
        ("CMYK",),
        FEW,
    ),
    "TIFF": (encoded(RGB, "TIFF"), ("TIFF",), RGB),
    "packed TIFF": (encoded(RGB, "TIFF", compression="tiff_lzw"), ("TIFF",), RGB),
    "16-bit grey": (sixteen_bits(".png")[0], (images.GREY, images.DEEP), sixteen_bits(".png")[1]),
    "16-bit grey TIFF": (
        sixteen_bits(".tif")[0],
        (images.GREY, images.DEEP),
        sixteen_bits(".tif")[1],
    ),
    "16-bit RGB": (sixteen_bits(".png", 3)[0], (images.DEEP,), sixteen_bits(".png", 3)[1]),
    "16-bit RGB TIFF": (sixteen_bits(".tif", 3)[0], (images.DEEP,), sixteen_bits(".tif", 3)[1]),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_is_not_plain_rgb_is_made_so_and_told(kind):
    content, made_of, expected = CONVERTED[kind]
    found = images.plain(content)
    assert found.made_of == made_of
    near = 2 if "JPEG" in kind else 1
    np.testing.assert_allclose(data.decode(content, 16), expected, atol=near)
    if "JPEG" in kind:
        assert found.content == content
    else:
        assert images.plain(found.content) == (found.content, ())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_plain_rgb_keeps_its_bytes(format):
    content = encoded(picture(), format)
    assert images.plain(content) == (content, ())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("most", "dark"), [(2**10 - 1, True), (2**12 - 1, True), (2**12, False)])
def test_a_picture_of_few_bits_kept_in_many_is_told(most, dark, suffix):
    deep = np.linspace(0, most, 256).astype(np.uint16).reshape(16, 16)
    found = images.plain(cv2.imencode(suffix, deep)[1].tobytes())
    assert found.made_of == (images.GREY, images.DEEP, *([images.DARK] if dark else []))


# EXIF's numbers, and how a stored picture is seen by them (TIFF 6.0, Orientation).
SEEN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.transpose(1, 0, 2), 2),
    8: lambda stored: np.rot90(stored),
    9: lambda stored: stored,  # there is no such number
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("number", SEEN)
def test_a_photo_is_turned_upright(number, format):
    exif = Image.Exif()
    exif[0x0112] = number
    # Equal in each block of eight pixels, so that JPEG keeps it.
    stored = np.kron(np.diag([200, 100, 0])[:, :2], np.ones((8, 8))).astype(np.uint8)
    options = {"quality": 100} if format == "JPEG" else {}
    content = encoded(np.dstack([stored] * 3), format, exif=exif, **options)
    found = images.plain(content)
    assert (images.TURNED in found.made_of) == (number in range(2, 9))
    assert (found.content == content) == (format == "JPEG" or not found.made_of)
    upright = SEEN[number](np.dstack([stored] * 3))
    pixels = np.empty(upright.shape, np.uint8)
    images.decode_into(found.content, pixels)
    np.testing.assert_allclose(pixels, upright, atol=2)


def xmp(number):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{number}"/></x:xmpmeta>'.encode()


def exif_of_a_long(number):
    """Orientation as four bytes, the first of them first, where two are usual."""
    entry = struct.pack(">HHII", 0x0112, 4, 1, number)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)


ELSEWHERE = {
    "JPEG, XMP": ("JPEG", lambda number: {"xmp": xmp(number)}),
    "JPEG, a long": ("JPEG", lambda number: {"exif": exif_of_a_long(number)}),
    "WebP, XMP": ("WEBP", lambda number: {"xmp": xmp(number), "lossless": True}),
    "PNG, a long": ("PNG", lambda number: {"exif": exif_of_a_long(number)}),
}


@pytest.mark.parametrize("way", ELSEWHERE)
@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_photo_that_is_said_to_be_turned_is_turned_whatever_says_so(number, way):
    format, options = ELSEWHERE[way]
    stored = np.kron(np.diag([200, 100, 0])[:, :2], np.ones((8, 8))).astype(np.uint8)
    stored = np.dstack([stored] * 3)
    found = images.plain(encoded(stored, format, quality=100, **options(number)))
    told = images.TURNED in found.made_of  # older versions of Pillow do not look into XMP
    assert told == (number != 1) or "XMP" in way
    upright = SEEN[number if told else 1](stored)
    pixels = np.empty(upright.shape, np.uint8)
    images.decode_into(found.content, pixels)
    np.testing.assert_allclose(pixels, upright, atol=2)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(format):
    frames = [Image.fromarray(value * np.ones((8, 8, 3), np.uint8)) for value in (200, 100, 0)]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert images.FRAMES in images.plain(content).made_of
    np.testing.assert_allclose(data.decode(content, 8), 200, atol=1)


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


DAMAGED = {
    "empty": (b"", "not a JPEG"),
    "text": (b"Not an image at all, but called one.jpg", "not a JPEG"),
    "another format": (encoded(picture(), "PPM"), "not a JPEG"),
    "32-bit TIFF": (encoded(np.zeros((4, 4), np.float32), "TIFF"), "32-bit values"),
    "whole numbers of 32 bits": (encoded(np.zeros((4, 4), np.int32), "TIFF"), "32-bit values"),
    "cut GIF": (encoded(picture(200, 200), "GIF")[:-3000], "does not decode"),
    "cut TIFF": (encoded(picture(200, 200), "TIFF")[:-300], "does not decode"),
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


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("upright", [True, False])
def test_what_is_taken_decodes_however_long_its_sides(format, upright):
    """A side that OpenCV or libpng refuses would end a training amid an epoch."""

    def strip(length):
        shape = (length, 1) if upright else (1, length)
        return encoded(np.full((*shape, 3), 100, np.uint8), format)

    np.testing.assert_array_equal(data.decode(strip(1_000_000), 2), 100)
    with pytest.raises(UserError, match="too long a side"):
        images.plain(strip(1_000_001))


WHOLE = {
    "jpeg": encoded(picture(40, 40), "JPEG"),
    "progressive": encoded(picture(40, 40), "JPEG", progressive=True),
    "png": encoded(picture(40, 40)),
    "bmp": encoded(picture(10, 10), "BMP"),
    "webp": encoded(picture(40, 40), "WEBP"),
    "gif": encoded(picture(20, 20), "GIF"),
    "tiff": encoded(picture(20, 20), "TIFF"),
    "deep": sixteen_bits(".png")[0],
    "palette": encoded(Image.fromarray(FEW).convert("P")),
}


@settings(max_examples=200)
@given(content=st.sampled_from(sorted(WHOLE)), change=st.data())
def test_flipped_or_missing_bytes_are_refused_or_decoded_but_nothing_else(content, change):
    damaged = bytearray(WHOLE[content])
    for _ in range(change.draw(st.integers(1, 4))):
        damaged[change.draw(st.integers(0, len(damaged) - 1))] = change.draw(st.integers(0, 255))
    damaged = bytes(damaged[: change.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(UserError):
        assert data.decode(damaged, 16).shape == (16, 16, 3)


def whole_image(content):
    """Whether Pillow decodes every pixel at the image's own size."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception:
        return False
    return True


JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "without subsampling": {"subsampling": 0},
    "restarting": {"restart_marker_blocks": 2},
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photo_is_whole_where_all_of_its_pixels_are(kind, mode):
    noisy = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    content = encoded(Image.fromarray(noisy).convert(mode), "JPEG", **JPEGS[kind])
    for length in (*range(0, len(content), 7), *range(len(content) - 9, len(content) + 1)):
        taken = True
        try:
            assert images.plain(content[:length]).content == content[:length]
        except UserError:
            taken = False
        assert taken == whole_image(content[:length]), length
