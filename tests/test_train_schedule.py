"""What a recipe asks of steps and epochs: rates by hand, image sizes, how many images, refusals."""

import math
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import config, dataset, rows

from rice_jax import config as configuration
from rice_jax import models, nets, train
from rice_jax.errors import UserError
from rice_jax.records import EpochRow
from rice_jax.run import Run
from rice_jax.train import loop, schedule
from rice_jax.train.step import Metrics


def quick(**fields):
    """The `train` part of a tiny configuration with these fields of quick."""
    tiny = config(schedule="quick")
    tiny.train.quick.update(fields)
    return tiny.train


def test_the_rate_rises_to_its_peak_and_falls_as_half_a_cosine():
    recipe = quick(peak_rate=0.8, warmup=0.2)
    rates = [schedule.quick_rate(recipe, step, 10) for step in range(10)]
    falling = {2: 0.8, 4: 0.4 * (1 + math.sqrt(0.5)), 6: 0.4, 8: 0.4 * (1 - math.sqrt(0.5))}
    assert rates[:2] == pytest.approx([0.4, 0.8])
    assert {step: rates[step] for step in falling} == pytest.approx(falling)


@given(st.integers(1, 300), st.floats(0, 1, exclude_max=True))
def test_the_rate_has_one_peak_and_is_never_zero(steps, warmup):
    recipe = quick(peak_rate=1.0, warmup=warmup)
    rates = [schedule.quick_rate(recipe, step, steps) for step in range(steps)]
    top = rates.index(max(rates))
    assert rates[top] == 1.0
    assert all(rate > 0 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_what_is_left_is_pixels_at_the_newest_epoch_s_pace_and_each_new_size_compiled_once():
    """By hand: epochs of 2 x 2, 2 x 2, 4 x 4 and 8 x 8 pixels; without compiling 1, 1, 4, 16 s."""
    course = schedule.Schedule(quick(), (2, 2, 4, 8), (8,) * 4, images=60)
    spent = [(50.0, 1.0, 0.0), (0.0, 0.5, 0.5), (60.0, 4.0, 0.0), (55.0, 15.0, 1.0)]
    rows = [
        EpochRow(epoch=number, compiling_seconds=c, step_seconds=s, drawing_seconds=d)
        for number, (c, s, d) in enumerate(spent, 1)
    ]
    left = [course.seconds_left(rows[:ended]) for ended in (1, 2, 3, 4)]
    assert left == [(1 + 4 + 16) + 2 * 50, (4 + 16) + 2 * 50, 16 + 60, 0]


def test_what_is_left_where_older_rows_do_not_tell_of_compiling():
    course = schedule.Schedule(quick(), (4, 4, 8), (8,) * 3, images=60)
    rows = [EpochRow(epoch=1), EpochRow(epoch=2, compiling_seconds=9.0, step_seconds=1.0)]
    assert course.seconds_left(rows) == 4 + 9


@pytest.mark.parametrize(("images", "batches"), [(1, 1), (19, 1), (20, 1), (21, 2), (60, 3)])
def test_an_epoch_has_all_its_images_and_the_last_batch_may_be_short(images, batches):
    recipe = config(batch_size=20).train
    assert schedule.Schedule(recipe, (8,), (8,), images).steps_an_epoch == batches


def test_the_study_s_rate_is_the_one_that_validation_left():
    course = schedule.Schedule(config(schedule="study").train, (8, 8), (8, 8), images=60)
    assert [course.rate(step, held=0.3) for step in (0, 5)] == [0.3, 0.3]


def test_the_quick_rate_is_halved_in_each_try():
    course = schedule.Schedule(quick(), (8, 8), (8, 8), images=60)
    first, third = ([course.rate(step, 0.3, tries) for step in range(6)] for tries in (0, 2))
    assert third == [rate / 4 for rate in first]


@pytest.mark.parametrize("name", models.NETS)
def test_nets_that_average_see_smaller_images_first_and_others_do_not(name):
    made = configuration.default(name)
    made.train.schedule = "quick"
    made.train.quick.update(shrink=(4, 1), epochs=(2, 1))
    flattens = name in ("cnn", "cnn_light")
    small = 32 if name == "nano" else 56  # 224 x 224 is 32 x 32 to it, and 56 x 56 would stay
    assert train.image_sizes(made) == ((224,) * 3 if flattens else (small, small, 224))
    made.train.update(schedule="study", epochs=50)
    assert train.image_sizes(made) == (224,) * 50


@pytest.mark.parametrize(
    ("name", "grid", "side", "sizes"),
    [
        ("micro", 56, 224, {56, 112}),  # a quarter and half, as its recipe has it
        ("micro", 56, 112, {56}),  # would be 28 and 56
        ("micro", 56, 40, {40}),  # it averages none
        ("nano", 32, 32, {32}),  # would be 4
        ("final", 100, 224, {112, 224}),
        ("googlenet_light", 150, 224, {224}),  # would be 112, or 150: it averages none to either
        ("micro", 56, 64, {64}),  # would be 56, and never 64
        ("micro", 56, 192, {64}),  # 56 and 96, of which it averages neither as 192 x 192 to 64
        ("micro", 56, 250, {62, 125}),
        ("micro", 56, 300, {60, 120}),  # 75 and 150, which would both become 75
        ("nano", 32, 100, {33, 100}),
    ],
)
def test_a_net_that_averages_images_learns_from_those_that_become_what_whole_ones_do(
    name, grid, side, sizes
):
    made = configuration.default(name)
    made.train.schedule = "quick"
    made.model.grid, made.data.image_size = grid, side
    assert set(train.image_sizes(made)) == sizes


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("cnn", 8),  # 8, 4, 2, 1 by its pools
        ("cnn_light", 11),  # 11, 6, 3, 2, 1 by strides, which round up, and pools, which round down
        ("final", 4),  # 4, 2, 1
        ("micro", 1),  # strides alone
    ],
)
@pytest.mark.parametrize("recipe", ["study", "quick"])
def test_images_that_a_net_pools_away_are_refused_by_any_recipe_and_no_larger_ones(
    name, least, recipe
):
    """Quick's halves count where a net learns from them: not where it flattens its maps."""
    made = configuration.default(name)
    made.train.update(schedule=recipe, epochs=1)
    halved = recipe == "quick" and name == "final"
    made.train.quick.update(shrink=(2 if halved else 1,), epochs=(1,))
    made.data.image_size = least * 2 if halved else least
    assert train.image_sizes(made) == (least,)
    made.train.quick.update(shrink=(2, 1), epochs=(1, 1))
    assert set(train.image_sizes(made)) <= {least, made.data.image_size}
    if least > 1:
        made.data.image_size = least - 1
        with pytest.raises(UserError, match=rf"config\.data\.image_size={least - 1} is too small"):
            train.image_sizes(made)


@pytest.mark.parametrize(("name", "size"), [("final", 7), ("final", 4), ("vgg_custom", 15)])
def test_where_half_an_image_is_too_small_the_refusal_says_how_whole_ones_are_learnt_from(
    name, size
):
    made = configuration.default(name)
    made.data.image_size, made.train.schedule, made.train.quick.epochs = size, "quick", (3, 2)
    with pytest.raises(UserError) as refused:
        train.image_sizes(made)
    remedy = r"quick\.shrink=(\d+) --config\.train\.quick\.epochs=(\d+) "
    said = re.search(remedy, str(refused.value))
    made.train.quick.shrink, made.train.quick.epochs = ((int(each),) for each in said.groups())
    assert train.image_sizes(made) == (size,) * 5


@pytest.mark.parametrize("error", [AssertionError, KeyError, RuntimeError, ValueError])
def test_a_net_that_asks_for_one_size_learns_at_that(error):
    class OfOneSize(nn.Module):
        @nn.compact
        def __call__(self, images):
            if images.shape[1] != 16:
                raise error(images.shape)
            return nn.Dense(2)(images.mean((1, 2)))

    quick = config(schedule="quick").train
    assert schedule.image_sizes(quick, OfOneSize(), 16) == (16,) * 8
    assert [size for size in (8, 12, 16, 32) if schedule.takes(OfOneSize(), size)] == [16]


OWN = "the same size, and the best epoch is one of the largest"
UNSEEN = "224 x 224, which says little of a net that has not learned at that size yet"


@pytest.mark.parametrize(
    ("sizes", "grid", "images", "where"),
    [
        ((112,) * 4 + (224,), 0, "of 112 x 112 in epochs 1 to 4, of 224 x 224 in epoch 5", OWN),
        ((56, 224, 224), 0, "of 56 x 56 in epoch 1, of 224 x 224 in epochs 2 to 3", OWN),
        ((112, 112), 0, "of 112 x 112 in epochs 1 to 2", UNSEEN),  # and never from whole ones
        ((56, 112), 56, "of 56 x 56 in epoch 1, of 112 x 112 in epoch 2", "224 x 224"),  # micro
        ((28, 224), 56, "of 28 x 28 in epoch 1, of 224 x 224 in epoch 2", OWN),
    ],
)
def test_what_is_learned_from_and_validated_on_is_told(sizes, grid, images, where):
    validated = nets.validated_at(sizes, 224, grid)
    assert validated == (sizes if where == OWN else (224,) * len(sizes))
    told = nets.learned_from(sizes, validated, 224, grid)
    assert told == f"images {images}; validation is at {where}"


def test_a_run_that_an_older_version_validated_on_whole_images_says_so():
    assert nets.learned_from((112, 224), (224, 224), 224, 0).endswith(UNSEEN)
    begun = nets.learned_from((112, 112, 112, 224), (224, 112, 112, 224), 224, 0)
    assert begun.endswith(
        "; validation is at 224 x 224 in epoch 1, 112 x 112 in epochs 2 to 3, 224 x 224 in epoch 4"
    )


@pytest.mark.parametrize("sizes", [(), (224,), (224,) * 50])
def test_nothing_is_told_where_all_images_are_whole(sizes):
    assert nets.learned_from(sizes, sizes, 224, 0) == ""


def test_a_training_tells_its_sizes_before_it_begins_and_in_each_row(tmp_path, capsys):
    tiny = config(schedule="quick")
    tiny.train.quick.update(shrink=(2, 1), epochs=(1, 2))
    train.train(tiny, Run(tmp_path), dataset())
    assert [row["image_size"] for row in rows(Run(tmp_path))] == ["8", "16", "16"]
    said = capsys.readouterr().out
    told = "final learns from images of 8 x 8 in epoch 1, of 16 x 16 in epochs 2 to 3; validation"
    assert 0 <= said.index(told) < said.index("epoch   1/3")


@pytest.mark.parametrize("name", ["study", "quick"])
def test_a_number_of_epochs_can_be_set_whatever_the_schedule(name):
    tiny = config(schedule=name)
    configuration.set_epochs(tiny, 5)
    assert train.image_sizes(tiny) == (16,) * 5
    assert schedule.epochs(tiny.train) == 5


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"peak_rate": math.nan}, r"quick\.peak_rate=nan: give a number above 0"),
        ({"epochs": (1, 0, 1)}, r"quick\.epochs=\(1, 0, 1\): give 1 to 100 of"),
        ({"shrink": (4, 2, 1)}, r"quick\.shrink=\(4, 2, 1\) and .*\(4, 4\) differ"),
        ({"shrink": (16, 1)}, r"quick\.shrink=\(16, 1\) makes images of 1 x 1 pixels"),
        ({"shrink": (99, 1)}, r"quick\.shrink=\(99, 1\) makes images of 0 x 0 pixels"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(fields, complaint, tmp_path):
    tiny = config(schedule="quick")
    tiny.train.quick.update(fields)
    with pytest.raises(UserError, match=rf"config\.train\.{complaint}"):
        train.train(tiny, Run(tmp_path / "run"), dataset())
    assert not (tmp_path / "run").exists()


def test_the_study_ignores_what_is_quick_s_alone(tmp_path):
    tiny = config()
    tiny.train.quick.update(epochs=(1,), shrink=(99,))
    train.check(tiny, dataset(), Run(tmp_path))


def test_an_epoch_learns_from_and_ends_with_as_many_images_as_are_asked_for(tmp_path, monkeypatch):
    learnt, looked_at = [], []

    class Evaluator:
        def __init__(self, *_, limit, **__):
            looked_at.append(limit)

        def __call__(self, *_, **__):
            return 1.0, np.eye(5, dtype=np.int64)

    def step(state, rows, index, rate):
        learnt.append((int(index), float(np.sum(rows["weight"]))))
        told = (1.0, 1.0, learnt[-1][1], True, 0)
        return state, Metrics(*map(jnp.asarray, told))

    monkeypatch.setattr(loop, "Evaluator", Evaluator)
    monkeypatch.setattr(loop._Training, "_compiled", lambda self: step)
    tiny = config(epochs=2, images=40, validation_images=7, batch_size=32)
    train.train(tiny, Run(tmp_path), dataset())
    assert learnt == [(0, 32), (1, 8), (2, 32), (3, 8)]
    assert looked_at == [7]
