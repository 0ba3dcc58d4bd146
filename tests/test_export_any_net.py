"""Files of nets that are not the package's: Linen's, NNX's, functions, and what pruning left."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rice_jax import export
from rice_jax.errors import UserError
from rice_jax.export import runtimes
from rice_jax.prune import prune

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
SHAPE = (8, 12, 2)
IMAGES = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
NEEDED = {".stablehlo": "flax", ".onnx": "jax2onnx", ".tflite": "litert_converter"}
MADE = {
    ".stablehlo": export.to_stablehlo,
    ".onnx": export.to_onnx,
    ".tflite": export.to_tflite,
}


class Normed(nn.Module):
    """Has statistics beside its params, must be told whether it learns, and gives its maps too."""

    @nn.compact
    def __call__(self, x, train):
        maps = nn.relu(nn.BatchNorm(not train, name="norm")(nn.Conv(6, (3, 3), name="conv")(x)))
        x = nn.Dropout(0.5, deterministic=not train)(maps.reshape(x.shape[0], -1))
        return {"maps": maps, "logits": nn.Dense(3, name="head")(x)}


class Plain(nn.Module):
    """As in the README: nothing but images goes in."""

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(6, (3, 3), name="conv")(x)), (2, 2), (2, 2))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class LearnsByDefault(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic=False):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv")(x)).mean((1, 2))
        return nn.Dense(3, name="head")(nn.Dropout(0.5, deterministic=deterministic)(x))


class OfNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


def function(params, x):
    with jax.named_scope("conv"):
        x = jax.lax.conv_general_dilated(
            x, params["conv"][0], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = nn.relu(x + params["conv"][1])
    with jax.named_scope("head"):
        return x.mean((1, 2)) @ params["head"]


def varied(tree):
    """Other numbers of the same shapes: no statistics at 0 and 1, no bias at 0."""
    random = np.random.default_rng(1)
    return jax.tree.map(lambda a: (random.random(a.shape) + 0.1).astype("f4"), tree)


def linen(module, **called):
    variables = varied(module.init(jax.random.key(0), IMAGES, **called))
    return (module, variables), called, module.apply(variables, IMAGES, **called)


def normed():
    given, called, found = linen(Normed(), train=False)
    return given, {**called, "output": "logits"}, found["logits"]


def in_nnx():
    module = OfNNX(nnx.Rngs(0))
    nnx.update(module, varied(nnx.state(module, (nnx.Param, nnx.BatchStat))))
    module.eval()
    return (module,), {}, module(IMAGES)


def a_function():
    params = varied({"conv": (jnp.zeros((3, 3, 2, 6)), jnp.zeros(6)), "head": jnp.zeros((6, 3))})
    return (function, params), {}, function(params, IMAGES)


def pruned_plain():
    given, _, _ = linen(Plain())
    cut = prune(*given, [IMAGES], filters={"conv": [0, 2, 5]})
    return (cut.module, cut.variables), {}, cut.module.apply(cut.variables, IMAGES)


def pruned_nnx():
    given, _, _ = in_nnx()
    cut = prune(*given, [IMAGES], filters={"conv": [0, 2, 5]})
    return (cut.module,), {}, cut.module(IMAGES)


def untold():
    """Nobody says that it is not to learn."""
    given, _, logits = normed()
    return given, {"output": "logits"}, logits


def told_otherwise():
    given, _, logits = linen(LearnsByDefault(), deterministic=True)
    return given, {}, logits


def params_alone():
    (module, variables), called, logits = linen(Plain())
    return (module, variables["params"]), called, logits


NETS = {
    "with statistics": normed,
    "untold": untold,
    "learns by default": told_otherwise,
    "plain": lambda: linen(Plain()),
    "params alone": params_alone,
    "NNX": in_nnx,
    "function": a_function,
    "pruned": pruned_plain,
    "pruned NNX": pruned_nnx,
}


@pytest.mark.parametrize("suffix", MADE)
@pytest.mark.parametrize("name", NETS)
def test_the_file_gives_the_nets_own_logits(name, suffix):
    pytest.importorskip(NEEDED[suffix])
    given, called, logits = NETS[name]()
    content = MADE[suffix](*given, SHAPE, **called)
    found = runtimes.opened(suffix, content)(IMAGES)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


class Beside(nn.Module):
    """Computes something that its logits do not need."""

    make: Any

    @nn.compact
    def __call__(self, x):
        maps = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        return {"logits": nn.Dense(3, name="head")(maps.mean((1, 2))), "other": self.make(maps)}


def read_by_nothing(maps):
    jnp.linalg.svd(jnp.fft.fft(maps).real)
    return maps


def read_in_a_loop_by_nothing(maps):
    return jax.lax.fori_loop(0, 2, lambda _, x: read_by_nothing(x) + 1, maps)


class LastOfRows(nn.Module):
    """An LSTM, which draws keys for a beginning at zero."""

    @nn.compact
    def __call__(self, x):
        rows = nn.Conv(4, (3, 3), name="conv")(x).reshape(x.shape[0], 8, 48)
        return {"logits": nn.RNN(nn.OptimizedLSTMCell(3), name="rows")(rows)[:, -1]}


NOT_NEEDED = {
    "another output": Beside(lambda x: jnp.abs(jnp.fft.fft(x))),
    "another output of several operations": Beside(lambda x: jnp.linalg.svd(x)[1] + 1),
    "what nothing reads": Beside(read_by_nothing),
    "what nothing reads in a loop": Beside(read_in_a_loop_by_nothing),
    "keys of which nothing is drawn": LastOfRows(),
}


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize("name", NOT_NEEDED)
def test_what_the_logits_do_not_need_keeps_no_net_from_a_file(name, suffix):
    pytest.importorskip(NEEDED[suffix])
    given, _, found = linen(NOT_NEEDED[name])
    content = MADE[suffix](*given, SHAPE, output="logits")
    logits = runtimes.opened(suffix, content)(IMAGES)
    np.testing.assert_allclose(logits, found["logits"], rtol=1e-5, atol=1e-5)


def test_a_whole_number_is_the_side_of_an_image_in_colour():
    module = Plain()
    images = np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)
    variables = varied(module.init(jax.random.key(0), images))
    for side in (8, np.int64(8), (8, 8, 3)):
        content = export.to_stablehlo(module, variables, side)
        found = jax.export.deserialize(bytearray(content)).call(images)
        np.testing.assert_allclose(found, module.apply(variables, images), rtol=1e-5)


def with_nan(given, path):
    """The same net after a training that diverged: one number of one array is none."""
    module, *rest = given
    variables = rest[0] if rest else nnx.state(module)

    def spoil(at, array):
        spoiled = jax.tree_util.keystr(at, simple=True, separator="/").removesuffix("/value")
        return array.at[(0,) * array.ndim].set(jnp.nan) if spoiled == path else array

    spoiled = jax.tree_util.tree_map_with_path(spoil, jax.tree.map(jnp.asarray, variables))
    if rest:
        return module, spoiled, SHAPE
    nnx.update(module, spoiled)
    return module, SHAPE


WRONG = {
    "a weight that is none": (
        lambda: with_nan(linen(Plain())[0], "params/conv/kernel"),
        {},
        "^variables: params/conv/kernel holds NaN",
    ),
    "a statistic that is none": (
        lambda: with_nan(normed()[0], "batch_stats/norm/var"),
        {"output": "logits"},
        "^variables: batch_stats/norm/var holds NaN",
    ),
    "a weight of an NNX module": (
        lambda: with_nan(in_nnx()[0], "head/bias"),
        {},
        "^variables: params/head/bias holds NaN",
    ),
    "a function's": (
        lambda: with_nan(a_function()[0], "conv/1"),
        {},
        "^variables: params/conv/1 holds NaN",
    ),
    "no variables": (lambda: (Plain(), SHAPE), {}, "its variables come after it"),
    "an NNX module's": (lambda: (*in_nnx()[0], {}, SHAPE), {}, "holds its variables itself"),
    "other channels": (lambda: (*linen(Plain())[0][:2], (8, 12, 3)), {}, "params/conv/kernel is"),
    "a batch's shape": (lambda: (*linen(Plain())[0], (1, *SHAPE)), {}, "give one image's"),
    "no sizes": (lambda: (*linen(Plain())[0], (8, 0, 2)), {}, "positive whole numbers"),
    "another output": (lambda: (*normed()[0], SHAPE), {"train": False}, "the net gives"),
    "no such output": (
        lambda: (*normed()[0], SHAPE),
        {"train": False, "output": "classes"},
        "no output is 'classes'",
    ),
    "too small": (
        lambda: (*a_function()[0], (8, 12, 3)),
        {},
        "does not run on an input of shape",
    ),
}


@pytest.mark.parametrize("suffix", MADE)
@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_exported_is_one_line(name, suffix):
    pytest.importorskip(NEEDED[suffix])
    given, called, message = WRONG[name]
    with pytest.raises(UserError, match=message) as caught:
        MADE[suffix](*given(), **called)
    assert "\n" not in str(caught.value)
