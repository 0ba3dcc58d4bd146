"""Nets as int8 files in one call, of images to calibrate on however they are handed over."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rice_jax import export
from rice_jax.errors import UserError
from rice_jax.export import runtimes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
NEEDED = {".onnx": "jax2onnx", ".tflite": "ai_edge_quantizer"}
MADE = {".onnx": export.to_onnx, ".tflite": export.to_tflite}
IMAGES = np.random.default_rng(0).random((20, 6, 8, 3), dtype=np.float32)
SHAPE = IMAGES.shape[1:]


@pytest.fixture(params=MADE)
def suffix(request):
    pytest.importorskip(NEEDED[request.param])
    return request.param


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv")(x))
        return {"maps": x, "logits": nn.Dense(4, name="head")(x.mean((1, 2)))}


class OfNNX(nnx.Module):
    def __init__(self):
        self.conv = nnx.Conv(3, 6, (3, 3), rngs=nnx.Rngs(0))
        self.head = nnx.Linear(6, 4, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x)).mean((1, 2)))


def function(params, x):
    return nn.relu(x @ params["pixel"]).mean((1, 2)) @ params["head"]


def linen():
    variables = Net().init(jax.random.key(0), IMAGES, train=False)
    logits = Net().apply(variables, IMAGES, train=False)["logits"]
    return (Net(), variables), {"output": "logits"}, logits


def a_function():
    draw = np.random.default_rng(1).normal
    params = {"pixel": np.float32(draw(size=(3, 6))), "head": np.float32(draw(size=(6, 4)))}
    return (function, params), {}, function(params, IMAGES)


def of_nnx():
    return (OfNNX(),), {}, OfNNX()(IMAGES)


@pytest.mark.parametrize("kind", [linen, of_nnx, a_function], ids=lambda kind: kind.__name__)
def test_a_net_of_each_kind_is_made_int8_in_one_call(kind, suffix):
    net, called, logits = kind()
    whole, small = (
        MADE[suffix](*net, SHAPE, calibrate=images, **called) for images in (None, [IMAGES])
    )
    found = {
        name: runtimes.opened(suffix, each)(IMAGES)
        for name, each in (("whole", whole), ("small", small))
    }
    span = np.ptp(logits)
    np.testing.assert_allclose(found["whole"], logits, atol=1e-5 * span)
    assert 1e-5 * span < np.abs(found["small"] - logits).max() < 0.05 * span


class Added(nn.Module):
    """What two layers give is added: the first result may be the second product's bias."""

    branch: str

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="conv")(x))
        pooled = x.mean((1, 2))
        match self.branch:
            case "two heads":
                return nn.Dense(4, name="a")(pooled) + nn.Dense(4, name="b")(x.max((1, 2)))
            case "a factored head":
                factors = nn.Dense(2, use_bias=False)(pooled)
                return nn.Dense(4)(pooled) + nn.Dense(4, use_bias=False)(factors)
            case "a residual":
                return nn.Dense(4)(pooled + nn.Dense(6, use_bias=False)(nn.Dense(6)(pooled)))
            case "two convolutions":
                x = nn.Conv(4, (1, 1))(x) + nn.Conv(4, (3, 3), use_bias=False)(x)
                return nn.Dense(4)(x.mean((1, 2)))


@pytest.mark.parametrize(
    "branch", ["two heads", "a factored head", "a residual", "two convolutions"]
)
@pytest.mark.one_in(2)
def test_layers_that_are_added_are_made_int8(branch, suffix):
    net = Added(branch)
    variables = net.init(jax.random.key(0), IMAGES)
    logits = net.apply(variables, IMAGES)
    content = MADE[suffix](net, variables, SHAPE, calibrate=[IMAGES])
    off = np.abs(runtimes.opened(suffix, content)(IMAGES) - logits).max()
    assert 0 < off < 0.05 * np.ptp(logits)


def test_images_may_come_as_any_batches(suffix):
    net, called, _ = linen()
    labels = np.zeros(len(IMAGES), int)
    ways = [
        IMAGES,
        [IMAGES],
        (IMAGES, labels),
        [(IMAGES[:7], labels[:7]), (IMAGES[7:], labels[7:])],
        (each for each in np.split(IMAGES, 4)),
        [jnp.asarray(IMAGES)],
        [IMAGES.astype(float).tolist()],
        [IMAGES[:0], IMAGES, (IMAGES[:0], labels[:0])],
    ]
    made = {MADE[suffix](*net, SHAPE, calibrate=way, **called) for way in ways}
    assert len(made) == 1


WRONG = {
    "none": ([], "calibrated on images, and there are none"),
    "an empty batch": (IMAGES[:0], "calibrated on images, and there are none"),
    "bytes": ((255 * IMAGES).astype(np.uint8), "pixels are 0 to 254, and the file takes them in"),
    "centred": (2 * IMAGES - 1, r"pixels are -1 to 1, and the file takes them in \[0, 1\]"),
    "no numbers": (np.full_like(IMAGES, np.nan), "pixels are nan to nan"),
    "other sizes": (IMAGES[:, :5], r"calibrate: images are \(N, 6, 8, 3\), not \(20, 5, 8, 3\)"),
    "one image": (IMAGES[0], r"images are \(N, 6, 8, 3\), not \(6, 8, 3\)"),
    "channels first": (IMAGES.transpose(0, 3, 1, 2), r"images are \(N, 6, 8, 3\), not"),
    "a number": (200, "batches are int"),
    "a path": (["images"], "a batch holds str"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_nothing_to_calibrate_on_is_one_line(kind, suffix):
    net, called, _ = linen()
    images, told = WRONG[kind]
    with pytest.raises(UserError, match=told) as caught:
        MADE[suffix](*net, SHAPE, calibrate=images, **called)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [0, -1, 1.5, None])
def test_a_tflite_takes_one_image_or_more(batch):
    net, called, _ = linen()
    with pytest.raises(UserError, match=f"^batch={batch}: give how many images the file takes"):
        export.to_tflite(*net, SHAPE, batch=batch, **called)


def test_a_tflite_of_several_images_at_a_time_is_float32():
    pytest.importorskip("litert_converter")
    net, called, _ = linen()
    with pytest.raises(UserError, match=r"^batch=4: a \.tflite in int8 takes one image at a time"):
        export.to_tflite(*net, SHAPE, batch=4, calibrate=[IMAGES], **called)
