"""Numbers as text."""

import math

import pytest

from rice_jax.report import numbers

NAN = math.nan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.short(1_042_859_422), "1.043 G"),
        (numbers.short(7_551_694, 3), "7.55 M"),
        (numbers.short(999_999, 3), "1 M"),
        (numbers.short(0), "0"),
        (numbers.short(-0.05664), "-0.05664"),
        (numbers.short(NAN), "—"),
        (numbers.quantity(132_433_836, "FLOPs", 3), "132 MFLOPs"),
        (numbers.quantity(50, "FLOPs"), "50 FLOPs"),
        (numbers.percent(0.95333), "95.33 %"),
        (numbers.percent(None), "—"),
        (numbers.percent(0.99996), "> 99.99 %"),  # one mistake in 25,000 images
        (numbers.percent(0.9996, 1), "> 99.9 %"),
        (numbers.percent(0.00002), "< 0.01 %"),
        (numbers.percent(0.99994), "99.99 %"),
        (numbers.percent(1), "100.00 %"),
        (numbers.percent(0), "0.00 %"),
        (numbers.percent(-1e-20, 1), "0.0 %"),  # what is left of a sum of shares
        (numbers.percent(1 - 1e-15), "100.00 %"),
        (numbers.percent(1.25), "125.00 %"),
        (numbers.fraction(0.9996, 3), "> 0.999"),
        (numbers.fraction(0.00001), "< 0.0001"),
        (numbers.fraction(1.0), "1.0000"),
        (numbers.decimal(0.00002), "< 0.0001"),
        (numbers.decimal(1e-30), "< 0.0001"),
        (numbers.decimal(0), "0.0000"),
        (numbers.at_most(0.000121), "0.00013"),
        (numbers.at_most(1.01e-7), "1.1e-07"),
        (numbers.at_most(0.25), "0.25"),
        (numbers.at_most(0.0), "0"),
        (numbers.at_most(NAN), "—"),
        (numbers.cost("flops", 1203943966, complete=True), "1,203,943,966"),
        (numbers.cost("flops", 1234.0, complete=False), "≥ 1,234"),
        (numbers.cost("params", 1234, complete=False), "1,234"),
        (numbers.cost("latency", 0.0005037, complete=False), "504 µs"),
        (numbers.count(17301), "17,301"),
        (numbers.decimal(float("inf")), "—"),
        (numbers.decimal(-0.001, 2), "0.00"),
        (numbers.seconds(0.00421), "4.21 ms"),
        (numbers.seconds(61), "61 s"),
        (numbers.seconds(2e-8), "20 ns"),
        (numbers.seconds(0.9996), "1 s"),
        (numbers.seconds(0.0009996), "1 ms"),
        (numbers.seconds(0.9994), "999 ms"),
        (numbers.count(10**400), "—"),
        (numbers.seconds(None), "—"),
        (numbers.seconds(-1e308), "—"),
    ],
)
def test_numbers_as_a_person_reads_them(text, expected):
    assert text == expected


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0 nets"), (1, "1 net"), (2, "2 nets"), (17_301, "17,301 nets"), (None, "— nets")],
)
def test_one_is_told_without_an_s(number, told):
    assert numbers.counted(number, "net") == told


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (3, "3"),
        (3.14159, "3.14"),
        (1.0004, "1"),
        (0.99961, "1"),
        (999.4, "999"),
        (31063.5, "31,064"),
    ],
)
def test_how_many_times_as_much_has_no_exponent(ratio, told):
    assert numbers.times(ratio) == told
