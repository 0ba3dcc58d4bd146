"""Synthetic grains against the measurements that they are drawn from."""

import cv2
import numpy as np
import pytest

from rice_jax.data import images
from rice_jax.data.grains import VARIETIES, Grains, draw
from rice_jax.errors import UserError

# Means and standard deviations of 300 photographs a class: area, major, minor, mean red, green,
# blue, and the mean of the standard deviation of grey.
STUDY = {
    "Arborio": ((7483, 137.3, 70.1, 213, 213, 219, 18.8), (780, 7.3, 4.8, 10, 10, 10)),
    "Basmati": ((7583, 202.4, 48.6, 217, 219, 237, 17.4), (885, 15.4, 3.7, 6, 6, 6)),
    "Ipsala": ((13891, 196.0, 91.2, 236, 236, 232, 11.5), (1583, 11.5, 6.6, 6, 6, 6)),
    "Jasmine": ((6428, 159.2, 51.5, 210, 217, 226, 14.6), (1919, 24.1, 7.3, 12, 12, 12)),
    "Karacadag": ((6500, 115.1, 72.5, 205, 205, 226, 18.4), (489, 5.5, 3.7, 7, 7, 7)),
}
DRAWN = 120


def measured(image):
    """As the photographs were: grain is grey above 40, axes are 4 roots of the eigenvalues."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grain = grey > 40
    rows, columns = np.nonzero(grain)
    values, vectors = np.linalg.eigh(np.cov(np.stack([columns, rows])))
    return {
        "figures": (
            grain.sum(),
            4 * values[1] ** 0.5,
            4 * values[0] ** 0.5,
            *image[grain].mean(0),
            grey[grain].std(),
        ),
        "centre": (columns.mean(), rows.mean()),
        "angle": np.arctan2(*vectors[::-1, 1]) % np.pi,
    }


def decoded(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def grains():
    archive = Grains(DRAWN, seed=0)
    drawn = {name: [] for name in VARIETIES}
    for member in archive.members:
        drawn[member.label].append(archive.read(member))
    return drawn


@pytest.mark.parametrize("variety", STUDY)
def test_they_measure_as_the_photographs_do(grains, variety):
    figures = np.array([measured(decoded(data))["figures"] for data in grains[variety]])
    means, deviations = map(np.array, STUDY[variety])
    # Three standard errors of a mean, and 1.5% for what the threshold and JPEG do to an edge.
    allowed = 3 * deviations / DRAWN**0.5 + 0.015 * means[:6]
    assert (abs(figures.mean(0)[:6] - means[:6]) < allowed).all()
    assert abs(figures[:, 6].mean() / means[6] - 1) < 0.1
    # The standard deviation of 120 normal draws is itself uncertain by 6.5%, twice over is common;
    # a grain must also stay in the image and a colour below 256.
    assert (abs(figures.std(0)[:6] / deviations - 1) < 0.35).all()


def test_they_lie_at_the_centre_at_any_angle(grains):
    found = [measured(decoded(data)) for drawn in grains.values() for data in drawn]
    assert np.abs(np.array([each["centre"] for each in found]) - 124).max() < 4.5
    angles = np.sort([each["angle"] for each in found]) / np.pi
    # Kolmogorov-Smirnov against the uniform distribution, at the 0.1% level.
    uniform = (np.arange(len(angles)) + 0.5) / len(angles)
    assert abs(angles - uniform).max() < 1.95 / len(angles) ** 0.5


def test_they_are_jpegs_of_the_photographs_size(grains):
    encoded = [data for drawn in grains.values() for data in drawn]
    for data in encoded[::20]:
        assert images.plain(data) == (data, ())
        assert decoded(data).shape == (250, 250, 3)
    assert 3000 < np.mean([len(data) for data in encoded]) < 4500  # the photographs' mean: 3567


def test_the_background_is_black():
    image = draw(VARIETIES["Basmati"], np.random.default_rng(0))
    assert (image.reshape(-1, 3).any(1).sum()) < 12_000


def test_a_grain_is_a_function_of_its_name_and_the_seed():
    few, many = Grains(3, seed=5), Grains(4, seed=5)
    assert set(few.members) < set(many.members)
    first = {member: few.read(member) for member in reversed(few.members)}
    assert all(many.read(member) == data for member, data in first.items())
    other = Grains(3, seed=6)
    assert all(other.read(member) != data for member, data in first.items())
    assert len(set(first.values())) == 15


def test_fewer_grains_than_splits_are_refused():
    with pytest.raises(UserError, match="synthetic_per_class=2: at least 3"):
        Grains(2, seed=0)
