"""Maps and zeros are those that the net's own layers give, however images are batched."""

import json
import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inspected import NETS, Inception, Residual, random_variables, small

from rice_jax import inspection
from rice_jax.errors import UserError
from rice_jax.inspection import counts

SHAPE = (16, 16, 3)
PADDING = 1e6  # pixels of images that do not count: they would wake any filter


def images(number, seed=0):
    return np.random.default_rng(seed).random((number, *SHAPE), np.float32)


def batched(array, size):
    """Batches all of one size, the last one filled up."""
    for first in range(0, len(array), size):
        rows = array[first : first + size]
        missing = size - len(rows)
        weight = np.float32([1] * len(rows) + [0] * missing)
        yield np.pad(rows, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=PADDING), weight


def own_outputs(module, variables, array):
    """What each convolution's module returns, by Flax's own capture."""

    def is_convolution(layer, _):
        return isinstance(layer, nn.Conv | nn.ConvTranspose)

    apply = jax.jit(lambda v, x: module.apply(v, x, capture_intermediates=is_convolution))
    _, state = apply(variables, array)
    found = {}
    for path, outputs in jax.tree_util.tree_leaves_with_path(
        state["intermediates"], is_leaf=lambda node: isinstance(node, tuple)
    ):
        found["/".join(key.key for key in path[:-1])] = [np.asarray(output) for output in outputs]
    return found


@pytest.mark.parametrize("name", ["googlenet_light", "cnn_light", "cnn"])
@pytest.mark.one_in(2)
def test_maps_and_census_equal_the_layers_own_outputs(name):
    module, array = small(name), images(7)
    variables = random_variables(module, (1, *SHAPE), seed=1)
    expected = {
        path: np.maximum(output, 0)
        for path, (output,) in own_outputs(module, variables, array).items()
    }
    maps = inspection.feature_maps(module, variables, array)
    census = inspection.census(module, variables, batched(array, 3))
    assert maps.keys() == census.layers.keys() == expected.keys()
    assert census.images == 7
    for path, values in expected.items():
        np.testing.assert_allclose(maps[path], values, rtol=1e-4, atol=1e-5)
        layer, zero = census.layers[path], values == 0
        assert layer.filters == values.shape[-1]
        assert layer.dead == np.flatnonzero(zero.all((0, 1, 2))).tolist()
        np.testing.assert_allclose(layer.zero_fraction, zero.mean((0, 1, 2)), atol=1e-3)
        assert 0 in layer.dead


@pytest.mark.parametrize("make", [Residual, Inception])
@pytest.mark.one_in(2)
def test_counts_do_not_depend_on_the_batches(make):
    module, array = make(), images(6)
    variables = random_variables(module, (1, *SHAPE), seed=2)
    whole = inspection.census(module, variables, [(array, np.ones(6))])
    parts = inspection.census(module, variables, batched(array, 4))
    uneven = inspection.census(
        module, variables, [(jnp.asarray(array[:1]), jnp.ones(1)), *batched(array[1:], 4)]
    )
    for other in (parts, uneven):
        assert other.images == whole.images == 6
        for path, layer in whole.layers.items():
            assert other.layers[path].values == layer.values
            # Sums in another order may round a value at 0 to the other side of it.
            np.testing.assert_allclose(other.layers[path].zeros, layer.zeros, atol=2)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_labels_beside_images_are_no_weights(array):
    net, pixels = nn.Conv(2, (1, 1)), array(np.ones((3, 2, 2, 1), np.float32))
    # Filter 0 is 0 on all 12 pixels, filter 1 on none.
    kernel = np.float32([0, 1]).reshape(1, 1, 1, 2)
    variables = {"params": {"kernel": kernel, "bias": np.zeros(2, np.float32)}}

    def seen(*beside):
        found = inspection.census(net, variables, [(pixels, *beside)] if beside else [pixels])
        (layer,) = found.layers.values()
        return found.images, layer.values, layer.zeros.tolist()

    alone = (3, 12, [12, 0])
    assert seen() == seen(None) == alone
    for labels in ([0, 1, 2], [0, 0, 0], [[0, 1], [1, 0], [0, 0]]):
        for kind in (np.int32, np.uint8):
            assert seen(array(np.array(labels, kind))) == alone
    for kind in (np.float32, bool):
        assert seen(array(np.array([1, 0, 1], kind))) == (2, 8, [8, 0])
    with pytest.raises(UserError, match=r"not float32 of shape \(3, 2\)"):
        seen(array(np.ones((3, 2), np.float32)))


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.one_in(3)  # each kind of array, and each place
def test_labels_that_are_floats_are_refused_wherever_they_stand(array, place):
    """The first class's, 0.0, would be images that fill up; any weight from 0 to 1 is one."""
    net, pixels = nn.Conv(1, (1, 1)), np.ones((3, 2, 2, 1), np.float32)
    variables = {"params": {"kernel": np.zeros((1, 1, 1, 1), np.float32), "bias": np.zeros(1)}}

    def seen(beside, kind):
        batches = [(pixels, array(np.ones(3, np.float32)))] * 5
        batches[place] = pixels, array(np.array(beside, kind))
        return inspection.census(net, variables, iter(batches)).images

    for kind in (np.float32, np.float16):
        for labels in ([0, 1, 2], [0, -1, 1], [0, np.nan, 1], [1.5, 0, 0]):
            with pytest.raises(UserError, match="floats that are no weights from 0 to 1: give la"):
                seen(labels, kind)
        assert seen([0, 0.5, 1], kind) == 14


def test_a_layer_called_twice_is_dead_only_where_both_calls_are():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv = nn.Conv(3, (1, 1), name="conv")
            return nn.relu(conv(nn.relu(conv(x)) - 1))

    # Of x = 1: filter 0 is 1 and then 0, filter 1 is 0 and then 2, filter 2 is 0 twice.
    kernel = np.float32([[1, 0, 0], [0, -2, 0], [0, 0, 0]])[None, None]
    variables = {"params": {"conv": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}}
    ones = np.ones((2, 1, 1, 3), np.float32)
    (layer,) = inspection.census(Twice(), variables, [(ones, np.ones(2))]).layers.values()
    assert (layer.path, layer.zeros.tolist(), layer.values) == ("conv", [2, 2, 4], 4)
    assert layer.dead == [2]
    assert layer.zero_fraction == [0.5, 0.5, 1.0]
    assert list(inspection.feature_maps(Twice(), variables, ones)) == ["conv", "conv@2"]


def test_transform_sees_pixels_and_the_place_of_the_batch():
    module, array = small("cnn_light"), images(6)
    variables = random_variables(module, (1, *SHAPE), seed=1)
    pixels = np.uint8(array * 255)
    tinted = np.float32(pixels) / 255 * np.float32(np.arange(6) / 5)[:, None, None, None]

    def tint(batch, first):
        place = (first + jnp.arange(batch.shape[0])).astype(jnp.float32)
        return batch / 255 * (place / 5)[:, None, None, None]

    batches = [(pixels[:4], np.ones(4)), (pixels[4:], np.ones(2))]
    got = inspection.census(module, variables, batches, transform=tint)
    expected = inspection.census(module, variables, [(tinted, np.ones(6))])
    for path, layer in expected.layers.items():
        np.testing.assert_allclose(got.layers[path].zeros, layer.zeros, atol=2)


def test_kinds_of_images_are_counted_as_each_alone_by_one_program():
    called = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x):
            called.append(x.shape)
            return nn.relu(nn.Conv(4, (3, 3), name="conv")(x))

    module, array = Counted(), images(6)
    variables = random_variables(module, (1, *SHAPE), seed=1)
    transforms = {"clean": lambda x, first: x / 255, "dark": lambda x, first: x / 255 - 0.5}
    pixels = np.uint8(array * 255)

    def batches():
        return [(pixels[:4], np.ones(4)), (pixels[2:], np.float32([0, 0, 1, 1]))]

    called.clear()
    expected, calls = {}, {}
    for kind, transform in transforms.items():
        called.clear()
        expected[kind] = inspection.census(module, variables, batches(), transform=transform)
        calls[kind] = len(called)
    called.clear()
    got = inspection.censuses(module, variables, dict.fromkeys(transforms, batches()), transforms)
    assert len(called) <= calls["clean"]
    assert list(got) == ["clean", "dark"]
    for kind, census in got.items():
        assert census.images == 6
        layer, other = census.layers["conv"], expected[kind].layers["conv"]
        assert (layer.zeros.tolist(), layer.values) == (other.zeros.tolist(), other.values)
    assert got["clean"].layers["conv"].zeros.tolist() != got["dark"].layers["conv"].zeros.tolist()
    with pytest.raises(UserError, match="no images"):
        inspection.censuses(module, variables, {"clean": batches(), "dark": []}, transforms)
    for kinds, alone in ((["clean"], "dark"), (["clean", "dark", "grey"], "grey")):
        with pytest.raises(UserError, match=f"'{alone}': give each kind its batches"):
            inspection.censuses(module, variables, dict.fromkeys(kinds, batches()), transforms)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from inspected import random_variables, small
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rice_jax import inspection

module, shape = small("cnn"), (16, 16, 3)
images = np.random.default_rng(0).random((7, *shape), np.float32)
variables = random_variables(module, (1, *shape), seed=1)

def dim(batch, first):
    place = (first + jnp.arange(len(batch))).astype(jnp.float32)
    return batch * (place / 7)[:, None, None, None]

def batches(size, rows):
    for first in range(0, 7, size):
        part = images[first : first + size]
        weight = np.arange(rows) < len(part)
        yield np.resize(part, (rows, *shape)), np.float32(weight)

devices = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
assert len(jax.devices()) == 2
spread = [jax.device_put(batch, devices) for batch in batches(3, 4)]
got = inspection.census(module, variables, spread, transform=dim)
expected = inspection.census(module, variables, batches(7, 7), transform=dim)
assert got.images == expected.images == 7
for path, layer in expected.layers.items():
    assert got.layers[path].values == layer.values
    np.testing.assert_allclose(got.layers[path].zeros, layer.zeros, atol=2)
    assert 0 < layer.zeros[1:].sum() < layer.values * (layer.filters - 1)
"""


def test_batches_spread_over_devices_give_the_same_counts():
    folder = pathlib.Path(__file__).parent
    devices = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    environment = os.environ | devices | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-W", "error", "-c", SHARDED]
    done = subprocess.run(command, env=environment, cwd=folder.parent, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_counts_stay_exact_beyond_32_bits():
    steps = np.uint32([[2**32 - 1, 5, 0], [2**31, 7, 0], [2**32 - 1, 2**32 - 1, 1]])
    total = counts.zeros(3)
    for step in steps:
        total = jax.jit(counts.add)(total, step)
    assert counts.to_host(total).tolist() == steps.astype(object).sum(0).tolist()


def test_mistakes_are_named():
    module = small("cnn_light")
    variables = random_variables(module, (1, *SHAPE), seed=1)
    with pytest.raises(UserError, match="no images"):
        inspection.census(module, variables, [])
    with pytest.raises(UserError, match="no images"):
        inspection.census(module, variables, [(images(2), np.zeros(2))])
    with pytest.raises(UserError, match="uint8"):
        inspection.census(module, variables, [(np.uint8(images(2)), np.ones(2))])
    with pytest.raises(UserError, match="uint8"):
        inspection.feature_maps(module, variables, np.uint8(images(2)))

    class Doubled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(2, (1, 1), name="conv")(jnp.concatenate([x, x[:, ::-1]]))

    variables = random_variables(Doubled(), (1, *SHAPE), seed=1)
    with pytest.raises(UserError, match="'conv' works on 4 rows where 2 images"):
        inspection.feature_maps(Doubled(), variables, images(2))


@pytest.mark.parametrize("name", ["cnn_light", "residual", "inception"])
@pytest.mark.one_in(3)
def test_proven_filters_are_dead_in_every_census_and_the_findings_say_so(name):
    module, array = NETS[name](), images(4)
    variables = random_variables(module, (1, *SHAPE), seed=3)
    proven = inspection.proven_dead(module, variables, SHAPE)
    clean = inspection.census(module, variables, [(array, np.ones(4))])
    dark = inspection.census(module, variables, [(array * np.float32(0.1), np.ones(4))])
    found = inspection.to_json(clean, dark, proven)
    assert json.loads(json.dumps(found)) == found
    assert found["images"] == 4
    assert [layer["path"] for layer in found["layers"]] == list(proven)
    for layer in found["layers"]:
        assert set(layer["proven_dead"]) <= set(layer["dead_clean"]) & set(layer["dead_augmented"])
        assert len(layer["zero_fraction"]) == layer["filters"]
    first = found["layers"][0]
    wrong = proven | {first["path"]: sorted(set(range(first["filters"])) - {*first["dead_clean"]})}
    with pytest.raises(UserError, match="proven dead but live in the clean census"):
        inspection.to_json(clean, dark, wrong)


def test_findings_are_of_one_net():
    def looked_at(module):
        variables = random_variables(module, (1, *SHAPE), seed=1)
        census = inspection.census(module, variables, images(2))
        return census, census, inspection.proven_dead(module, variables, SHAPE)

    one, other = looked_at(small("cnn_light")), looked_at(small("cnn"))
    for place in range(3):
        for these, those in ((one, other), (other, one)):
            mixed = (*these[:place], those[place], *these[place + 1 :])
            with pytest.raises(UserError, match="conv3: not in both censuses and the proof"):
                inspection.to_json(*mixed)
