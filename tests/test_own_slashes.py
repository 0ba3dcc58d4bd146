"""A net whose parameters have '/' in their own names, as those of `nn.WeightNorm`, keeps them."""

import flax.linen as nn
import jax
import numpy as np
import prunable
import pytest
import tiny_training

from rice_jax import nets, own_net, train
from rice_jax.export.folding import folded
from rice_jax.lighten import smaller
from rice_jax.run import Run
from rice_jax.stages import run_stages
from rice_jax.train import state

IMAGES = prunable.images(1, (2, tiny_training.SIZE, tiny_training.SIZE, 3))
SCALE = ("normed", "conv/kernel/scale")


class Scaled(nn.Module):
    classes: int = 5
    width: int = 4

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.WeightNorm(nn.Conv(4, (3, 3), 2, name="conv"), name="normed")(x))
        x = nn.relu(nn.Conv(4, (3, 3), name="block")(x))
        x = nn.Conv(self.width, (3, 3), name="last")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


@pytest.fixture
def configured(monkeypatch):
    monkeypatch.setattr(nets, "_OWN", {})

    def configured(**fields):
        config = own_net.configuration(Scaled, classes=5, **fields)
        with config.unlocked():
            config.data.image_size = tiny_training.SIZE
            config.train.update(epochs=1, batch_size=16)
        return config

    return configured


def drawn(config):
    module = train.build(config)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), IMAGES))
    params = prunable.random_variables(shapes, 0)["params"]
    return train.Trained(config, module, params, tiny_training.CLASSES, 1)


def logits(module, params):
    return prunable.compiled(lambda x: module.apply({"params": params}, x), IMAGES)(IMAGES)


@pytest.mark.parametrize("frozen", [(), ("normed",), ("normed", "conv"), ("head",)])
def test_what_learns_and_what_does_not_are_all_there_is(frozen, configured):
    params = drawn(configured()).params
    learns, still = state.partition(params, frozen)
    assert jax.tree.structure(state.merge(learns, still)) == jax.tree.structure(params)
    assert (SCALE[1] in still.get(SCALE[0], {})) == ("normed" in frozen)


def test_a_norm_beside_it_is_taken_in(configured):
    whole = drawn(configured())
    lighter = folded(whole)
    assert dict(lighter.module.folded) == {"norm": False}
    wanted = logits(whole.module, whole.params)
    np.testing.assert_allclose(logits(lighter.module, lighter.params), wanted, rtol=1e-4, atol=1e-5)


def test_a_layer_beside_it_is_left_out(configured):
    whole = drawn(configured())
    made, params, anew, _ = smaller.without(whole.config, whole.params, ["block"])
    assert not anew
    assert params.keys() == whole.params.keys() - {"block"}
    assert np.isfinite(logits(train.build(made), params)).all()


def test_it_learns_and_another_begins_with_it(configured, tmp_path, drawn_small):
    run = Run(tmp_path / "run")
    config = configured()
    config.data.update(path="synthetic", synthetic_per_class=10, cache_dir=str(tmp_path))
    run_stages(config, str(run.path), ["train"])
    learnt = train.load(run).params[SCALE[0]][SCALE[1]]
    assert np.any(learnt != 1)
    for again in (configured(), configured(width=2)):
        again.model.weights = str(run.path)
        again.train.frozen = ("normed", "conv")
        given = train.given_params(again, train.build(again))
        np.testing.assert_array_equal(given[SCALE[0]][SCALE[1]], learnt)
