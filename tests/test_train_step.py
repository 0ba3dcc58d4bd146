"""A training step: Keras's numbers, nothing after a NaN."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from prunable import random_variables
from tiny_training import SIZE, Images, assert_same, config

from rice_jax import data, ops
from rice_jax.models.own import Own
from rice_jax.train import build, initial_params, state
from rice_jax.train.feed import Feed, data_mesh
from rice_jax.train.step import eval_step, train_step

RATE = np.float32(0.01)


@functools.cache
def batch(index=0, rows=8):
    random = np.random.default_rng(index)
    return {
        "image": random.integers(0, 256, (rows, SIZE, SIZE, 3), np.uint8),
        "label": random.integers(0, 5, rows, np.int32),
        "weight": np.ones(rows, np.float32),
    }


@functools.cache
def stepper(weight_decay=0.0, **train):
    """A compiled step of a net without dropout, a function that gives its first state, a feed."""
    settings = config(batch_size=8, **train)
    settings.model.dropout = 0.0
    module = build(settings)
    params = jax.tree.map(np.asarray, initial_params(settings, module))
    mesh = data_mesh()

    def start():
        return state.replicate(state.create(params, settings.train.frozen), mesh)

    step = train_step(module, mesh, seed=0, augment=False, weight_decay=weight_decay)
    return step, start, Feed(mesh, 8)


def run(batches, **train):
    """The state and the metrics after each of the batches."""
    step, start, feed = stepper(**train)
    current, metrics = start(), []
    for index, rows in enumerate(batches):
        current, found = step(current, feed(rows), np.int32(index), RATE)
        metrics.append(found)
    return current, metrics


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # inside Keras
def test_steps_are_those_of_keras():
    keras = pytest.importorskip("keras_nets").keras
    ours = stepper()[1]().params
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(5),
        ]
    )
    layers = [layer for layer in model.layers if layer.weights]
    for layer, name in zip(layers, ("conv1", "dense", "head"), strict=True):
        layer.set_weights([np.asarray(ours[name]["kernel"]), np.asarray(ours[name]["bias"])])
    model.compile(
        keras.optimizers.Adam(float(RATE)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batches = [batch(index) for index in range(4)]
    expected = []
    for rows in batches:
        model.reset_metrics()
        expected.append(model.train_on_batch(rows["image"] / np.float32(255), rows["label"]))
    current, metrics = run(batches)
    losses = [float(found.loss / found.images) for found in metrics]
    np.testing.assert_allclose(losses, np.ravel(expected), rtol=1e-5)
    for layer, name in zip(layers, ("conv1", "dense", "head"), strict=True):
        np.testing.assert_allclose(
            current.params[name]["kernel"], layer.kernel.value, atol=2e-5, err_msg=name
        )


def test_padding_has_no_part_in_loss_and_update():
    padded = {name: array.copy() for name, array in batch().items()}
    padded["weight"][5:] = 0
    changed = {name: array.copy() for name, array in padded.items()}
    changed["image"][5:] = 255
    changed["label"][5:] = 4
    (first, (metrics,)), (second, (other,)) = run([padded]), run([changed])
    assert float(metrics.images) == 5
    assert float(metrics.loss) == float(other.loss)
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


class OfDrawnDepth(nn.Module):
    """Draws a number for each image from a stream of its own, as nets that drop layers do."""

    first_image: int = 0

    @nn.compact
    def __call__(self, x, train=False):
        bias = self.param("bias", nn.initializers.zeros, (5,))
        drawn = jax.random.normal(self.make_rng("depth"), (len(x), 1)) if train else 0.0
        return bias + drawn * jnp.eye(5)[0]


def test_a_stream_of_the_nets_own_draws_anew_in_each_step_and_for_each_image():
    mesh = data_mesh()
    step, feed = train_step(OfDrawnDepth(), mesh, seed=0, augment=False), Feed(mesh, 8)
    rows = batch() | {"label": np.zeros(8, np.int32)}

    def loss(index, weight):
        fresh = state.create({"bias": np.zeros(5, np.float32)}, ()).replace(step=jnp.int32(index))
        given = feed(rows | {"weight": np.asarray(weight, np.float32)})
        return float(step(state.replicate(fresh, mesh), given, np.int32(index), RATE)[1].loss)

    alone = [loss(0, np.arange(8) == image) for image in range(8)]
    assert len(set(alone)) == 8
    assert loss(0, np.ones(8)) == pytest.approx(sum(alone))
    assert loss(1, np.ones(8)) != loss(0, np.ones(8))


class Spread(nn.Module):
    """A net without a number, or without a slope, for an image of one colour."""

    of_image: bool
    first_image: int = 0

    @nn.compact
    def __call__(self, x, train=False):
        def spread(values):
            return values.std(axis=(1, 2, 3), keepdims=True)

        x = nn.Conv(2, (3, 3), use_bias=False)(x / spread(x) if self.of_image else x)
        return nn.Dense(5)((x if self.of_image else x * spread(x)).mean((1, 2)))


@pytest.mark.parametrize(("of_image", "devices"), [(False, 1), (True, 8)])
def test_what_fills_up_a_batch_is_an_image_that_a_net_has_numbers_for(of_image, devices):
    net, mesh = Spread(of_image), data_mesh()
    *_, rows = data.batches(Images(7), 5, image_size=SIZE)
    assert rows["weight"].tolist() == [1, 1, 0, 0, 0]
    images = rows["image"] / np.float32(255)
    params = jax.tree.map(np.asarray, jax.jit(net.init)(jax.random.key(0), images)["params"])
    feed = Feed(mesh, 5)
    feed.rows = -(-5 // devices) * devices  # as with so many
    start = state.replicate(state.create(params, ()), mesh)
    step = train_step(net, mesh, seed=0, augment=False)
    after, found = step(start, feed(rows), np.int32(0), RATE)

    @jax.jit
    @jax.value_and_grad
    def expected(params):
        chosen = jax.nn.log_softmax(net.apply({"params": params}, images[:2]))
        return -chosen[jnp.arange(2), rows["label"][:2]].mean()

    loss, gradients = expected(params)
    assert float(found.loss) / 2 == pytest.approx(float(loss), rel=1e-4)
    for ours, theirs in zip(*map(jax.tree.leaves, (after.moments.mu, gradients)), strict=True):
        # Adam's first moment is a tenth of the gradient.
        np.testing.assert_allclose(10 * ours, theirs, rtol=1e-3, atol=1e-5, equal_nan=False)


def test_weight_decay_takes_a_share_off_kernels_alone():
    start = stepper()[1]().params
    (plain, _), (decayed, _) = run([batch()]), run([batch()], weight_decay=0.5)
    for layer, arrays in start.items():
        less = plain.params[layer]["kernel"] - RATE * 0.5 * arrays["kernel"]
        np.testing.assert_allclose(decayed.params[layer]["kernel"], less, rtol=1e-5, atol=1e-8)
        np.testing.assert_array_equal(decayed.params[layer]["bias"], plain.params[layer]["bias"])


class Attending(nn.Module):
    """A net with biases of two axes, a place's own numbers and a norm."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (8, 8), (8, 8))(x).reshape(len(x), -1, 4)
        x = x + self.param("place", nn.initializers.normal(), (1, x.shape[1], 4))
        x = nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        return nn.Dense(5)(nn.Embed(3, 4)(jnp.zeros(len(x), int)) + x.mean(1))


def test_weight_decay_spares_whatever_is_no_kernel():
    module, mesh = Own.of(Attending), data_mesh(1)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))
    params = jax.tree.map(np.ones_like, random_variables(shapes, 0)["params"])
    start = state.replicate(state.create(params, ()), mesh)
    step = train_step(module, mesh, seed=0, augment=False, weight_decay=50.0)
    after, _ = step(start, Feed(mesh, 8)(batch()), 0, RATE)
    flat = traverse_util.flatten_dict(after.params)
    assert {path[-1] for path in flat} == {"kernel", "bias", "scale", "place", "embedding"}
    assert any(array.ndim > 1 for path, array in flat.items() if path[-1] == "bias")
    for path, array in flat.items():  # Adam's first step is no longer than the rate
        expected = 1 - RATE * 50 if path[-1] == "kernel" else 1
        np.testing.assert_allclose(array, expected, atol=1.01 * RATE, err_msg="/".join(path))


def test_frozen_layers_stay_what_they_are():
    current, _ = run([batch(0), batch(1)], frozen=("conv1",))
    start = stepper(frozen=("conv1",))[1]()
    jax.tree.map(np.testing.assert_array_equal, current.frozen, start.frozen)
    assert set(current.trainable) == set(current.moments.mu) == {"dense", "head"}
    assert np.any(current.trainable["head"]["kernel"] != start.trainable["head"]["kernel"])


def test_nothing_changes_from_the_first_loss_that_is_not_finite():
    step, start, feed = stepper()
    broken = start()
    broken = broken.replace(
        trainable=jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e30), broken.trainable)
    )
    before = jax.tree.map(np.asarray, broken)
    for index in range(3):
        broken, metrics = step(broken, feed(batch(index)), np.int32(index), RATE)
        assert not bool(metrics.finite)
    jax.tree.map(np.testing.assert_array_equal, broken, before)


class Rooted(nn.Module):
    """Roots of two numbers of each array, small and large, that have no part in the loss.

    The root of 0 has an endless slope, and no part of that is no number.
    """

    broken: str
    classes: int = 5
    first_image: object = 0

    @nn.compact
    def __call__(self, x, train=False):
        logits = nn.Dense(self.classes, name="head")(x.mean((1, 2)))
        for name, size in {"small": 3, "large": 70_000}.items():
            numbers = self.param(name, nn.initializers.zeros, (size,))
            used = numbers[:2] if name == self.broken else numbers[:2] + 1
            logits = logits + 0 * jnp.sqrt(used).sum()
        return logits


@pytest.mark.parametrize("broken", ["small", "large", "none of them"])
@pytest.mark.parametrize("arrays", [1, 50])
@pytest.mark.one_in(2)
def test_one_array_whose_gradient_is_not_finite_is_enough(broken, arrays, monkeypatch):
    monkeypatch.setattr("rice_jax.train.step.MOST_ARRAYS", arrays)
    module, mesh = Rooted(broken), data_mesh()
    rows = batch()
    params = module.init(jax.random.key(0), jnp.zeros((1, *rows["image"].shape[1:])))["params"]
    start = state.replicate(state.create(params, ()), mesh)
    learn, feed = train_step(module, mesh, seed=0, augment=False), Feed(mesh, len(rows["image"]))
    _, metrics = learn(start, feed(rows), np.int32(0), RATE)
    assert np.isfinite(metrics.loss)
    assert bool(metrics.finite) == (broken == "none of them")


def test_parts_of_a_batch_teach_what_the_whole_does(monkeypatch):
    settings = config(batch_size=16)
    settings.model.dropout = 0.5
    module, mesh = build(settings), data_mesh()
    params = jax.tree.map(np.asarray, initial_params(settings, module))
    rows = batch(rows=16)
    rows["weight"][-3:] = 0
    feed = Feed(mesh, 16)

    def taught(size):
        monkeypatch.setattr(ops, "part_size", lambda *_: size)
        learn = train_step(module, mesh, seed=0, augment=True)
        measure = eval_step(module, mesh, 5, augment_seed=3)
        start = state.replicate(state.create(params, ()), mesh)
        sums = measure(start.params, feed(rows), np.int32(0))
        current, metrics = learn(start, feed(rows, signal=2), np.int32(0), RATE)
        # Adam's first moment is a tenth of the gradient.
        return jax.tree.map(np.asarray, (current.moments.mu, metrics, sums))

    whole = taught(16 // mesh.size)
    parts = taught(2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), whole, parts)
    assert parts[1].signal == 2
    assert parts[1].images == 13
    assert parts[2].confusion.sum() == 13


def test_a_step_of_two_programs_is_that_of_one(monkeypatch):
    """Also once it met a number that is not finite."""
    batches = [batch(), batch(1), batch(2) | {"weight": np.full(8, np.inf, np.float32)}, batch(3)]
    one = run(batches)
    monkeypatch.setattr("rice_jax.train.step.MOST_ARRAYS", 1)
    two = run(batches)
    assert [bool(found.finite) for found in two[1]] == [True, True, False, False]
    assert_same(one, two)


def test_bfloat16_is_of_activations_alone():
    (current, (metrics,)), (_, (exact,)) = run([batch()], dtype="bfloat16"), run([batch()])
    assert {leaf.dtype for leaf in jax.tree.leaves(current.params)} == {np.dtype(np.float32)}
    assert float(metrics.loss) != float(exact.loss)
    assert float(metrics.loss) == pytest.approx(float(exact.loss), rel=0.02)
