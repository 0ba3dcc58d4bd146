"""Frozen layers are apart, Adam is Keras's, random weights are never a silent choice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import config

from rice_jax import models
from rice_jax.config import default, to_json
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train import build, initial_params, state, weights
from rice_jax.train.feed import data_mesh

keras = pytest.importorskip("keras_nets").keras  # it sets the backend first

# Of the study: 14979909 parameters of vgg16, 7344645 of them trainable; 7900485 and 265221.
STUDY = {"vgg16": (7344645, 14979909 - 7344645), "vgg_light": (265221, 7900485 - 265221)}


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", models.NETS)
def test_only_trainable_parameters_have_moments(name):
    shapes = state.shapes(models.build(name), (1, 224, 224, 3), models.get(name).frozen)
    assert size(shapes.moments.mu) == size(shapes.moments.nu) == size(shapes.trainable)
    assert (size(shapes.trainable), size(shapes.frozen)) == STUDY.get(
        name, (size(shapes.params), 0)
    )


def test_partition_and_merge_are_inverse_and_a_path_covers_what_is_below_it():
    params = {"a": {"b": {"kernel": 1}, "c": {"kernel": 2}}, "ab": {"kernel": 3}}
    trainable, frozen = state.partition(params, ("a",))
    assert trainable == {"ab": {"kernel": 3}}
    assert frozen == {"a": params["a"]}
    assert state.merge(trainable, frozen) == params


@pytest.mark.parametrize(
    ("frozen", "complaint"),
    [(("conv9",), "'conv9'; there are conv1"), (("conv1", "dense", "head"), "every layer")],
)
def test_a_frozen_path_that_makes_no_sense_is_refused(frozen, complaint):
    params = {name: {"kernel": 1} for name in ("conv1", "dense", "head")}
    with pytest.raises(UserError, match=complaint):
        state.partition(params, frozen)


def test_adam_is_that_of_keras():
    random = np.random.default_rng(0)
    start = random.normal(size=(5, 3)).astype(np.float32)
    variable = keras.Variable(start)
    reference = keras.optimizers.Adam(1e-3)
    ours, optimizer = jnp.asarray(start), state.adam()
    moments = optimizer.init(ours)
    for rate in [1e-3] * 20 + [2e-4] * 20:
        gradient = (1e-6 * random.normal(size=start.shape)).astype(np.float32)  # shows epsilon
        reference.learning_rate = rate
        reference.apply([jnp.asarray(gradient)], [variable])
        direction, moments = optimizer.update(jnp.asarray(gradient), moments)
        ours = ours - rate * direction
    np.testing.assert_allclose(ours, variable.value, atol=1e-6)


def test_random_weights_follow_the_seed():
    tiny = config()
    first, again = (initial_params(tiny, build(tiny)) for _ in range(2))
    tiny.seed = 1
    other = initial_params(tiny, build(tiny))
    np.testing.assert_array_equal(first["conv1"]["kernel"], again["conv1"]["kernel"])
    assert not np.array_equal(first["conv1"]["kernel"], other["conv1"]["kernel"])


@pytest.mark.parametrize("name", ["vgg16", "vgg_light"])
def test_a_net_that_starts_from_trained_weights_says_which_and_where_they_are(name):
    with pytest.raises(UserError, match=r"vgg16_weights_tf_dim_ordering.*https://"):
        initial_params(default(name), models.build(name))


def test_missing_weights_are_named():
    tiny = config()
    tiny.model.weights = "nowhere/weights.h5"
    with pytest.raises(UserError, match=r"config\.model\.weights='nowhere/weights\.h5'.*no such"):
        initial_params(tiny, build(tiny))


def test_a_type_of_activations_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"config\.train\.dtype=float16: give float32 or bfloat16"):
        build(config(dtype="float16"))


@pytest.mark.parametrize(
    "content",
    [[], {}, {"config": 5}, {"config": {"model": {"name": "final"}}}, {"config": {"model": []}}],
)
def test_a_damaged_configuration_is_named(tmp_path, content):
    run = Run(tmp_path)
    run.write_json("config.json", content)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        weights.load(run)


def test_a_folder_without_a_trained_net_is_refused(tmp_path):
    run = Run(tmp_path)
    run.write_json("config.json", {"config": to_json(config())})
    with pytest.raises(UserError, match="has no trained net"):
        weights.load(run)


def test_random_weights_are_given_to_a_net_that_needs_trained_ones_if_asked_for_by_name():
    settings = default("vgg_light")
    settings.data.image_size = 16
    settings.model.update(stages=((2,), (3,)), dense=4)
    module = build(settings)
    with pytest.raises(UserError, match="or to 'random' to learn from nothing"):
        weights.initial_params(settings, module)
    settings.model.weights = "random"
    params = weights.initial_params(settings, module)
    assert params["conv1"]["kernel"].any()


def test_processes_with_other_weights_are_told(monkeypatch):
    def refused(tree, sharding):
        raise AssertionError("ndarray passed to device_put is not the same on each process")

    monkeypatch.setattr(jax, "device_put", refused)
    with pytest.raises(UserError, match="do not have the same weights: give each the same file"):
        state.replicate({}, data_mesh())
