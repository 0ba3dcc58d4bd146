"""Shapes and images that a net does not run on: one line that says which, and where it fails."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rice_jax import inspection, profile
from rice_jax.errors import UserError
from rice_jax.prune import certify, dependencies, prune, totals


class Flat(nn.Module):
    """Of 8 x 8 pixels alone, as it says itself."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Conv(4, (3, 3), name="conv")(x).reshape(len(x), 4 * 64))


class FlatNNX(nnx.Module):
    """The same by the size of its head."""

    def __init__(self, *, rngs):
        self.conv, self.head = (
            nnx.Conv(3, 4, (3, 3), rngs=rngs),
            nnx.Linear(256, 3, rngs=rngs),
        )

    def __call__(self, x):
        return self.head(self.conv(x).reshape(len(x), -1))


class Solid(nn.Module):
    """Along three dimensions, and of 8 pixels deep at least."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3, 3), name="conv")(x)
        return nn.Dense(3)(x.sum((1, 2, 3)) * (1 / (x.shape[3] // 8)))


def flat(params, x):
    with jax.named_scope("conv"):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, params[0], (1, 1), "SAME", dimension_numbers=numbers)
    return x.reshape(len(x), -1) @ params[1]


def linen(net, shape):
    return net, net.init(jax.random.key(0), jnp.zeros(shape))


NETS = {
    "Flat": (linen(Flat(), (1, 8, 8, 3)), (8, 8, 3)),
    "FlatNNX": ((FlatNNX(rngs=nnx.Rngs(0)),), (8, 8, 3)),
    "flat": ((flat, (jnp.ones((3, 3, 3, 4)), jnp.ones((256, 3)))), (8, 8, 3)),
    "Solid": (linen(Solid(), (1, 8, 8, 8, 3)), (1, 8, 8, 8, 3)),
}
FAILING = {
    "Flat": [(4, 4, 3), (8, 8), (8,)],
    "FlatNNX": [(4, 4, 3), (8, 8, 1), (3, 8, 8), (8, 8)],
    "flat": [(4, 4, 3), (8, 8, 1), (3, 8, 8), (1, 8, 8, 8, 3)],
    "Solid": [(4, 4, 3), (8, 8)],
}
CASES = [(name, shape) for name, shapes in FAILING.items() for shape in shapes]


def told(call):
    with pytest.raises(UserError) as caught:
        call()
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_shape_that_a_net_does_not_run_on_is_told_with_the_line_of_its_code(name, shape):
    given, _ = NETS[name]
    net = given[:1] if name in ("Flat", "Solid") else given
    for call in (
        lambda: profile.count(*net, shape),
        lambda: inspection.proven_dead(*given, shape),
        lambda: dependencies(*net, shape),
        lambda: totals(*net, shape),
        lambda: profile.latency(*given, shape),
    ):
        line = told(call)
        assert f"{name} does not run on an input of shape" in line
        assert "test_graph_input_shape.py, line " in line


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_images_likewise(name, shape):
    given, _ = NETS[name]
    images = np.ones((2, *shape) if len(shape) < 4 else shape, np.float32)
    for call in (
        lambda: inspection.feature_maps(*given, images),
        lambda: inspection.census(*given, [images]),
        lambda: prune(*given, [images], filters={"conv": [0]}),
        lambda: certify(*[given if given[1:] else given[0]] * 2, [images]),
    ):
        line = told(call)
        assert f", {', '.join(map(str, images.shape[1:]))})" in line


@pytest.mark.parametrize("name", ["Flat", "FlatNNX", "flat", "Solid"])
def test_the_shape_that_a_net_is_for_is_taken(name):
    given, shape = NETS[name]
    images = np.ones(shape if len(shape) > 3 else (2, *shape), np.float32)
    assert inspection.feature_maps(*given, images)["conv"].shape == (*images.shape[:-1], 4)
    assert inspection.proven_dead(*given, shape)["conv"] == []


IMAGE = (8, 8, 3)


class Asks(nn.Module):
    """For an argument beside images."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(not train)(nn.Conv(4, (3, 3), name="conv")(x))
        return nn.Dense(3)(x.mean((1, 2)))


class AsksNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)

    def __call__(self, x, train):
        return self.conv(x).mean((1, 2))


def asks(params, x, train):
    return (x @ params).mean((1, 2))


class AsksWithin(nn.Module):
    """Its own code forgets the argument."""

    @nn.compact
    def __call__(self, x):
        return Asks()(x)


ASKING = {
    "Asks": ((Asks(), Asks().init(jax.random.key(0), np.ones((1, *IMAGE)), False)), IMAGE),
    "AsksNNX": ((AsksNNX(nnx.Rngs(0)),), IMAGE),
    "asks": ((asks, np.ones((3, 3), np.float32)), IMAGE),
}


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize(
    ("given", "told_of"),
    [({}, "missing"), ({"trian": False}, "trian"), ({"train": 0, "mode": 1}, "mode")],
)
def test_arguments_that_a_net_does_not_take_are_no_fault_of_the_shape(name, given, told_of):
    net, shape = ASKING[name]
    images = np.ones((2, *shape), np.float32)
    for call in (
        lambda: profile.count(*net[: 2 - (name == "Asks")], shape, **given),
        lambda: inspection.proven_dead(*net, shape, **given),
        lambda: inspection.feature_maps(*net, images, **given),
        lambda: certify(*[net if net[1:] else net[0]] * 2, [images], **given),
    ):
        line = told(call)
        assert told_of in line
        assert f"what {name} takes beside images is given by name" in line
        assert "shape" not in line


def test_an_argument_that_a_nets_own_code_forgets_is_told_with_its_line():
    line = told(lambda: profile.count(AsksWithin(), IMAGE))
    assert "test_graph_input_shape.py, line " in line
    assert "by name" not in line


class Mean(nn.Module):
    """Of any size, along as many dimensions as its kernel has."""

    kernel: tuple

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, self.kernel, name="conv")(x)
        return nn.Dense(3)(x.mean(range(1, x.ndim - 1)))


@pytest.mark.parametrize("image", [(8, 3), (8, 8, 3), (8, 8, 8, 3)])
def test_what_a_net_comes_to_for_an_image_is_the_same_whatever_batch_is_told(image):
    net = Mean((3,) * (len(image) - 1))
    expected = profile.count(net, (1, *image), batched=True)
    for shape, batched in ((image, False), ((1, *image), True), ((5, *image), True)):
        found = totals(net, shape, batched=batched)
        assert found == expected.flops.to_json() | {
            "params": expected.params,
            "filters": 4,
            "uncounted": 0,
        }
    if len(image) == 3:
        assert totals(net, image) == totals(net, (5, *image)) == found
    given = linen(net, (1, *image))
    assert profile.latency(*given, (5, *image), batched=True, repeats=1, seconds=0)["repeats"] == 1


@pytest.mark.parametrize("kernel", [(3,), (3, 3, 3)])
def test_a_shape_that_is_no_images_is_read_as_it_is_told_alone(kernel):
    given = linen(Mean(kernel), (1, *[8] * len(kernel), 3))
    for call in (totals, dependencies, profile.count):
        assert "say batched=True" in told(lambda call=call: call(given[0], (2, 8, 3)))
    assert "say batched=True" in told(lambda: profile.latency(*given, (2, 8, 3)))


def test_images_without_their_batch_are_told_so():
    class Last(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.Conv(4, (3, 3), name="conv")(x).mean((-3, -2)))

    given = linen(Last(), (1, 8, 8, 3))
    image = np.ones((8, 8, 3), np.float32)
    line = told(lambda: inspection.feature_maps(*given, image))
    assert "images are (8, 8, 3)" in line
    assert "'conv' works along 2 dimensions: give them in a batch" in line


def test_what_else_fails_in_a_net_stays_what_it_is():
    class Unknown(nn.Module):
        @nn.compact
        def __call__(self, x):
            return {"relu": nn.relu}["tanh"](x)

    with pytest.raises(KeyError, match="tanh"):
        profile.count(Unknown(), (8, 8, 3))
