"""How long a search's candidates learn: longer where images are few and nothing was said."""

import types

import pytest
from hypothesis import given, strategies

from rice_jax.lighten import few_images
from rice_jax.own_images import MOST_EPOCHS
from rice_jax.records import SearchRequest

USUAL = SearchRequest()


def images(number, synthetic=False):
    return types.SimpleNamespace(splits={"train": range(number)}, synthetic=synthetic)


@given(number=strategies.integers(1, 200_000), batch=strategies.integers(1, 300))
def test_each_training_has_the_steps_that_it_needs_and_few_more(number, batch):
    found, said = few_images.settled(USUAL, images(number), batch)
    a_pass = -(-number // batch)
    for field, least in few_images.LEAST_STEPS.items():
        now, usual = getattr(found, field), getattr(USUAL, field)
        assert usual <= now <= MOST_EPOCHS
        assert now * a_pass >= least or now == MOST_EPOCHS
        assert now == usual or (now - 1) * a_pass < least
    assert bool(said) == (found != USUAL)


def test_it_says_what_it_decided_by_the_options_names():
    # 2,023 images are 32 batches of 64: 16 of them are 512 steps, 63 are 2,016.
    found, said = few_images.settled(USUAL, images(2_023), 64)
    assert (found.epochs, found.final_epochs) == (16, 63)
    assert said == (
        "2,023 images are few, so that candidates learn from each more often: "
        "--finetune_epochs=16, --final_epochs=63"
    )


@pytest.mark.parametrize(
    ("asked", "said", "wanted"),
    [
        ({}, ("epochs",), (1, 63)),
        ({}, ("epochs", "final_epochs"), (1, 4)),
        ({"epochs": 2}, (), (2, 63)),
        ({"final_epochs": 0}, (), (16, 0)),
    ],
)
def test_what_the_user_has_set_stays(asked, said, wanted):
    found, _ = few_images.settled(SearchRequest(**asked), images(2_023), 64, said)
    assert (found.epochs, found.final_epochs) == wanted


def test_drawn_grains_only_try_a_search_out():
    assert few_images.settled(USUAL, images(50, synthetic=True), 64) == (USUAL, "")
