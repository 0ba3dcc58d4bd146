"""Synthetic grains: what stands in for photographs of rice when there are none.

Each is a blunt ellipse on black, |x|^p + y^2 < 1, with the size, proportions, colour and shading
that were measured on 300 photographs of its variety (grey above 40 counted as grain).
"""

import math
import pathlib
import zlib
from typing import NamedTuple

import cv2
import numpy as np

from rice_jax.data.layout import Member
from rice_jax.errors import UserError

SIZE = 250  # pixels, both ways
_CENTRE, _JITTER = 124, 3
_LONGEST = 236  # pixels: stays inside the image wherever the centre falls
_JPEG_QUALITY = 75  # that of the photographs, by their quantisation tables
_DRAWING = zlib.crc32(pathlib.Path(__file__).read_bytes())  # grains drawn otherwise are others
_LIMIT = 2.5  # standard deviations: the photographs have no monsters


class Variety(NamedTuple):
    """Measured means, each (mean, standard deviation) in pixels or grey levels."""

    area: tuple[float, float]
    major: tuple[float, float]  # 4 times the root of the shape covariance's eigenvalue
    minor: tuple[float, float]
    rgb: tuple[float, float, float]
    rgb_std: float
    grey_std: float  # within one grain


VARIETIES = {
    "Arborio": Variety((7483, 780), (137.3, 7.3), (70.1, 4.8), (213, 213, 219), 10, 18.8),
    "Basmati": Variety((7583, 885), (202.4, 15.4), (48.6, 3.7), (217, 219, 237), 6, 17.4),
    "Ipsala": Variety((13891, 1583), (196.0, 11.5), (91.2, 6.6), (236, 236, 232), 6, 11.5),
    "Jasmine": Variety((6428, 1919), (159.2, 24.1), (51.5, 7.3), (210, 217, 226), 12, 14.6),
    "Karacadag": Variety((6500, 489), (115.1, 5.5), (72.5, 3.7), (205, 205, 226), 7, 18.4),
}


class Grains:
    """An archive whose images are drawn when they are read, each from its name and the seed."""

    def __init__(self, per_class: int, seed: int) -> None:
        if per_class < 3:
            raise UserError(
                f"--config.data.synthetic_per_class={per_class}: at least 3 are needed, one each "
                "for training, validation and test"
            )
        self._seed = seed
        stamp = f"drawn with seed {seed} by {_DRAWING}"
        self.members = [
            Member(label, name, name, 0, stamp)
            for label in VARIETIES
            for name in (f"{label}/{label} ({number}).jpg" for number in range(1, per_class + 1))
        ]

    def read(self, member: Member) -> bytes:
        """The grain as JPEG."""
        rng = np.random.default_rng([self._seed % 2**64, zlib.crc32(member.name.encode())])
        image = draw(VARIETIES[member.label], rng)
        _, encoded = cv2.imencode(
            ".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        return encoded.tobytes()


def draw(variety: Variety, rng: np.random.Generator) -> np.ndarray:
    """One grain at any angle: uint8 RGB (250, 250, 3)."""
    major, minor = _axes(variety, rng)
    along, across = _coordinates(rng)
    bluntness = _bluntness(variety)
    _, along_variance, across_variance = _moments(bluntness)
    x = along / (major / 4) * math.sqrt(along_variance)
    y = across / (minor / 4) * math.sqrt(across_variance)
    radius = abs(x) ** bluntness + y**2
    inside = radius < 1
    shading = _shading(radius, rng)[inside]
    shading = (shading - shading.mean()) / shading.std()
    spread = variety.grey_std * _normal(rng, 1, 0.12)
    tint = _normal(rng, 0, 0.9) + np.array([_normal(rng, 0, 0.44) for _ in range(3)])
    colour = np.array(variety.rgb) + variety.rgb_std * tint
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[inside] = (colour + spread * shading[:, None]).round().clip(0, 255)
    return image


def _axes(variety: Variety, rng: np.random.Generator) -> tuple[float, float]:
    """Major and minor axis, as correlated as the spread of the area says they are."""
    together = _correlation(variety)
    first = _normal(rng, 0, 1)
    second = together * first + math.sqrt(1 - together**2) * _normal(rng, 0, 1)
    major = variety.major[0] + variety.major[1] * first
    return min(major, _LONGEST), variety.minor[0] + variety.minor[1] * second


def _correlation(variety: Variety) -> float:
    """Of the axes, from var(log area) = var(log major + log minor)."""
    area, major, minor = (std / mean for mean, std in variety[:3])
    return min(0.95, (area**2 - major**2 - minor**2) / (2 * major * minor))


def _coordinates(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixels along and across the grain, about its centre."""
    angle = rng.uniform(0, math.pi)
    column, row = _CENTRE + rng.uniform(-_JITTER, _JITTER, 2)
    x = np.arange(SIZE, dtype=np.float32)[None, :] - np.float32(column)
    y = np.arange(SIZE, dtype=np.float32)[:, None] - np.float32(row)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _moments(bluntness: float) -> tuple[float, float, float]:
    """Of |x|^p + y^2 < 1: area, variance of x, variance of y, by Dirichlet's integral."""
    gamma, p = math.gamma, bluntness
    area = 2 / p * gamma(1 / p) * gamma(1 / 2) / gamma(3 / 2 + 1 / p)
    x = 2 / p * gamma(3 / p) * gamma(1 / 2) / gamma(3 / 2 + 3 / p)
    y = 2 / p * gamma(1 / p) * gamma(3 / 2) / gamma(5 / 2 + 1 / p)
    return area, x / area, y / area


def _bluntness(variety: Variety) -> float:
    """The p that gives the measured area: the blunter, the less area for the same axes."""
    covariance = _correlation(variety) * variety.major[1] * variety.minor[1]
    ellipse = math.pi / 4 * (variety.major[0] * variety.minor[0] + covariance)

    def fullness(p: float) -> float:
        area, x, y = _moments(p)
        return area / (4 * math.pi * math.sqrt(x * y))

    low, high = 2.0, 16.0
    for _ in range(30):
        middle = (low + high) / 2
        blunter = fullness(middle) > variety.area[0] / ellipse
        low, high = (middle, high) if blunter else (low, middle)
    return low


def _shading(radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Broad patches of chalk, a fine grain and a rim, dull or bright, in no unit."""
    patches = cv2.resize(
        rng.standard_normal((6, 6), np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC
    )
    fine = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE), np.float32), (5, 5), 0.8)
    return patches + fine + _normal(rng, -1, 1) * radius.clip(0, 1) ** 2


def _normal(rng: np.random.Generator, mean: float, std: float) -> float:
    return mean + std * min(_LIMIT, max(-_LIMIT, rng.standard_normal()))
