"""The tests of bounds notice when one is loosened: each of these changes makes one fail."""

import jax.numpy as jnp
import mutated
import pytest
import test_inspection_bounds as bounds
import test_inspection_functions as operations
import test_inspection_interval as intervals
import test_inspection_proof as proofs
import test_prune_certificate as certificates

from rice_jax.inspection import functions, interval, linear, ranges, rounding, rules, softmaxes

rounded_ends = intervals.test_ends_that_were_rounded_hold_what_they_were_rounded_from.hypothesis

MUTATIONS = {
    "sums without rounding": (
        interval,
        ("share = (terms + 8) * unit", "share = 0.0 * terms * unit"),
        intervals.test_a_sums_error_grows_with_its_terms_and_may_eat_all_of_it,
    ),
    "no margin": (
        interval,
        (
            "lo - margin * (1 + 4 * UNIT), hi + above * (1 + 4 * UNIT)",
            "lo + 0 * margin, hi + 0 * above",
        ),
        lambda: rounded_ends.inner_test(0),
    ),
    "ends as they were rounded": (
        interval,
        ("lo - 4 * UNIT * jnp.abs(lo), hi + 4 * UNIT * jnp.abs(hi)", "lo, hi"),
        lambda: rounded_ends.inner_test(0),
    ),
    "no gap about zero": (
        interval,
        ("lo, hi = -_upward(-lo), _upward(hi)", "lo, hi = lo, hi"),
        lambda: intervals.test_an_end_near_zero_moves_to_where_nothing_underflows(1e-30),
    ),
    "NaN is bounded": (
        interval,
        ("finite = jnp.isfinite(lo) & jnp.isfinite(hi)", "finite = lo == lo"),
        lambda: proofs.test_nothing_is_proven_behind_what_has_no_bounds("nothing to divide by"),
    ),
    "what is outside is read too": (
        rules,
        ("if not _reads_inside(equation)", "if False"),
        lambda: proofs.test_nothing_is_proven_behind_what_has_no_bounds("unknown places, or none"),
    ),
    "the ends of one place": (
        rules,
        ("high.max(axes", "high.min(axes"),
        proofs.test_what_is_read_of_unknown_places_has_the_ends_of_all_places,
    ),
    "float64 is float32": (
        interval,
        (
            "if np.array_equal(single.astype(array.dtype), array) and not near_zero.any():",
            "if not near_zero.any():",
        ),
        lambda: intervals.test_a_float64_is_held_by_what_float32_makes_of_it(0.1),
    ),
    "tiny is zero": (
        interval,
        ("return (bits > 0) & (bits <", "return (bits > 1e30) & (bits <"),
        lambda: intervals.test_a_number_too_small_to_count_on_is_no_zero(1e-40),
    ),
    "bfloat16 does not round": (
        interval,
        ('"bfloat16": 2.0**-8', '"bfloat16": 0.0'),
        lambda: intervals.test_roundoff_is_what_a_type_rounds_by(jnp.bfloat16),
    ),
    "rounding explains all": (
        rounding,
        ("CONFIDENCE = 8.0", "CONFIDENCE = 800.0"),
        certificates.test_a_longer_sum_and_rounded_operands_are_allowed_more,
    ),
    "sums round as one number": (
        rounding,
        ("math.sqrt(summands(equation))", "1"),
        certificates.test_a_longer_sum_and_rounded_operands_are_allowed_more,
    ),
    "TF32 rounds to the nearest": (
        linear,
        ('"gpu": 2.0**-10', '"gpu": 2.0**-11'),
        bounds.test_bounds_hold_for_operands_that_a_tensor_core_cuts_to_tf32,
    ),
    "TF32 is forgotten": (
        linear,
        ('backend == "gpu" and precision == (', 'backend == "gpu" and precision != ('),
        bounds.test_bounds_hold_for_operands_that_a_tensor_core_cuts_to_tf32,
    ),
    "any algorithm is float32's": (
        linear,
        ("return math.inf", "return 0.0"),
        bounds.test_an_algorithm_that_the_net_asks_for_bounds_nothing,
    ),
    "short sums round once": (
        rules,
        ("gamma(terms, unit) + gamma(terms)", "2 * gamma(terms)"),
        lambda: bounds.test_bounds_hold_for_pools_that_round_after_each_term(32),
    ),
    "a step is off by nothing": (
        interval,
        ("error * at_lo + least, terms, above=error * at_hi", "least, terms, above=0.0 * at_hi"),
        lambda: bounds.test_bounds_hold_for_weights_and_images_that_are_rounded_to_another_type(
            "float16", "bfloat16"
        ),
    ),
    "a sign of what may be NaN": (
        functions,
        ("jnp.where(known, jnp.sign(a.lo), -jnp.inf)", "jnp.sign(a.lo)"),
        lambda: operations.test_nothing_is_known_of_what_may_be_no_number(
            "sign of what nothing is known of"
        ),
    ),
    "a power of what may be NaN": (
        functions,
        ("(a.lo >= 0) & jnp.isfinite(b.hi)", "a.lo >= 0"),
        lambda: operations.test_nothing_is_known_of_what_may_be_no_number(
            "1 to what nothing is known of"
        ),
    ),
    "a power of what may be negative": (
        functions,
        ("defined = (a.lo >= 0) & ", "defined = "),
        lambda: operations.test_nothing_is_known_of_what_may_be_no_number(
            "power of what may be negative"
        ),
    ),
    "a power by two corners": (
        functions,
        ("for y in (b.lo, b.hi)", "for y in (b.lo,)"),
        lambda: operations.test_bounds_contain_functions("power by the image"),
    ),
    "a sine of what may be NaN": (
        functions,
        ("1.0, jnp.inf)\n", "1.0, 1.0)\n"),
        lambda: operations.test_nothing_is_known_of_what_may_be_no_number(
            "sine of what nothing is known of"
        ),
    ),
    "one of two conditions": (
        rules,
        ("jnp.minimum(a_lo, b_lo)", "jnp.maximum(a_lo, b_lo)"),
        lambda: operations.test_bounds_contain_functions("both"),
    ),
    "what is apart by an end": (
        rules,
        ("(a.lo > b.hi) | (b.lo > a.hi)", "(a.hi > b.hi) | (b.lo > a.hi)"),
        lambda: operations.test_bounds_contain_functions("equal"),
    ),
    "a softmax by any maximum": (
        softmaxes,
        ("!= (x, summed[1])", "is None"),
        lambda: proofs.test_what_only_looks_like_a_softmax_is_not_bounded_as_one(
            "by that along another axis"
        ),
    ),
    "fractions do not round": (
        ranges,
        ("(least == most) & (", "("),
        lambda: operations.test_bounds_contain_what_fractions_are_cut_to("near to a whole number"),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_to_be_changed_stands_there_once(name):
    mutated.require_place(*MUTATIONS[name][:2])


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.one_in(12)
def test_a_loosened_proof_makes_a_test_fail(name):
    mutated.require_failure(*MUTATIONS[name])


def test_what_is_not_changed_passes_and_a_change_does_not_last():
    test = MUTATIONS["sums without rounding"][2]
    with mutated.changed(interval, "share = (terms + 8) * unit", "share = unit * (terms + 8)"):
        test()
    test()
