"""A run that begins with given parameters."""

import os

import jax
import numpy as np
import pytest
from tiny_training import config, dataset

from rice_jax import train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train import start


def drawn(settings, seed=0):
    params = train.initial_params(settings, train.build(settings), seed=seed)
    return jax.tree.map(np.array, params)


def begun(folder, params, settings):
    run = Run(folder)
    run.create()
    run.write_json("config.json", {"config": to_json(settings)})
    train.begin(settings, run, dataset(), params)
    return run


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_a_run_began_with_is_what_is_loaded(kind, tmp_path):
    settings = config()
    params = drawn(settings)
    run = begun(tmp_path, jax.tree.map(lambda leaf: leaf.astype(kind), params), settings)
    found = train.load(run)
    assert found.epoch == 0
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_a_run_that_has_checkpoints_keeps_them_until_they_are_forgotten(tmp_path):
    settings = config()
    first, second = (drawn(settings, seed) for seed in (1, 2))
    run = begun(tmp_path, first, settings)
    with pytest.raises(UserError, match="has checkpoints already"):
        train.begin(settings, run, dataset(), second)
    jax.tree.map(np.testing.assert_array_equal, train.load(run).params, first)
    train.forget(run)
    train.begin(settings, run, dataset(), second)
    jax.tree.map(np.testing.assert_array_equal, train.load(run).params, second)


def halved(params):
    return jax.tree.map(lambda leaf: leaf.astype(np.float16), params)


def wider(params):
    kernel = np.zeros((*params["head"]["kernel"].shape[:-1], 7), np.float32)
    return params | {"head": params["head"] | {"kernel": kernel}}


OTHERS = {
    "of half precision": (halved, r"conv1/bias is float16 \(4,\), and float32 \(4,\) in that net"),
    "of more classes": (wider, r"head/kernel is float32 \(8, 7\), and float32 \(8, 5\)"),
    "without a layer": (
        lambda params: {name: leaf for name, leaf in params.items() if name != "head"},
        "head/bias is not there, and float32",
    ),
    "with one more": (
        lambda params: params | {"more": {"bias": np.zeros(3, np.float32)}},
        r"more/bias is float32 \(3,\), and not there in that net",
    ),
    "variables": (lambda params: {"params": params}, "conv1/bias is not there"),
}


@pytest.mark.parametrize("which", OTHERS)
def test_parameters_of_another_net_are_refused_before_they_are_saved(which, tmp_path):
    change, said = OTHERS[which]
    settings = config()
    with pytest.raises(UserError, match=f"not those of final as it is configured: {said}"):
        train.begin(settings, Run(tmp_path / "run"), dataset(), change(drawn(settings)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=f"not those of final as it is configured: {said}"):
        train.train(settings, Run(tmp_path), dataset(), given=change(drawn(settings)))
    assert not Run(tmp_path).checkpoints.exists() or not list(Run(tmp_path).checkpoints.iterdir())


def test_a_run_begins_with_no_shapes_alone(tmp_path):
    settings = config()
    given = train.given_params(settings, train.build(settings))
    with pytest.raises(UserError, match="no parameters for conv1, dense, head, but shapes alone"):
        train.begin(settings, Run(tmp_path), dataset(), given)


@pytest.mark.parametrize("forgotten", [start.forget_measured, train.forget])
def test_no_picture_of_older_weights_maps_stays(forgotten, tmp_path):
    """Another net would draw over those alone of layers that it has too."""
    run = Run(tmp_path)
    for name in ("conv1", "conv9", "conv1@2", "conv1~2", "Äpfel"):
        run.write_bytes(f"feature_maps/{name}.png", b"old")
    notes = run.write_text("feature_maps/notes.txt", "of the user's own")
    forgotten(run)
    assert list((run.path / "feature_maps").iterdir()) == [notes]


@pytest.mark.parametrize("forgotten", [start.forget_measured, train.forget])
def test_pictures_that_a_link_leads_to_are_not_the_run_s(forgotten, tmp_path):
    picture = Run(tmp_path).write_bytes("theirs/conv1.png", b"theirs")
    run = Run(tmp_path / "run")
    run.create()
    os.symlink(tmp_path / "theirs", run.path / "feature_maps")
    forgotten(run)
    assert picture.exists()
