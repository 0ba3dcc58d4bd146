"""What a candidate of a search learns from, and how."""

import types

import pytest

from rice_jax import config as configuration
from rice_jax import profile, train
from rice_jax.lighten import candidate
from rice_jax.run import Run
from rice_jax.train import schedule


@pytest.mark.parametrize(
    ("grid", "augment", "epochs", "sizes"),
    [
        (0, True, 8, (224,) * 8),
        (112, True, 8, (112,) * 6 + (224,) * 2),
        (56, True, 3, (56,) * 3),
        (56, True, 5, (56,) * 4 + (112,)),
        (56, False, 8, (56,) * 8),
    ],
)
def test_a_candidate_learns_from_what_it_looks_at_and_last_from_larger_augmented_images(
    grid, augment, epochs, sizes
):
    config = configuration.default("final").unlock()
    config.model.grid = grid
    config.train.augment = augment
    recipe = candidate.Workshop(None, None, config, None, "flops").recipe(config, epochs)
    module = train.build(recipe)
    assert schedule.image_sizes(recipe.train, module, recipe.data.image_size) == sizes


def test_a_candidate_whose_checkpoints_are_gone_is_made_anew(tmp_path):
    workshop = candidate.Workshop(Run(tmp_path), None, None, None, "flops")
    run = workshop.folder("channels")
    run.create()
    run.write_json("config.json", {})
    assert not workshop.begun("channels")
    (run.path / "checkpoints" / "0").mkdir(parents=True)
    assert workshop.begun("channels")


@pytest.mark.parametrize("names", [["", "channels"], ["", "stem", "layer"]])
def test_latencies_are_measured_in_turn_and_the_least_of_each_is_taken(monkeypatch, names):
    """The machine is slow for some while, longer than one net takes."""
    turns = [*names, *names, *names]
    slow = {0, 1, len(names), len(turns) - 1}
    measured = []

    def latency(module, variables, shape, **_):
        measured.append(module)
        return {"median": (1 + names.index(module)) * (9 if len(measured) - 1 in slow else 1)}

    monkeypatch.setattr(profile, "latency", latency)
    monkeypatch.setattr(
        candidate.Workshop,
        "net",
        lambda self, name: types.SimpleNamespace(module=name, params={}),
    )
    config = configuration.default("final")
    workshop = candidate.Workshop(None, None, config, None, "latency")
    assert workshop.latencies(names) == {name: 1 + i for i, name in enumerate(names)}
    assert measured == turns
