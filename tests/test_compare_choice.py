"""The Pareto front, and the net that is recommended."""

import dataclasses
import math

import numpy as np
import pytest
from compared_runs import read, run_of
from hypothesis import given
from hypothesis import strategies as st

from rice_jax.report.comparison import choice
from rice_jax.report.comparison.figures import pictures
from rice_jax.report.comparison.page import page, recommendation
from rice_jax.report.page import to_markdown


def test_front_by_hand():
    points = [(1, 5), (2, 3), (2, 4), (3, 3), (4, 1), (4, 1)]
    assert choice.front(points) == [True, True, False, False, True, True]
    assert choice.front([]) == []


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12))
def test_front_is_what_no_other_point_dominates(points):
    array = np.array(points).reshape(-1, 3)
    no_worse = (array[:, None] <= array[None]).all(-1)
    better = (array[:, None] < array[None]).any(-1)
    assert choice.front(points) == list(~(no_worse & better).any(axis=0))


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.0, "best"), (0.0099, "best"), (0.01, "small"), (0.5, "tiny")]
)
def test_the_smallest_net_within_the_margin_is_chosen(tmp_path, margin, expected):
    found = read(
        run_of(tmp_path / "a", "best", 960, 9000),
        run_of(tmp_path / "b", "small", 950, 500),
        run_of(tmp_path / "c", "large", 955, 99_000),
        run_of(tmp_path / "d", "tiny", 700, 10),
    )
    chosen = choice.choose(found, margin)
    assert chosen is not None
    assert (chosen.net.label, chosen.best.label) == (expected, "best")


def test_of_equal_flops_the_fewer_parameters_are_chosen_then_accuracy(tmp_path):
    found = read(
        run_of(tmp_path / "a", "fat", 960, 100, params=9),
        run_of(tmp_path / "b", "slim", 955, 100, params=5),
        run_of(tmp_path / "c", "slim_but_worse", 954, 100, params=5),
    )
    chosen = choice.choose(found, 0.01)
    assert chosen is not None
    assert chosen.net.label == "slim"
    assert [net.label for net in chosen.within] == ["fat", "slim", "slim_but_worse"]


@pytest.mark.parametrize(
    ("flops", "params", "said"),
    [
        (300, 250, "3 times fewer, with 4 times fewer parameters"),
        (300, 4000, "3 times fewer, with 4 times as many parameters"),
        (300, 1000, "3 times fewer, with about as many parameters"),
        (900, 500, "about as many, with 2 times fewer parameters"),
        (300, 999, "3 times fewer, with about as many parameters"),
        (300, 1001, "3 times fewer, with about as many parameters"),
        (300, 31_063_500, "3 times fewer, with 31,064 times as many parameters"),
    ],
)
def test_what_a_net_costs_beside_the_best_is_told_as_more_or_fewer(tmp_path, flops, params, said):
    found = read(
        run_of(tmp_path / "a", "best", 960, 900, params=1000),
        run_of(tmp_path / "b", "small", 955, flops, params=params),
    )
    chosen = choice.choose(found, 0.01)
    text = to_markdown(page(found, choice.pareto_front(found), chosen, []))
    assert f"at {flops} FLOPs for one image, {said}" in text


def test_the_front_weighs_accuracy_flops_and_latency(tmp_path):
    found = read(
        run_of(tmp_path / "a", "accurate", 990, 900, 0.009),
        run_of(tmp_path / "b", "fast", 900, 800, 0.001),
        run_of(tmp_path / "c", "light", 900, 100, 0.009),
        run_of(tmp_path / "d", "beaten", 890, 850, 0.001),
    )
    front = choice.pareto_front(found)
    assert set(front.labels) == {"accurate", "fast", "light"}
    assert front.measures == ("augmented_accuracy", "flops_study", "latency_seconds")


def test_latency_is_left_out_where_it_cannot_be_compared(tmp_path):
    first = run_of(tmp_path / "a", "one", 990, 900, 0.009)
    other = run_of(tmp_path / "b", "two", 980, 900, 0.001, device="TPU v5e")
    unknown = run_of(tmp_path / "c", "three", 970, 900, None)
    for runs, reason in (((first, other), "several devices (TPU v5e, cpu)"),
                         ((first, unknown), "not measured for three")):  # fmt: skip
        front = choice.pareto_front(read(*runs))
        assert front.measures == ("augmented_accuracy", "flops_study")
        assert front.labels == ("one",)
        assert reason in front.why_no_latency
        sections = page(read(*runs), front, None, [])
        text = "\n".join(str(part) for section in sections for part in section)
        assert "Latency is left out" in text
    names = [picture.name for picture in pictures(read(first, other), synthetic=False)]
    assert "latency_accuracy" not in names
    assert "flops_accuracy" in names


@pytest.mark.parametrize("margin", [0.0, 0.005, 0.02, 0.03, 0.3, 0.5])
def test_what_the_margin_that_was_given_chooses_is_told_among_the_others(tmp_path, margin):
    """'best' up to a margin of 26 points, and 'tiny' from there on."""
    found = read(run_of(tmp_path / "a", "best", 960, 9000), run_of(tmp_path / "b", "tiny", 700, 10))
    chosen = choice.choose(found, margin)
    assert chosen is not None
    text = "\n".join(recommendation(found, chosen))
    if margin < 0.26:
        assert "Any margin from 0 points to 5 points chooses it." in text
    else:
        assert "Any margin" not in text
        assert "| 5 points | best |" in text
        assert f"| {100 * margin:g} points | tiny |" in text


def test_the_standard_error_of_a_test(tmp_path):
    (net,) = read(run_of(tmp_path, "a", 899, 100))
    # 900 of 1,002 right, once one right and one wrong answer are added.
    expected = math.sqrt(900 / 1002 * 102 / 1002 / 1000)
    assert choice.standard_error(net) == pytest.approx(expected)


def test_a_small_error_of_a_test_is_not_told_as_none(tmp_path):
    found = read(run_of(tmp_path, "a", 1000, 100))
    chosen = choice.choose(found, 0.01)
    text = to_markdown(page(found, choice.pareto_front(found), chosen, []))
    # 1,001 of 1,002 right: sqrt(1001 / 1002 * 1 / 1002 / 1000) is 0.000999.
    assert "to within 0.1 points or so" in text
    images = dataclasses.replace(found[0].summary.augmented, images=100_000)
    summary = dataclasses.replace(found[0].summary, augmented=images)
    entry = dataclasses.replace(found[0].entries[0], summary=summary)
    chosen = dataclasses.replace(chosen, best=dataclasses.replace(found[0], entries=(entry,)))
    assert "to within 0.001 points or so" in " ".join(recommendation(found, chosen))
