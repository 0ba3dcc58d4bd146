"""Intervals hold exact results of float32 arithmetic, of whatever size."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax.inspection.interval import SMALLEST, UNIT, gamma, point, roundoff, widened


def holds(interval, exact):
    lo, hi = (np.asarray(end, np.float64) for end in (interval.lo, interval.hi))
    return bool(np.all((lo <= exact) & (exact <= hi)))


@settings(max_examples=30)
@given(st.integers(0, 2**16))
def test_ends_that_were_rounded_hold_what_they_were_rounded_from(seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 64)).astype(np.float32)
    exact = a.astype(np.float64) * b
    rounded = jnp.asarray(a * b)
    assert holds(widened(rounded, rounded, 0.0), exact)
    assert holds(widened(rounded, rounded, 0.5), exact + 0.5)
    assert holds(widened(rounded, rounded, 0.5), exact - 0.5)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-7, -2.7e5 / 7])
def test_a_float64_is_held_by_what_float32_makes_of_it(value):
    exact = np.array([value])
    interval = point(exact)
    assert holds(interval, exact)
    assert not interval.exact
    assert point(exact.astype(np.float32)).exact


@pytest.mark.parametrize("value", [1e-40, -1e-40, 1e-30, -1e-30])
def test_a_number_too_small_to_count_on_is_no_zero(value):
    interval = point(np.float32([value]))
    assert holds(interval, np.float64([value]))
    ends = float(interval.lo[0]), float(interval.hi[0])
    assert max(ends, key=abs) * np.sign(value) > 1e-30
    assert not interval.exact


@pytest.mark.parametrize("value", [1e-30, -1e-30])
def test_an_end_near_zero_moves_to_where_nothing_underflows(value):
    end = jnp.full(1, value, jnp.float32)
    interval = widened(end, end, 0.0)
    ends = float(interval.lo[0]), float(interval.hi[0])
    assert all(end == 0 or abs(end) >= SMALLEST for end in ends)
    assert max(ends, key=abs) * np.sign(value) >= SMALLEST
    assert min(ends) <= value <= max(ends)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_roundoff_is_what_a_type_rounds_by(dtype):
    exact = np.random.default_rng(0).normal(size=4096)
    rounded = np.asarray(jnp.asarray(exact, dtype), np.float64)
    largest = np.max(np.abs(rounded - exact) / np.abs(exact))
    assert largest <= roundoff(dtype) <= 5 * largest


def test_a_sums_error_grows_with_its_terms_and_may_eat_all_of_it():
    assert gamma(100) > 100 * UNIT
    assert gamma(1000) > gamma(100) > gamma(10)
    assert gamma(2**24) == np.inf
