"""What else than channels can be taken from a net of one's own: in Linen and in NNX."""

import flax.linen as nn
import jax
import numpy as np
import prunable
import pytest
import tiny_training
from flax import nnx
from jax import lax

from rice_jax import inspection, nets, own_net, train
from rice_jax.errors import UserError
from rice_jax.lighten import smaller
from rice_jax.lighten.candidate import Workshop
from rice_jax.lighten.moves import MOVES, Judge
from rice_jax.prune import prune
from rice_jax.records import Taken
from rice_jax.run import Run
from rice_jax.train import schedule

pytestmark = pytest.mark.usefixtures("drawn_small")

SIDE = 8
IMAGES = prunable.images(1, (4, SIDE, SIDE, 3))
JUDGE = Judge([(IMAGES, np.arange(4) % 3)], 0.5, "study", "l1")


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(x + nn.Conv(x.shape[-1], (3, 3), name="conv")(x))


class Residual(nn.Module):
    classes: int = 3
    flatten: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (1, 1), 2, name="stem")(x))
        x = Block(name="one")(Block(name="two")(x))
        x = x.reshape(len(x), -1) if self.flatten else x.mean((1, 2))
        return nn.Dense(self.classes, name="head")(x)


class BlockNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        return nnx.relu(x + self.conv(x))


class ResidualNNX(nnx.Module):
    def __init__(self, flatten=False, classes=3, *, rngs):
        self.stem = nnx.Conv(3, 4, (1, 1), 2, rngs=rngs)
        self.one, self.two = BlockNNX(rngs), BlockNNX(rngs)
        self.flatten = flatten
        self.head = nnx.Linear(64 if flatten else 4, classes, rngs=rngs)

    def __call__(self, x):
        x = self.one(self.two(nnx.relu(self.stem(x))))
        return self.head(x.reshape(len(x), -1) if self.flatten else x.mean((1, 2)))


IN_BOTH = pytest.mark.parametrize("kind", [Residual, ResidualNNX])


@pytest.fixture
def net(monkeypatch):
    monkeypatch.setattr(nets, "_OWN", {})

    def net(kind, **fields):
        config = own_net.configuration(kind, classes=3, **fields)
        with config.unlocked():
            config.data.image_size = SIDE
            config.train.frozen = ("one/conv", "stem")
        module = train.build(config)
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), IMAGES))
        params = prunable.random_variables(shapes, 0)["params"]
        return train.Trained(config, module, params, tiny_training.CLASSES[:3], 1)

    return net


class Until(nn.Module):
    """How often its loop runs hangs on the image."""

    classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        x = lax.while_loop(lambda x: x.sum() < 9, lambda x: x * 2 + 1, x)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize(("kind", "complete"), [(Residual, True), (Until, False)])
def test_a_candidate_tells_whether_its_flops_lack_something(kind, complete, net, tmp_path):
    whole = net(kind)
    here = Run(tmp_path)
    told = Workshop(here, here, whole.config, None, "flops").costs(whole)
    assert told["flops_complete"] == complete
    assert told["costs"].keys() == {"flops", "params", "bytes"}


def logits(config, params, x=IMAGES):
    module = train.build(config)
    return prunable.compiled(lambda x: module.apply({"params": params}, x), x)(x)


@IN_BOTH
def test_a_block_that_keeps_its_map_s_shape_is_left_out(kind, net):
    """After a ReLU a residual block whose convolution is zero gives what it takes."""
    whole = net(kind)
    assert whole.module.blocks((1, SIDE, SIDE, 3)) == ["two", "one"]
    made, params, anew, _ = smaller.without(whole.config, whole.params, ["one"])
    assert not anew
    assert "one" not in params
    assert made.train.frozen == ("stem",)
    silent = whole.params | {"one": jax.tree.map(np.zeros_like, whole.params["one"])}
    wanted = logits(whole.config, silent)
    np.testing.assert_allclose(logits(made, params), wanted, atol=1e-6)
    module = train.build(made)
    assert module.blocks((1, SIDE, SIDE, 3)) == ["two"]
    cut = prune(module, {"params": params}, [IMAGES], filters={"stem": [0]})
    narrower = smaller.configured(made, cut.module)
    assert train.build(narrower) == cut.module
    assert cut.module.dropped == ("one",)
    with pytest.raises(UserError, match=r"--drop_layers=head: \w+ can drop two, one"):
        smaller.without(whole.config, whole.params, ["head"])


@IN_BOTH
def test_the_layer_that_goes_is_one_of_these_blocks(kind, net):
    lighter = MOVES["layer"](net(kind), JUDGE)
    assert lighter.removed.layer in ("one", "two")


@IN_BOTH
def test_half_of_the_resolution_is_the_net_of_the_averaged_image(kind, net):
    whole = net(kind)
    lighter = MOVES["resolution"](whole, JUDGE)
    averaged = np.asarray(IMAGES).reshape(4, SIDE // 2, 2, SIDE // 2, 2, 3).mean((2, 4))
    wanted = logits(whole.config, whole.params, averaged)
    np.testing.assert_allclose(logits(lighter.config, lighter.params), wanted, atol=1e-5)
    assert lighter.removed == Taken(resolution=(8, 4))


@IN_BOTH
def test_twice_the_stem_s_stride_leaves_every_other_place(kind, net):
    whole = net(kind)
    lighter = MOVES["stem"](whole, JUDGE)
    before, after = (
        inspection.feature_maps(train.build(config), {"params": whole.params}, IMAGES)["stem"]
        for config in (whole.config, lighter.config)
    )
    np.testing.assert_allclose(after, before[:, ::2, ::2], atol=1e-6)
    assert lighter.removed == Taken(stem_stride=(2, 4))


@IN_BOTH
@pytest.mark.parametrize("step", ["resolution", "stem"])
def test_a_net_that_flattens_its_maps_keeps_them(kind, step, net):
    whole = net(kind, flatten=True)
    assert "do not fit smaller maps" in MOVES[step](whole, JUDGE)
    with whole.config.unlocked():
        whole.config.train.schedule = "quick"
    sizes = schedule.image_sizes(whole.config.train, whole.module, SIDE)
    assert set(sizes) == {SIDE}


class Plain(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(nn.Conv(4, (3, 3), 2)(x).mean((1, 2)))


def test_why_no_layer_can_go_is_said(net):
    whole = net(Plain)
    assert "maps of one shape" in MOVES["layer"](whole, JUDGE)
    with pytest.raises(UserError, match="plain can drop none: no layer's input and output"):
        smaller.without(whole.config, whole.params, ["Conv_0"])


class Steps(nn.Module):
    """A convolution of one's own, whose steps are written in its call."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], 4))
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


class Written(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(Steps()(x).mean((1, 2)))


def test_a_stem_whose_stride_is_no_field_is_told(net):
    assert MOVES["stem"](net(Written), JUDGE).startswith("its first convolution is no layer of Fl")
