"""An encoded image: is it one that a net can take, and its pixels."""

import io

import cv2
import numpy as np
from PIL import Image

from rice_jax.errors import UserError, reason

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_BYTES = 64 << 20  # of a file
MAX_PIXELS = 64 << 20  # of an image: 192 MiB decoded

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_PNG_DEPTH = 24  # offset of the bits a channel in a PNG's header


def check(data: bytes) -> None:
    """Raise UserError, saying why, unless `data` is a whole 8-bit RGB image of one frame.

    The header is judged before a pixel is decoded: a small file may claim a huge image.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_header(image, data)
            image.load()
    except UserError:
        raise
    except Image.UnidentifiedImageError as error:
        raise UserError("not a JPEG, PNG, BMP or WebP image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"more than {MAX_PIXELS >> 20} million pixels") from error
    except Exception as error:  # a decoder fed with damaged bytes raises almost anything
        raise UserError(f"does not decode: {reason(error)}") from error


def _check_header(image: Image.Image, data: bytes) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{image.width}x{image.height} pixels: too large")
    if getattr(image, "n_frames", 1) > 1:
        raise UserError("animated")
    if image.mode != "RGB":
        raise UserError(f"not RGB (mode {image.mode})")
    if image.format == "PNG" and data[_PNG_DEPTH] > 8:
        raise UserError(f"{data[_PNG_DEPTH]} bits a channel, not 8")


def decode(data: bytes, image_size: int) -> np.ndarray:
    """The image as uint8 (image_size, image_size, 3) RGB; UserError where `check` fails."""
    check(data)
    pixels = np.empty((image_size, image_size, 3), np.uint8)
    decode_into(data, pixels)
    return pixels


def decode_into(data: bytes, pixels: np.ndarray, whole_size: int = 0) -> None:
    """Decode an image that `check` has passed into uint8 `pixels` (H, W, 3), resized, RGB.

    Bilinear at half-pixel centres without antialiasing, as Keras's image_dataset_from_directory
    resizes. EXIF orientation is ignored, as there.

    Args:
        data: the encoded image.
        pixels: what is written to.
        whole_size: height and width that it is resized to in this way, to be averaged to those of
            `pixels` then; 0 for theirs.
    """
    encoded = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError("does not decode")
    height, width = pixels.shape[:2]
    size = (whole_size, whole_size) if whole_size else (width, height)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if size != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=pixels)
