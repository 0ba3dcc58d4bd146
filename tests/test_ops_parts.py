"""Parts of a batch: as many images as pay, and the same results as the whole."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double_precision

from rice_jax import models, ops
from rice_jax.models import NETS
from rice_jax.models.layers import Dropout

pytestmark = pytest.mark.usefixtures("compiled_well")

MIB = 2**20


def part(module, side, images=64, platform="cpu"):
    shape = jax.ShapeDtypeStruct((images, side, side, 3), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), shape)
    return ops.part_size(module, variables, shape, platform)


class Layers(nn.Module):
    """Two maps of `filters` channels, then the same dense layer of `units` at each pixel."""

    filters: int
    units: int

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.Conv(self.filters, (1, 1))(x)
        return nn.Dense(self.units)(x.reshape(len(x), -1))


def test_maps_of_half_a_megabyte_on_average():
    # An image of 32 x 32 pixels: two maps of 32 filters are 0.25 MiB, the output, which the dense
    # layer and the net both give, next to nothing. 4 entries x 0.5 MiB / 0.25 MiB = 8 images.
    assert part(Layers(32, 1), 32) == 8
    assert part(Layers(64, 1), 32) == 4
    assert part(Layers(1024, 1), 32, images=1) == 1
    assert part(Layers(2, 1), 32) == 64


def test_variables_are_used_for_many_images_at_a_time():
    # The dense kernel has 32 * 32 * 32 * 64 * 4 bytes = 8 MiB: 8 x 8 MiB / 0.25 MiB = 256 images.
    assert part(Layers(32, 64), 32, images=64) == 64
    assert part(Layers(32, 64), 32, images=512) == 256


@pytest.mark.parametrize("name", NETS)
@pytest.mark.one_in(2)
def test_a_part_divides_the_batch(name):
    for images in (1, 7, 12):
        assert images % part(models.build(name), 32, images) == 0


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_compute_the_whole_batch(platform):
    assert part(models.build("final"), 224, 64, platform) == 64


@pytest.mark.parametrize("size", [1, 3, 4, 12])
def test_sums_and_maps_are_those_of_the_whole(size):
    with double_precision():
        rows = np.random.default_rng(0).standard_normal((12, 5))
        weights = np.arange(12.0)

        def total(first, part):
            places = first + jnp.arange(len(part["rows"]))
            return {"sum": (part["rows"] * part["weights"][:, None]).sum(0), "places": places.sum()}

        summed = jax.jit(lambda arrays: ops.summed(total, arrays, size))
        found = summed({"rows": rows, "weights": weights})
        np.testing.assert_allclose(found["sum"], weights @ rows, rtol=1e-12)
        assert found["places"] == 66
        mapped = jax.jit(lambda array: ops.mapped(lambda part: jnp.exp(part[:, :2]), array, size))
        np.testing.assert_allclose(mapped(rows), np.exp(rows[:, :2]), rtol=1e-12)


def test_an_image_is_dropped_out_by_its_place_in_the_batch():
    ones, key = jnp.ones((6, 40)), {"dropout": jax.random.key(1)}
    whole = Dropout(0.4).apply({}, ones, True, rngs=key)
    for first in (0, 2, 5):
        share = Dropout(0.4, first).apply({}, ones[first:], True, rngs=key)
        np.testing.assert_array_equal(share, whole[first:])
    assert len(np.unique(whole > 0, axis=0)) == 6
    assert set(np.unique(whole)) == {np.float32(0), np.float32(1 / 0.6)}
    np.testing.assert_array_equal(Dropout(0.4).apply({}, ones, False), ones)
