"""A net of one's own that fails as it is called: one line, which names the line of its code."""

import commands
import pytest

NETS = """
import flax.linen as nn
from flax import nnx
from rice_jax.own_net import configuration

ACTS = {"relu": nn.relu}


class Linen(nn.Module):
    classes: int = 5
    act: str = "relu"
    width: int = 4
    pools: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.width, (3, 3))(x)
        x = ACTS[self.act](x)  # which activation
        for _ in range(self.pools):
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.classes)(x.reshape(len(x), 64))  # how many pixels


class Other(nnx.Module):
    def __init__(self, classes=5, act="relu", width=4, pools=1, *, rngs):
        self.conv = nnx.Conv(3, width, (3, 3), rngs=rngs)  # how wide
        self.dense = nnx.Linear(64, classes, rngs=rngs)
        self.act, self.pools = ACTS[act], pools  # which activation

    def __call__(self, x, train=False):
        x = self.act(self.conv(x))
        for _ in range(self.pools):
            x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.dense(x.reshape(len(x), 64))  # how many pixels


def get_config(which):
    return configuration({"Linen": Linen, "Other": Other}[which])
"""
SMALL = ("--config.data.path=synthetic", "--config.data.image_size=8")
FEW = ("--config.data.synthetic_per_class=10", "--stages=profile")


def line_of(net, remark):
    """The number of the line of a net that has the remark."""
    lines = NETS.splitlines()
    start = next(n for n, text in enumerate(lines) if text.startswith(f"class {net}("))
    return next(n for n, text in enumerate(lines, 1) if n > start and text.endswith(f"# {remark}"))


@pytest.mark.parametrize("net", ["Linen", "Other"])
@pytest.mark.parametrize(
    ("field", "remark", "why"),
    [
        ("act=tanh", "which activation", "KeyError: 'tanh'"),
        ("pools=0", "how many pixels", "TypeError: cannot reshape array of shape (1, 8, 8, 4)"),
    ],
)
def test_the_line_of_its_code_is_told_and_nothing_is_left(net, field, remark, why, tmp_path):
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(NETS)
    given = (f"--config={file}:{net}", f"--config.model.{field}", *SMALL, *FEW)
    done = commands.run("train", *given, f"--workdir={run}")
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert f"mine.py, line {line_of(net, remark)}: {why}" in line
    assert not run.exists()


@pytest.mark.parametrize("net", ["Linen", "Other"])
def test_a_width_of_nothing_is_told(net, tmp_path):
    (tmp_path / "mine.py").write_text(NETS)
    given = (f"--config={tmp_path / 'mine.py'}:{net}", "--config.model.width=0", *SMALL, *FEW)
    done = commands.run("train", *given, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("net", ["Linen", "Other"])
def test_one_that_does_not_fail_is_profiled(net, tmp_path):
    (tmp_path / "mine.py").write_text(NETS)
    given = (f"--config={tmp_path / 'mine.py'}:{net}", *SMALL, *FEW)
    cache = f"--config.data.cache_dir={tmp_path / 'cache'}"
    done = commands.run("train", *given, cache, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
