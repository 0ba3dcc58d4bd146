"""Batch norms of a net of one's own: Flax's numbers, over the whole batch wherever it is."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
import tiny_training
from data_files import picture
from flax import nnx, traverse_util

from rice_jax import data, nets, own_net, train
from rice_jax.export.folding import folded
from rice_jax.lighten import child
from rice_jax.models.own import Own
from rice_jax.models.own_nnx import OwnNNX
from rice_jax.models.statistics import COLLECTION, Rows, norms, updated
from rice_jax.prune import certify, prune
from rice_jax.train import state
from rice_jax.train.feed import Feed, data_mesh
from rice_jax.train.norms import Norms
from rice_jax.train.step import train_step
from rice_jax.train.teacher import Teacher

IMAGES, COUNTED = 8, 6


class Normed(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        for number in (1, 2):
            x = nn.Conv(4, (3, 3), 2, use_bias=False, name=f"conv{number}")(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"norm{number}")(x)
            x = nn.relu(x)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class NormedNNX(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        for number, channels in ((1, 3), (2, 4)):
            conv = nnx.Conv(channels, 4, (3, 3), 2, use_bias=False, rngs=rngs)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"norm{number}", nnx.BatchNorm(4, momentum=0.9, rngs=rngs))
        self.head = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm1(self.conv1(x)))
        return self.head(nnx.relu(self.norm2(self.conv2(x))).mean((1, 2)))


NETS = {"linen": Own.of(Normed), "nnx": OwnNNX.of(NormedNNX)}
IN_BOTH = pytest.mark.parametrize("net", NETS.values(), ids=NETS)
NAMES = {"mean": "running_mean", "var": "running_var"}


def drawn():
    """Flax's own variables of the net, and the same as ours."""
    x = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: Normed().init(jax.random.key(0), x))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape), leaf.dtype), shapes
    )
    return variables, ours(variables)


def ours(variables):
    flat = traverse_util.flatten_dict(variables["params"])
    for path, array in traverse_util.flatten_dict(variables["batch_stats"]).items():
        flat[*path[:-1], NAMES[path[-1]]] = array
    return traverse_util.unflatten_dict(flat)


def batch():
    """Images of which the last two only fill up, and labels."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.random((IMAGES, 8, 8, 3)), jnp.float32)
    return x, jnp.arange(IMAGES) % 3, (jnp.arange(IMAGES) < COUNTED).astype(jnp.float32)


def loss(logits, labels, weight):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
    return -jnp.sum(chosen * weight)


def of_flax(variables):
    """Gradients and new statistics of Flax's own norms, for the images that count alone."""
    x, labels, weight = (each[:COUNTED] for each in batch())

    def total(params):
        logits, left = Normed().apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return loss(logits, labels, weight), left["batch_stats"]

    return jax.grad(total, has_aux=True)(variables["params"])


def statistics_of(params, layer):
    return [np.asarray(params[layer][name]) for name in NAMES.values()]


def measured(net, params, batches, frozen=()):
    train_fields = types.SimpleNamespace(augment=False, frozen=frozen)
    found = Norms(types.SimpleNamespace(train=train_fields), net).statistics(params, batches)
    return {layer: [found[layer][name] for name in NAMES.values()] for layer in found}


@IN_BOTH
def test_statistics_measured_anew_are_those_of_the_images(net):
    """Flax's own after a step, less nine tenths of what they were, is what a batch came to."""
    variables, params = drawn()
    x = batch()[0][:COUNTED]
    _, after = of_flax(variables)
    found = measured(net, params, [x])
    for layer in ("norm1", "norm2"):
        for name, new in zip(("mean", "var"), found[layer], strict=True):
            before = variables["batch_stats"][layer][name]
            wanted = (after[layer][name] - 0.9 * before) / 0.1
            np.testing.assert_allclose(new, wanted, rtol=1e-4)  # Flax takes squares
    # The first norm's input hangs on no other, so that of it batches of any sizes give the same.
    parts = measured(net, params, [x[:4], x[4:]])
    np.testing.assert_allclose(parts["norm1"], found["norm1"], rtol=1e-6)
    assert measured(net, params, [x], frozen=["norm1"]).keys() == {"norm2"}


class Images(list):
    """A training split, which notes what is read of it."""

    def __init__(self, count):
        super().__init__([{"image": picture(size=8), "label": 0, "name": "grain"}] * count)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


class Told:
    """A bar's task, and how far it is."""

    def __init__(self, task, images):
        self.task, self.images, self.done = task, images, 0
        Told.all.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def advance(self, images):
        self.done += images


@pytest.fixture
def settle(monkeypatch):
    """What is left of a cut net that learns from so many images: its parameters, images, bars."""
    monkeypatch.setattr(nets, "_OWN", {})
    monkeypatch.setattr(child, "Bar", Told)
    monkeypatch.setattr(Told, "all", [], raising=False)

    def settle(kind, params, available, learnt, frozen=()):
        config = own_net.configuration(kind, "mine", classes=3)
        with config.unlocked():
            config.data.image_size = 8
            config.train.images, config.train.frozen = learnt, frozen
        source = Images(available)
        dataset = types.SimpleNamespace(splits={"train": source})
        return child.settled(config, params, dataset), source.read, Told.all

    return settle


@pytest.mark.parametrize(("learnt", "looked_at"), [(0, 512), (600, 512), (10, 10), (700, 512)])
@pytest.mark.one_in(2)
def test_norms_are_measured_on_no_more_images_than_are_learnt_from(learnt, looked_at, settle):
    params, read, (bar,) = settle(Normed, drawn()[1], 650, learnt)
    assert len(read) == len(set(read)) == looked_at
    assert (bar.task, bar.images, bar.done) == ("measuring norms", looked_at, looked_at)
    assert np.any(params["norm1"]["running_mean"] != drawn()[1]["norm1"]["running_mean"])
    if looked_at == learnt:  # the very ones, which are spread evenly
        assert sorted(read) == [number * 650 // learnt for number in range(learnt)]


@pytest.mark.parametrize("looked_at_together", [5, 64])
def test_norms_are_measured_in_batches_as_they_are_trained(looked_at_together):
    """Those of evaluation, which may change in a run's folder, have no part in what it learns."""
    _, params = drawn()
    settings = tiny_training.config(batch_size=8)
    settings.eval.batch_size, settings.data.image_size = looked_at_together, 8
    source = tiny_training.Images(20)
    batches = data.batches(source, 8, image_size=8)
    images = [batch["image"][batch["weight"] > 0] / np.float32(255) for batch in batches]
    assert [len(batch) for batch in images] == [8, 8, 4]
    net = Own.of(Normed)
    found = Norms(settings, net)(params, source)
    expected = measured(net, params, images)
    for layer in ("norm1", "norm2"):
        np.testing.assert_allclose(statistics_of(found, layer), expected[layer], rtol=1e-5)


class Plain(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize(("kind", "frozen"), [(Plain, ()), (Normed, ("norm1", "norm2"))])
def test_without_norms_that_learn_nothing_is_measured_or_told(kind, frozen, settle):
    params = drawn()[1] if kind is Normed else {"head": {"kernel": np.ones((3, 3))}}
    after, read, bars = settle(kind, params, 3, 0, frozen)
    jax.tree.map(np.testing.assert_array_equal, after, params)
    assert not read
    assert not bars


@IN_BOTH
@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.one_in(3)
def test_gradients_and_statistics_are_those_of_the_whole_batch(net, shards):
    variables, params = drawn()

    def of_shard(params, x, labels, weight):
        of_rows = net.clone(rows=Rows(weight, "shards"))

        def total(params):
            logits, left = of_rows.apply({"params": params}, x, train=True, mutable=[COLLECTION])
            return loss(logits, labels, weight), left[COLLECTION]

        return jax.grad(total, has_aux=True)(params)

    parts = [each.reshape(shards, -1, *each.shape[1:]) for each in batch()]
    over_shards = jax.vmap(of_shard, (None, 0, 0, 0), axis_name="shards")
    gradients, left = prunable.compiled(over_shards, params, *parts)(params, *parts)
    wanted, statistics = prunable.compiled(of_flax, variables)(variables)
    for path, array in traverse_util.flatten_dict(gradients).items():
        flat = traverse_util.flatten_dict(wanted)
        expected = flat.get(path, np.zeros(array.shape[1:]))  # none reaches the statistics
        np.testing.assert_allclose(array.sum(0), expected, rtol=1e-4, atol=1e-5)
    new = updated(params, jax.tree.map(lambda leaf: leaf.mean(0), left))
    expected = ours({"params": variables["params"], "batch_stats": statistics})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), new, expected)


@IN_BOTH
def test_by_its_running_statistics_it_is_flax_s_net(net):
    variables, params = drawn()
    x, *_ = batch()
    np.testing.assert_allclose(
        net.apply({"params": params}, x), Normed().apply(variables, x), rtol=1e-5, atol=1e-5
    )
    assert norms(params) == {"norm1", "norm2"}
    assert not norms(variables["params"])


@IN_BOTH
def test_statistics_are_cut_with_their_channels(net):
    _, params = drawn()
    x, *_ = batch()
    cut = prune(net, {"params": params}, [x], filters={"conv1": [1], "conv2": [0, 3]})
    smaller = cut.variables["params"]
    assert smaller["norm1"]["running_var"].shape == (3,)
    np.testing.assert_array_equal(
        smaller["norm2"]["running_mean"], params["norm2"]["running_mean"][1:3]
    )


class Lone(nn.Module):
    """Two norms, then each channel's average as its class's logit."""

    classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, not train, momentum=0.75, epsilon=0.0)
        return norm(name="learns")(norm(name="frozen")(x)).mean((1, 2))


class LoneNNX(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        norm = functools.partial(nnx.BatchNorm, classes, momentum=0.75, epsilon=0.0, rngs=rngs)
        self.frozen, self.learns = norm(), norm()

    def __call__(self, x):
        return self.learns(self.frozen(x)).mean((1, 2))


class Wide(nn.Module):
    """A teacher of equal answers, whose maps are so large that images come to it one by one."""

    @nn.compact
    def __call__(self, x, train=False):
        large = nn.Sequential([lambda x: jnp.broadcast_to(x, (len(x), 400, 400, 3))])
        return 0 * large(x).mean((1, 2))


TEACHERS = {"alone": None, "taught": Teacher(Wide(), {}, temperature=1.0, weight=0.5)}


@pytest.mark.parametrize("net", [Own.of(Lone), OwnNNX.of(LoneNNX)], ids=["linen", "nnx"])
@pytest.mark.parametrize("teacher", TEACHERS.values(), ids=TEACHERS)
def test_a_frozen_norm_uses_and_keeps_its_running_statistics(net, teacher):
    """Two images of one pixel, 0.2 and 0.6: less 0.2 and divided by 0.4 they are 0 and 1, of mean
    0.5 and variance 0.25, so the second norm gives -1 and 1 and both logits of an image are equal.
    """
    frozen = {
        "running_mean": [0.2] * 3,
        "running_var": [0.16] * 3,
        "scale": [1] * 3,
        "bias": [0] * 3,
    }
    learns = {"running_mean": [0] * 3, "running_var": [1] * 3, "scale": [1] * 3, "bias": [0] * 3}
    params = jax.tree.map(
        lambda numbers: np.asarray(numbers, np.float32),
        {"frozen": frozen, "learns": learns},
        is_leaf=lambda leaf: isinstance(leaf, list),
    )
    mesh = data_mesh()
    step = train_step(net, mesh, seed=0, augment=False, teacher=teacher)
    rows = {
        "image": np.asarray([51, 153], np.uint8).reshape(2, 1, 1, 1) + np.zeros(3, np.uint8),
        "label": np.asarray([0, 1], np.int32),
        "weight": np.ones(2, np.float32),
    }
    start = state.replicate(state.create(params, ["frozen"]), mesh)
    after, metrics = step(start, Feed(mesh, 2)(rows), np.int32(0), np.float32(0.1))
    np.testing.assert_allclose(metrics.loss, 2 * np.log(3), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.params["frozen"], params["frozen"])
    np.testing.assert_allclose(after.params["learns"]["running_mean"], 0.25 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(after.params["learns"]["running_var"], 0.75 + 0.25 * 0.25, rtol=1e-5)


class Followed(nn.Module):
    """Norms that follow a layer with a bias, one without, one that others read too, and none."""

    classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.relu(norm(name="biased_norm")(nn.Conv(4, (3, 3), 2, name="biased")(x)))
        bare = nn.Conv(4, (3, 3), feature_group_count=4, use_bias=False, name="bare")
        x = nn.relu(norm(name="bare_norm")(bare(x)))
        y = nn.Conv(4, (1, 1), name="shared")(x)
        x = nn.relu(y + norm(name="shared_norm", use_scale=False)(y))
        x = norm(name="lone_norm", use_bias=False)(x).mean((1, 2))
        x = nn.relu(norm(name="dense_norm")(nn.Dense(5, name="dense")(x)))
        return nn.Dense(self.classes, name="head")(x)


def test_folded_norms_change_no_logit_but_by_rounding():
    net, rng = Own.of(Followed), np.random.default_rng(2)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    params = jax.tree.map(
        lambda leaf: rng.uniform(0.3, 1.5, leaf.shape).astype(np.float32), shapes["params"]
    )
    config = types.SimpleNamespace(data=types.SimpleNamespace(image_size=8))
    whole = train.Trained(config, net, params, ("a", "b", "c"), 1)
    lighter = folded(whole)
    assert dict(lighter.module.folded) == {
        "biased_norm": False,
        "bare_norm": True,
        "dense_norm": False,
    }
    assert set(lighter.params["bare_norm"]) == {"bias"}
    assert "biased_norm" not in lighter.params
    x, *_ = batch()
    same = certify(
        (net, {"params": params}), (lighter.module, {"params": lighter.params}), [x], proven=True
    )
    assert same.proven
    assert same.max_relative_logit_difference < 1e-5
