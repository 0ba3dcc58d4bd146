"""Nets of one's own that give more than logits: which of it the logits are, and what is done."""

from typing import Any, NamedTuple

import commands
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rice_jax import own_net, train
from rice_jax.errors import UserError
from rice_jax.models import build
from rice_jax.run import Run
from rice_jax.train import diagnosis

SHAPE = (2, 8, 8, 3)
IMAGES = np.random.default_rng(0).random(SHAPE, np.float32)


class Answer(NamedTuple):
    """By attribute; the logits are no first one."""

    side: Any
    logits: Any


def arranged(how, logits, side):
    """Both as a net may give them; `how` 'training' gives the side in training alone."""
    return {
        "named": {"side": side, "logits": logits},
        "nested": {"heads": {"side": side, "logits": logits}},
        "pair": (side, logits),
        "attributes": Answer(side, logits),
        "training": (logits, side),
        "lone": logits,
        "lone in a dict": {"any": logits},
    }[how]


class Both(nn.Module):
    """Two heads, of which the one beside has a convolution that no logit asks for."""

    how: str = "named"
    classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(6, (3, 3), 2, name="conv")(x))
        side = nn.relu(nn.Conv(4, (3, 3), name="side")(x))
        side = nn.Dense(self.classes, name="side_head")(side.mean((1, 2)))
        logits = nn.Dense(self.classes, name="head")(x.mean((1, 2)))
        lone = self.how == "training" and not train
        return arranged("lone" if lone else self.how, logits, side)


class BothNNX(nnx.Module):
    """The same in NNX, which is told of no training."""

    def __init__(self, how="named", classes=5, *, rngs):
        self.how = how
        self.conv = nnx.Conv(3, 6, (3, 3), 2, rngs=rngs)
        self.side = nnx.Conv(6, 4, (3, 3), rngs=rngs)
        self.side_head = nnx.Linear(4, classes, rngs=rngs)
        self.head = nnx.Linear(6, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv(x))
        side = self.side_head(nnx.relu(self.side(x)).mean((1, 2)))
        return arranged(self.how, self.head(x.mean((1, 2))), side)


def made(net, how, output):
    """The module of training, of a net whose configuration names the output."""
    own_net.configuration(net, "both", how=how, output=output)
    return build("both", how=how)


def by_hand(params):
    """The logits of Both and BothNNX."""
    x = nn.Conv(6, (3, 3), 2).apply({"params": params["conv"]}, IMAGES)
    return nn.Dense(5).apply({"params": params["head"]}, nn.relu(x).mean((1, 2)))


NAMED = [
    ("named", "logits"),
    ("nested", lambda result: result["heads"]["logits"]),
    ("pair", 1),
    ("pair", -1),
    ("attributes", "logits"),
    ("attributes", 1),
    ("training", 0),
    ("lone", None),
    ("lone", "logits"),
    ("lone in a dict", None),
]


@pytest.mark.parametrize(("how", "output"), NAMED)
@pytest.mark.parametrize("net", [Both, BothNNX])
@pytest.mark.parametrize("learns", [False, True])
def test_the_output_that_is_named_is_the_logits(net, how, output, learns):
    module = made(net, how, output)
    params = module.init(jax.random.key(0), jnp.zeros(SHAPE))["params"]
    logits = module.apply({"params": params}, IMAGES, train=learns)
    np.testing.assert_allclose(logits, by_hand(params), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net", [Both, BothNNX])
@pytest.mark.parametrize(
    ("how", "output", "message"),
    [
        ("named", None, r"\): the net gives .*side \(2, 5\).*: say which are the logits with outp"),
        ("pair", None, r"\): the net gives 0 \(2, 5\), 1 \(2, 5\): say which are the logits"),
        ("named", "logit", r"\): no output is 'logit': the net gives .*logits \(2, 5\)"),
        ("pair", 2, r"\): no output is 2: the net gives 0 \(2, 5\), 1 \(2, 5\)"),
        ("nested", "heads", r"\): output 'heads' is no array: the net gives heads/"),
        ("named", lambda result: result, "gives a dict of 2 images, no logits"),
    ],
)
def test_what_names_no_logits_is_told_with_what_there_is(net, how, output, message):
    with pytest.raises(UserError, match=message):
        made(net, how, output).init(jax.random.key(0), jnp.zeros(SHAPE))


class Asking(Both):
    """A field of its own of the option's name."""

    output: int = 3


def test_output_is_no_field_and_a_field_of_that_name_stays_one():
    with pytest.raises(UserError, match=r"output=\(1, 2\): give a key, an attribute, an index"):
        own_net.configuration(Both, "both", output=(1, 2))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"Asking\.output is a field of its own, .* set config\.mo"):
        own_net.configuration(Asking, "asking", output=2)
    assert own_net.configuration(Asking, "asking").model.output == 3
    assert build("asking", output=4, how="lone").whole.module.output == 4


@pytest.mark.parametrize("net", [Both, BothNNX])
def test_a_head_that_no_logit_asks_for_is_no_sign_of_a_net_that_cannot_learn(net):
    module = made(net, "named", "logits")
    params = jax.tree.map(np.array, module.init(jax.random.key(0), jnp.zeros(SHAPE))["params"])
    labels = np.array([0, 1])

    def looked_at():
        return diagnosis.collapse(module, params, IMAGES, labels, loss=1.6, chance=1.6)

    params["side"]["bias"][:] = -100
    assert (looked_at().dead, looked_at().silent) == ("", ())
    params["conv"]["bias"][:] = -100
    assert (looked_at().dead, looked_at().silent) == ("conv", ("conv",))


FILE = """
from test_own_output import {net}
from rice_jax.own_net import configuration

def get_config():
    return configuration({net}, output="logits")
"""
SMALL = ("--config.data.path=synthetic", "--config.data.image_size=16", "--config.train.epochs=1")
FEW = ("--config.data.synthetic_per_class=10", "--config.train.batch_size=16")


@pytest.mark.parametrize("net", [Both, BothNNX])
@pytest.mark.one_in(2)
@pytest.mark.usefixtures("drawn_small")
def test_such_a_net_is_trained_and_pruned_as_any_other(net, tmp_path):
    (tmp_path / "mine.py").write_text(FILE.format(net=net.__name__))
    given = f"--config={tmp_path / 'mine.py'}"

    def run(*arguments):
        done = commands.run(*arguments)
        assert done.returncode == 0, done.stderr

    cache, whole = f"--config.data.cache_dir={tmp_path / 'cache'}", f"--workdir={tmp_path / 'run'}"
    run("train", given, *SMALL, *FEW, cache, whole, "--stages=train")
    budget = ("--max_params=300", "--criterion=l1", "--images=clean", "--finetune_epochs=0")
    run("prune", given, whole, f"--out={tmp_path / 'less'}", *budget)
    account = Run(tmp_path / "less").read_json("prune.json")
    assert account["after"]["params"] <= 300 < account["before"]["params"]
    assert account["certificate"]["max_abs_logit_difference"] is not None
    smaller = train.load(Run(tmp_path / "less"))
    assert smaller.params["head"]["kernel"].shape[0] == smaller.params["conv"]["bias"].size < 6
