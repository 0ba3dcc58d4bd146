"""Each criterion against its definition, worked out another way."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import prunable
import pytest
from flax import nnx
from scipy.spatial.distance import cdist

from rice_jax import inspection, models, prune
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.models.own import Own
from rice_jax.models.own_nnx import OwnNNX
from rice_jax.prune.importance import Evidence, importance

SHAPE = (5, 8, 8, 3)
MODULE = models.build("final", stages=((3,), (4, 2)), dense=4)
GRAPH = prune.dependencies(MODULE, SHAPE)
VARIABLES = prunable.random_variables(variable_shapes(MODULE, SHAPE), 0)
IMAGES, LABELS = prunable.images(0, SHAPE), np.array([0, 3, 1, 4, 2])
BATCHES = [(IMAGES[:3], LABELS[:3]), (IMAGES[3:], LABELS[3:])]


def scores(criterion, graph=GRAPH, variables=VARIABLES, batches=BATCHES, seed=0):
    values = importance(criterion, Evidence(graph, variables, batches, seed))
    return {
        path: values[filters.channels]
        for path, filters in graph.filters.items()
        if filters.channels.min() >= 0
    }


def kernels():
    return {path: VARIABLES["params"][path]["kernel"] for path in ("conv1", "conv2", "dense")}


def test_l1_is_the_sum_of_absolute_weights_relative_to_its_layer():
    found = scores("l1")
    for path, kernel in kernels().items():
        sums = np.array([np.abs(kernel[..., i]).sum() for i in range(kernel.shape[-1])])
        np.testing.assert_allclose(found[path], sums / sums.mean(), rtol=1e-5)


def test_l2_is_the_length_of_a_filter_relative_to_its_layer():
    found = scores("l2")
    for path, kernel in kernels().items():
        lengths = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        np.testing.assert_allclose(found[path], lengths / lengths.mean(), rtol=1e-5)


def test_batch_norm_is_the_mean_scale_that_a_channel_passes():
    """stem, a_out and b_out are one channel through the sums; down and others pass none."""
    module = prunable.Residual()
    graph = prune.dependencies(module, prunable.SHAPE)
    variables = prunable.random_variables(variable_shapes(module, prunable.SHAPE), 1)
    found = scores("batch_norm", graph, variables)
    norms = {
        path: np.abs(each["scale"]) for path, each in variables["params"].items() if "norm" in path
    }
    shared = np.mean([norms[f"{path}_norm"] for path in ("stem", "a_out", "b_out")], 0)
    np.testing.assert_allclose(found["stem"], shared, rtol=1e-6)
    for path in ("a_in", "b_in"):
        np.testing.assert_allclose(found[path], norms[f"{path}_norm"], rtol=1e-6)
    every = np.concatenate([shared, norms["a_in_norm"], norms["b_in_norm"]])
    np.testing.assert_allclose(found["squeeze"], every.mean(), rtol=1e-6)
    with pytest.raises(UserError, match="no batch normalisation"):
        scores("batch_norm")


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_batch_norm_knows_the_norms_of_a_trained_run(kind):
    """Their statistics are among its parameters; conv2 passes no norm."""
    module = Own.of(NormedLinen) if kind == "linen" else OwnNNX.of(NormedNNX)
    graph = prune.dependencies(module, SHAPE)
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 1)
    found = scores("batch_norm", graph, variables)
    scale = np.abs(variables["params"]["norm"]["scale"])
    np.testing.assert_allclose(found["conv1"], scale, rtol=1e-6)
    np.testing.assert_allclose(found["conv2"], scale.mean(), rtol=1e-6)


class NormedLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True, name="norm")(nn.Conv(4, (3, 3), name="conv1")(x))
        x = nn.Conv(3, (3, 3), name="conv2")(nn.relu(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class NormedNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv1, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.conv2, self.head = nnx.Conv(4, 3, (3, 3), rngs=rngs), nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        x = self.conv2(nnx.relu(self.norm(self.conv1(x))))
        return self.head(x.mean((1, 2)))


def test_geometric_median_is_the_distance_to_all_other_filters():
    found = scores("geometric_median")
    for path, kernel in kernels().items():
        rows = kernel.reshape(-1, kernel.shape[-1]).T
        distances = cdist(rows, rows).sum(1)
        np.testing.assert_allclose(found[path], distances / distances.mean(), rtol=1e-4)


def test_apoz_is_one_less_the_share_of_zeros_in_the_census():
    found = scores("apoz")
    pairs = [(images, np.ones(len(images))) for images, _ in BATCHES]
    census = inspection.census(MODULE, VARIABLES, pairs)
    for path, layer in census.layers.items():
        np.testing.assert_allclose(found[path], 1 - np.array(layer.zero_fraction), rtol=1e-5)


def test_taylor_is_what_the_weights_that_read_a_channel_say():
    """To scale a channel is to scale the kernel rows that read it."""
    params = VARIABLES["params"]

    def loss(params, image, label):
        logits = MODULE.apply({"params": params}, image[None])
        return optax.softmax_cross_entropy_with_integer_labels(logits, label[None])[0]

    gradient = prunable.compiled(jax.grad(loss), params, IMAGES[0], LABELS[0])
    each = [gradient(params, image, label) for image, label in zip(IMAGES, LABELS, strict=True)]
    gradients = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    found = scores("taylor")
    for path, reader in {"conv1": "conv2", "conv2": "conv3", "conv3": "dense"}.items():
        products = params[reader]["kernel"] * gradients[reader]["kernel"]
        by_image = products.reshape(len(IMAGES), -1, *products.shape[-2:]).sum((1, 3))
        wanted = np.abs(by_image).mean(0)
        np.testing.assert_allclose(found[path], wanted, rtol=1e-4, atol=1e-6)


def test_taylor_of_short_activations_is_that_of_long_ones_but_for_rounding():
    whole = scores("taylor")
    short = scores("taylor", prune.dependencies(MODULE.clone(dtype=jnp.bfloat16), SHAPE))
    assert short.keys() == whole.keys()
    for path, wanted in whole.items():
        np.testing.assert_allclose(short[path], wanted, atol=0.05 * wanted.max())


def test_channels_of_a_residual_add_up_what_their_layers_score():
    module = prunable.Residual()
    graph = prune.dependencies(module, prunable.SHAPE)
    variables = prunable.random_variables(variable_shapes(module, prunable.SHAPE), 1)
    found = scores("l1", graph, variables)
    total = 0
    for path in ("stem", "a_out", "b_out"):
        sums = np.abs(variables["params"][path]["kernel"]).sum((0, 1, 2))
        total = total + sums / sums.mean()
    np.testing.assert_allclose(found["stem"], total, rtol=1e-5)
    np.testing.assert_array_equal(found["stem"], found["b_out"])


def test_random_follows_its_seed():
    first, again, other = (scores("random", seed=seed)["conv1"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    "labels", [np.eye(5, dtype=np.float32)[:4], np.arange(4.0), np.arange(4)[:, None]]
)
def test_labels_of_another_kind_are_named(labels):
    batch = (prunable.images(0, (4, *prunable.SHAPE[1:])), labels)
    with pytest.raises(UserError, match=r"classes' numbers, one an image, not .* of shape \(4"):
        scores("taylor", batches=[batch])


@pytest.mark.parametrize("void", [-1, -100, 3, 255])
def test_places_without_a_class_have_no_part_in_what_taylor_finds(void):
    """An image with one place that has a class, beside that place's own loss by hand."""
    net, images = nn.Sequential([nn.Conv(4, (1, 1)), nn.relu, nn.Conv(3, (1, 1))]), IMAGES[:1]
    variables = net.init(jax.random.key(0), images)
    graph = prune.dependencies(net, images.shape)
    labels = np.full(images.shape[:3], void)
    labels[0, 2, 1] = 1
    found = scores("taylor", graph, variables, [(images, labels)])["layers_0"]

    def loss(factors):
        first, second = (variables["params"][f"layers_{i}"] for i in (0, 2))
        maps = nn.relu(images[0, 2, 1] @ first["kernel"][0, 0] + first["bias"])
        return -nn.log_softmax((maps * factors) @ second["kernel"][0, 0] + second["bias"])[1]

    expected = np.abs(jax.grad(loss)(np.ones(4, np.float32))) / labels.size
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(UserError, match="numbers, from 0 to 2, and there is a"):
        scores("taylor", graph, variables, [(images, np.full_like(labels, void))])


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_named(label):
    labels = np.array([0, 1, label])
    with pytest.raises(UserError, match=f"numbers, from 0 to 4, and there is a {label}"):
        scores("taylor", batches=[(IMAGES[:3], labels)])


def loop(x):
    return jax.lax.while_loop(lambda y: (y * y).sum() > 1e9, lambda y: y / 2, x)


def callback(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(np.asarray, shape, x, vmap_method="sequential")


@pytest.mark.parametrize("last", [loop, callback, lambda x: x.astype(int)])
def test_a_net_without_a_gradient_is_named(last):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
            return last(nn.Dense(5, name="head")(x.mean((1, 2))))

    graph = prune.dependencies(Net(), SHAPE, on_unknown="keep")
    variables = prunable.random_variables(variable_shapes(Net(), SHAPE), 0)
    with pytest.raises(UserError, match="gradient"):
        scores("taylor", graph, variables)
    assert scores("l1", graph, variables)["conv"].shape == (4,)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="criterion 'l3': there are taylor, l1, l2, batch_norm"):
        scores("l3")
    with pytest.raises(UserError, match="no images to judge filters on"):
        scores("taylor", batches=[])
    broken = jax.tree.map(lambda array: array * np.nan, VARIABLES)
    with pytest.raises(UserError, match="l1 is not finite"):
        scores("l1", variables=broken)
