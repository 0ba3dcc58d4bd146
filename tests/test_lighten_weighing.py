"""How a search weighs its candidates: the front, the margin, what is gone on with."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rice_jax.lighten import weighing
from rice_jax.lighten.weighing import Point
from rice_jax.records import SearchRequest

POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1).map(
    lambda pairs: [Point(str(i), cost, right / 10) for i, (cost, right) in enumerate(pairs)]
)


@given(POINTS)
def test_nothing_on_the_front_is_beaten_and_everything_else_is(points):
    kept = weighing.front(points)
    assert kept == sorted(kept, key=lambda point: point.cost)
    for point in points:
        beaten = [
            other for other in kept if other.cost <= point.cost and other.accuracy >= point.accuracy
        ]
        assert beaten
        assert (point in kept) == (beaten == [point])


SHARE = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@given(POINTS, SHARE, SHARE)
def test_the_lightest_obeys_the_margin_and_what_learns_longer_is_lighter_and_short_of_it(
    points, floor, slack
):
    found = weighing.lightest(points, floor)
    within = [point.cost for point in points if point.accuracy >= floor]
    assert (found is None) == (not within)
    assert found is None or (found.accuracy >= floor and found.cost == min(within))
    longer = weighing.to_train(points, floor, floor - slack)
    assert all(floor - slack <= point.accuracy < floor for point in longer)
    assert all(point.cost < min(within, default=99) for point in longer)
    assert [p.cost for p in longer] == sorted((p.cost for p in longer), reverse=True)


@pytest.mark.parametrize("images", [100, 1000])
def test_as_many_images_below_as_the_margin_says_are_within_it_and_one_more_is_not(images):
    """Whatever binary fractions make of the three; counted in whole images."""
    for right, percent in itertools.product(range(images // 2, images + 1), (1, 2, 5)):
        margin, least = percent / 100, right - percent * images // 100
        floor = SearchRequest(within=margin).floor(right / images)
        there, short = (Point(str(n), 1, n / images) for n in (least, least - 1))
        assert weighing.lightest([there], floor) == there
        assert weighing.lightest([short], floor) is None
        assert weighing.to_lighten([there], (), floor, 1) == [there]
        assert weighing.to_lighten([short], (), floor, 1) == []
        assert weighing.to_train([there], floor, floor - margin) == []
        assert weighing.to_train([short], floor, floor - 1 / images) == [short]


@pytest.mark.parametrize(
    ("own", "within", "wanted"), [(0.2, 0.5, 0.0), (0.5, 0.5, 0.0), (0.75, 0.5, 0.25)]
)
def test_no_less_than_no_image_is_wanted(own, within, wanted):
    assert SearchRequest(within=within).floor(own) == wanted
