"""Work done ahead in threads."""

import itertools

import pytest

from rice_jax.data.parallel import in_order


@pytest.mark.parametrize("at_a_time", [1, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_results_come_in_the_order_of_their_items_and_few_are_begun_early(at_a_time, count):
    taken = itertools.count()
    items = (next(taken) for _ in range(count))
    squares = in_order(lambda number: number**2, items, workers=2, ahead=6, at_a_time=at_a_time)
    for number, square in enumerate(squares):
        assert square == number**2
        begun = int(repr(taken)[len("count(") : -1])
        assert begun <= min(count, number + 1 + 6 + 2 * at_a_time)


@pytest.mark.parametrize("at_a_time", [1, 3, 8])
def test_an_exception_comes_where_its_item_is(at_a_time):
    given = []
    parts = in_order(lambda n: 12 // (n - 20), range(40), ahead=6, at_a_time=at_a_time)
    with pytest.raises(ZeroDivisionError):
        given.extend(parts)  # keeps what came before
    assert given == [12 // (number - 20) for number in range(len(given))]
    assert 20 - at_a_time < len(given) <= 20
