"""Encoded images: whatever a folder holds made plain 8-bit RGB, and their pixels."""

import io
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from rice_jax.errors import UserError, reason

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
MAX_BYTES = 64 << 20  # of a file
MAX_PIXELS = 64 << 20  # of an image: 192 MiB decoded
MAX_SIDE = 1_000_000  # of an image: more is refused by libpng, a little more by OpenCV

GREY, PALETTE, DEEP = "grey", "palette", "16-bit"
ALPHA = "with alpha (laid on black)"
BLACK = "all black then, what they show is in the alpha channel alone"
DARK = "of 12 bits or fewer kept in 16 (dark then)"
FRAMES = "of several frames (the first taken)"
TURNED = "lying (turned upright)"
"""In what images may differ from plain ones; besides, a mode's or a format's name."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
_JPEG = ("JPEG", "MPO")  # MPO: a phone's photo with a second one behind it
_KEPT = (*_JPEG, "PNG", "BMP", "WEBP")
_PNG_DEPTH = 24  # offset of the bits a channel in a PNG's header
_TIFF_BITS = 258  # tag: bits of each channel
_ORIENTATION = 0x0112
_LYING = 5  # and above: its rows are the upright image's columns
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")


class Plain(NamedTuple):
    """An image as OpenCV decodes it to what was meant: 8-bit RGB, one frame, upright."""

    content: bytes
    """The image's own bytes where OpenCV does, otherwise a PNG of it."""
    made_of: tuple[str, ...] = ()
    """What it was instead, as `GREY`."""


def plain(data: bytes) -> Plain:
    """An image as 8-bit RGB: transparency laid on black, the first of several frames, upright.

    The header is judged before a pixel is decoded: a small file may claim a huge image.

    Raises:
        UserError: no whole image of at most 64 MiB and 64 million pixels, none of whose sides has
            more than a million, or one with 32-bit values.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{image.width}x{image.height} pixels: too large")
            if max(image.size) > MAX_SIDE:
                raise UserError(f"{image.width}x{image.height} pixels: too long a side")
            kinds, jpeg = _kinds(image, data), image.format in _JPEG
            # A photo as PNG would be ten times as large; OpenCV turns it, and makes grey RGB.
            done = {GREY} if jpeg else set()
            if jpeg and TURNED in kinds and _turned_by_opencv(data):
                done.add(TURNED)
            kept = image.format in _KEPT and not set(kinds) - done
            if kept and jpeg:  # an eighth of the pixels tells what is damaged, and is sooner there
                image.draft(None, (1, 1))
            image.load()
            return Plain(data, tuple(kinds)) if kept else _converted(image, kinds, data)
    except UserError:
        raise
    except Image.UnidentifiedImageError as error:
        raise UserError("not a JPEG, PNG, BMP, WebP, GIF or TIFF image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"more than {MAX_PIXELS >> 20} million pixels") from error
    except Exception as error:  # a decoder fed with damaged bytes raises almost anything
        raise UserError(f"does not decode: {reason(error)}") from error


def _kinds(image: Image.Image, data: bytes) -> list[str]:
    """In what an image differs from 8-bit RGB, one frame, upright."""
    kinds = []
    if image.mode in ("F", "I") and image.format != "PNG":  # older Pillow opens 16-bit PNG as I
        raise UserError("32-bit values: save it with 8 or 16 bits a channel")
    if image.mode in ("1", "L", "LA", "I", *_SIXTEEN):
        kinds.append(GREY)
    elif image.mode in ("P", "PA"):
        kinds.append(PALETTE)
    elif image.mode not in ("RGB", "RGBA", "RGBa", "RGBX"):
        kinds.append(image.mode)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        kinds.append(ALPHA)
    if image.mode in ("I", *_SIXTEEN) or _bits(image, data) > 8:
        kinds.append(DEEP)
    if getattr(image, "n_frames", 1) > 1 and image.format not in _JPEG:
        kinds.append(FRAMES)
    if _orientation(image) not in (0, 1):
        kinds.append(TURNED)
    return kinds


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of a channel, where a format has more than 8."""
    if image.format == "PNG":
        return data[_PNG_DEPTH]
    if image.format == "TIFF":
        return max(getattr(image, "tag_v2", {}).get(_TIFF_BITS, (8,)))
    return 8


def _orientation(image: Image.Image) -> int:
    """As EXIF has it, from 1 (upright) to 8; 0 where it says nothing that makes sense."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is no reason to refuse an image
        return 0
    return found if found in range(1, 9) else 0


def _turned_by_opencv(data: bytes) -> bool:
    """Whether OpenCV turns a JPEG: not where XMP alone, or EXIF of another type, says so."""
    encoded, small = np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8
    turned = cv2.imdecode(encoded, small)
    return not np.array_equal(turned, cv2.imdecode(encoded, small | cv2.IMREAD_IGNORE_ORIENTATION))


def _converted(image: Image.Image, kinds: list[str], data: bytes) -> Plain:
    """The image as a PNG that is as `Plain` says."""
    keyed = _keyed(image, data)
    if keyed:
        del image.info["transparency"]
    if TURNED in kinds and image.format != "TIFF":  # which Pillow turns as it loads
        image = ImageOps.exif_transpose(image)
        keyed = keyed and ImageOps.exif_transpose(keyed)
    if image.mode in ("I", *_SIXTEEN):
        high = np.clip(np.asarray(image), 0, 2**16 - 1).astype(np.uint16) >> 8
        if high.max() < 2**4:
            kinds = [*kinds, DARK]
        image = Image.fromarray(high.astype(np.uint8))
    if ALPHA in kinds:
        above = image.convert("RGBA")
        if keyed:
            above.putalpha(keyed)
        image = Image.alpha_composite(Image.new("RGBA", above.size, (0, 0, 0, 255)), above)
        alpha = np.asarray(above.getchannel("A"))
        if alpha.min() < alpha.max() and not np.asarray(image.convert("L")).any():
            kinds = [*kinds, BLACK]
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG", compress_level=1, exif=b"", icc_profile=None)
    return Plain(file.getvalue(), tuple(kinds or [str(image.format)]))


def _keyed(image: Image.Image, data: bytes) -> Image.Image | None:
    """Alpha by the colour that a PNG tells as transparent; None where Pillow finds it by itself.

    Of 16 bits a channel, or of fewer than 8, Pillow looks for it among pixels of 8.
    """
    depth, key = _bits(image, data), image.info.get("transparency")
    if image.format != "PNG" or image.mode == "P" or depth == 8 or key is None:
        return None
    if depth == 16:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        values = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        colour = np.atleast_1d(key)[::-1]  # OpenCV has blue first
    else:
        most = 2**depth - 1
        values = np.asarray(image.convert("L"))[..., np.newaxis]
        colour = np.array([(key & most) * (255 // most)])
    alpha = Image.fromarray((values != colour).any(-1) * np.uint8(255))
    alpha.info.update(image.info)  # by which it is turned
    return alpha


def told(kinds: Iterable[str]) -> str:
    """'12 grey, 3 palette': how many there are of each, most first."""
    counts = sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {kind}" for kind, count in counts)


def kind_of(name: str) -> str:
    """The suffix of a file's name as it is counted, '.txt'; 'without suffix' where it has none."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if stem and dot else "without suffix"


def size(data: bytes) -> tuple[int, int]:
    """Height and width in pixels of an image that `plain` gave, upright; no pixel is decoded."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        lying = _orientation(image) >= _LYING
        return image.size if lying else (image.height, image.width)


def decode(data: bytes, image_size: int) -> np.ndarray:
    """The image as uint8 (image_size, image_size, 3) RGB.

    Raises:
        UserError: as `plain`, or a size below 1.
    """
    if image_size < 1:
        raise UserError(f"image_size={image_size} must be 1 or more")
    pixels = np.empty((image_size, image_size, 3), np.uint8)
    decode_into(plain(data).content, pixels)
    return pixels


def decode_into(data: bytes, pixels: np.ndarray, whole_size: int = 0) -> None:
    """Decode an image that `plain` gave into uint8 `pixels` (H, W, 3), resized, RGB.

    Bilinear at half-pixel centres without antialiasing, as Keras's image_dataset_from_directory
    resizes.

    Args:
        data: the encoded image.
        pixels: what is written to.
        whole_size: height and width that it is resized to in this way, to be averaged to those of
            `pixels` then; 0 for theirs.
    """
    encoded = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)  # turned upright as EXIF says
    if image is None:
        raise UserError("does not decode")
    height, width = pixels.shape[:2]
    size = (whole_size, whole_size) if whole_size else (width, height)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if size != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=pixels)
