"""What `prune` says of layers that can lose no filter: on the terminal and in the report."""

from typing import Any

import commands
import flax.linen as nn
import jax.numpy as jnp
import pytest

from rice_jax.run import Run

FILE = """
from test_prune_left_whole import {net}
from rice_jax.own_net import configuration

def get_config():
    return configuration({net})
"""
SMALL = ("--config.data.path=synthetic", "--config.data.image_size=16", "--config.train.epochs=1")
FEW = ("--config.data.synthetic_per_class=10", "--config.train.batch_size=16")
BUDGET = ("--max_params=420", "--criterion=l1", "--images=clean", "--on_unknown=keep")


class Split(nn.Module):
    """Channels that pass a norm before they are picked by their place."""

    classes: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(6, (3, 3), name="stem")(x))
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (1, 1), name="wide")(x))
        left, right = jnp.split(x, 2, axis=-1)
        x = nn.relu(nn.Conv(6, (3, 3), name="last")(left * right))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class Sorted(nn.Module):
    """Channels whose order is that of their values."""

    classes: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(12, (3, 3), name="stem")(x))
        x = jnp.sort(nn.Conv(8, (1, 1), name="wide")(x), axis=-1)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class Plain(nn.Module):
    """Nothing is in the way."""

    classes: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(12, (3, 3), name="stem")(x))
        x = nn.relu(nn.Conv(8, (1, 1), name="wide")(x))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize(("net", "whole"), [(Split, ["wide"]), (Sorted, ["wide"]), (Plain, [])])
@pytest.mark.usefixtures("drawn_small")
def test_layers_left_whole_are_told_with_the_reason(net, whole, tmp_path):
    (tmp_path / "mine.py").write_text(FILE.format(net=net.__name__))
    given, run = f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}"
    cache = f"--config.data.cache_dir={tmp_path / 'cache'}"
    trained = commands.run("train", given, *SMALL, *FEW, cache, run, "--stages=train")
    assert trained.returncode == 0, trained.stderr
    out = Run(tmp_path / "less")
    pruned = commands.run("prune", given, run, f"--out={tmp_path / 'less'}", *BUDGET)
    assert pruned.returncode == 0, pruned.stderr

    told = [line for line in pruned.stdout.splitlines() if line.startswith("left whole: ")]
    reasons = [
        reason for step in out.read_json("prune.json")["steps"] for reason in step["kept_whole"]
    ]
    assert told == [f"left whole: {reason}" for reason in reasons]
    assert [reason.partition(": ")[0] for reason in reasons] == whole
    report = (tmp_path / "less" / "report.md").read_text()
    assert ("had to stay whole" in report) == bool(whole)
    assert all(f"- {path}: " in report for path in whole)
