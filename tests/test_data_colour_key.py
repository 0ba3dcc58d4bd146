"""A colour that a PNG declares transparent is found at any depth, and nothing else is."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from rice_jax.data import images

GREY, RGB = 0, 2  # colour types of a PNG
VALUES = {  # of the pixels; the second is the key
    1: (0, 1, 1, 0),
    2: (0, 1, 2, 3),
    4: (0, 9, 10, 15),
    8: (0, 100, 200, 255),
    16: (0, 0x1234, 0x12FF, 0xFFFF),  # of 8 bits the second and the third are one
}
NEAR = {8: (0, 1), 16: (0, 0x0102)}  # what is added to each value for green and for blue


def png(depth, kind, pixels, key, turned=0):
    """A PNG written by hand: `pixels` is a row of tuples."""

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    bits = "".join(f"{value:0{depth}b}" for pixel in pixels for value in pixel)
    bits += "0" * (-len(bits) % 8)
    row = bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))
    header = struct.pack(">IIBBBBB", len(pixels), 1, depth, kind, 0, 0, 0)
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, turned, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)),
            chunk(b"eXIf", exif) if turned else b"",
            chunk(b"IDAT", zlib.compress(b"\0" + row)),
            chunk(b"IEND", b""),
        ]
    )


def decoded(content):
    """What OpenCV makes of what `plain` gave, RGB, and what `plain` told."""
    found = images.plain(content)
    pixels = cv2.imdecode(np.frombuffer(found.content, np.uint8), cv2.IMREAD_COLOR)
    return pixels[..., ::-1].tolist(), found.made_of


def eight_bits(value, depth):
    return value >> 8 if depth == 16 else value * 255 // (2**depth - 1)


@pytest.mark.parametrize("depth", VALUES)
def test_of_grey_the_key_alone_is_black(depth):
    values = VALUES[depth]
    found, made_of = decoded(png(depth, GREY, [(value,) for value in values], values[1:2]))
    left = [0 if value == values[1] else eight_bits(value, depth) for value in values]
    assert found == [[[value] * 3 for value in left]]
    assert {images.GREY, images.ALPHA} <= set(made_of)


@pytest.mark.parametrize("depth", NEAR)
def test_of_rgb_the_key_alone_is_black(depth):
    low, high = NEAR[depth]
    pixels = [(value, value ^ low, value ^ high) for value in VALUES[depth]]
    found, made_of = decoded(png(depth, RGB, pixels, pixels[1]))
    left = [(0, 0, 0) if pixel == pixels[1] else pixel for pixel in pixels]
    assert found == [[[eight_bits(value, depth) for value in pixel] for pixel in left]]
    assert images.ALPHA in made_of


def test_a_key_of_16_bits_is_none_of_8():
    """No pixel is it, though one is after its low bits are gone."""
    found, _ = decoded(png(16, RGB, [(0x0A00, 0x1400, 0x1E00)] * 2, (10, 20, 30)))
    assert found == [[[10, 20, 30]] * 2]


@pytest.mark.parametrize("depth", VALUES)
def test_it_is_found_before_the_picture_is_turned(depth):
    values = VALUES[depth]
    content = png(depth, GREY, [(value,) for value in values], values[1:2], turned=6)
    found, made_of = decoded(content)
    left = [0 if value == values[1] else eight_bits(value, depth) for value in values]
    assert found == [[[value] * 3] for value in left]  # a row from the left, now from the top
    assert images.TURNED in made_of
