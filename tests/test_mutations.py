"""The tests of proofs notice when one is loosened: each of these changes makes one fail."""

import contextlib
import inspect
import sys
import types

import jax
import jax.numpy as jnp
import pytest
import test_inspection_bounds as bounds
import test_inspection_interval as intervals
import test_inspection_proof as proofs
import test_prune_certificate as certificates
import test_prune_dead as dead_filters
import test_prune_departure as departures
import test_prune_folding as folding
import test_prune_picks as picks
import test_prune_shapes as shapes

from rice_jax.errors import UserError
from rice_jax.inspection import interval, linear, ranges, rounding, rules, softmaxes
from rice_jax.prune import agreement, biases, certificate, dead, departure, pruner, surgery
from rice_jax.prune import shapes as shapes_held


@contextlib.contextmanager
def mutated(module, before, after):
    """A module whose functions and constants are those of a changed source, for a while."""
    source = inspect.getsource(module)
    assert source.count(before) == 1, before
    other = types.ModuleType(module.__name__)
    vars(other).update(__file__=module.__file__, __package__=module.__package__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, other)
        exec(compile(source.replace(before, after), module.__file__, "exec"), vars(other))
    with pytest.MonkeyPatch.context() as patch:
        for home, changed in _homes(module, other):
            for name, value in list(vars(changed).items()):
                own = vars(home).get(name)
                if name.startswith("__"):
                    continue
                if isinstance(own, types.FunctionType) and own.__module__ == module.__name__:
                    whole, part = inspect.unwrap(own), inspect.unwrap(value)
                    patch.setattr(whole, "__code__", part.__code__)
                elif isinstance(value, float | dict) and own != value:
                    patch.setattr(home, name, value)
        yield


def _homes(module, other):
    """The module and its classes, each with the changed one."""
    yield module, other
    for name, value in list(vars(other).items()):
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield vars(module)[name], value


def certified(test, *arguments):
    return lambda: test(certificates.Net().init(jax.random.key(0), certificates.IMAGES), *arguments)


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
    "nearly constant is constant": (
        dead,
        ("_AS_ROUNDED = 2.0", "_AS_ROUNDED = 2e9"),
        lambda: dead_filters.test_what_an_image_changes_is_not_constant_however_faint_it_is(
            True, (0.0, 1.0)
        ),
    ),
    "every constant folds": (
        dead,
        ("((least == 0) | folds_exactly(graph, contraction))", "(least == least)"),
        dead_filters.test_a_constant_that_meets_padding_stays,
    ),
    "dead if dead anywhere": (
        dead,
        ("result[channels[(channels >= 0) & ~truth]] = False", "pass"),
        folding.test_a_filter_that_the_last_images_wake_is_not_dead,
    ),
    "the first images tell": (
        dead,
        ("(np.minimum(low, least), np.maximum(high, most))", "(low, high)"),
        folding.test_a_filter_that_the_last_images_wake_is_not_dead,
    ),
    "a layer may be empty": (
        dead,
        ("kept[np.flatnonzero(graph.group == group)[0]] = True", "pass"),
        dead_filters.test_a_net_of_dead_filters_keeps_one_in_each_layer,
    ),
    "NaN passes": (
        certificate,
        ("if odd.any():", "if odd.any() and False:"),
        certified(certificates.test_weights_that_are_no_numbers_are_never_equal),
    ),
    "any difference is rounding": (
        certificate,
        ("if worst.difference > explained:", "if worst.difference > 1e9 * explained:"),
        certified(
            certificates.test_proven_stands_beside_rounding_alone_whatever_the_logits_size, 1e-3
        ),
    ),
    "the first logits tell": (
        certificate,
        ("or scores.max() > self.score)", "or False)"),
        certified(certificates.test_the_largest_difference_may_be_on_any_image_and_at_any_logit),
    ),
    "the largest logit tells for all": (
        certificate,
        ("beside.score > _SUSPECT", "False"),
        certified(certificates.test_a_small_logit_is_held_against_its_own_rounding, 0),
    ),
    "relative to nothing": (
        certificate,
        ("worst.difference / size if size", "worst.difference if size"),
        certified(
            certificates.test_a_difference_is_told_in_itself_and_relative_to_the_largest_logit
        ),
    ),
    "proven without a bound": (
        certificate,
        ("or not worst.difference)", "or True)"),
        certified(certificates.test_where_rounding_cannot_be_told_proven_needs_equal_logits),
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
    "a bias may have other readers": (
        biases,
        ("bias.readers != (reader,)", "reader not in bias.readers"),
        lambda: folding.test_a_constant_that_no_bias_takes_up_stays("read through a cast"),
    ),
    "a sum may have other readers": (
        biases,
        (
            "if len(made.readers) != 1 or made.returned:\n        return None\n"
            "    (reader,) = made.readers",
            "reader = next(each for each in made.readers if each.name == 'add')",
        ),
        lambda: folding.test_a_constant_that_no_bias_takes_up_stays("sum read again"),
    ),
    "a bias in any order": (
        biases,
        ("or not np.all(bias.places() == line)", ""),
        lambda: folding.test_a_constant_that_no_bias_takes_up_stays("in another order"),
    ),
    "a bias for rows": (
        biases,
        ("or not np.all(bias.places() == line)", ""),
        lambda: folding.test_a_constant_that_no_bias_takes_up_stays("for rows"),
    ),
    "several axes of filters": (
        biases,
        ("or len(kernel.shape) != 2", ""),
        lambda: folding.test_a_constant_that_no_bias_takes_up_stays("for one of two axes"),
    ),
    "from the wrong side": (
        biases,
        ('or (reader.name == "sub" and left is not output)', ""),
        lambda: folding.test_a_constant_that_no_bias_takes_up_stays("from the left"),
    ),
    "folded as a GPU multiplies": (
        biases,
        ("with jax.default_device(host):", "with jax.default_device(None):"),
        folding.test_what_a_bias_takes_up_is_no_product_of_a_gpu,
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
    "padding is forgotten": (
        biases,
        ("any(edge > 0 for edges", "any(edge > 99 for edges"),
        dead_filters.test_a_constant_that_meets_padding_stays,
    ),
    "folded with the wrong sign": (
        biases,
        ("+ sign * missing", "- sign * missing"),
        lambda: folding.test_a_constant_that_a_bias_takes_up_goes("plain"),
    ),
    "the parameter for its kernel": (
        biases,
        (
            "graph.origins.compute(equation.inputs[1 - operand], variables)",
            "variables['params']['kernel']",
        ),
        lambda: folding.test_a_constant_that_a_bias_takes_up_goes("scaled"),
    ),
    "another number is accepted": (
        surgery,
        ("if found and not agree(", "if False and not agree("),
        lambda: shapes.test_a_number_that_came_from_a_shape_stays_what_it_was("root"),
    ),
    "constants are not compared": (
        departure,
        ("elif not self._same_numbers(", "elif False and self._same_numbers("),
        lambda: shapes.test_a_number_that_came_from_a_shape_stays_what_it_was("root"),
    ),
    "parameters are not compared": (
        departure,
        ("_same(value, other.params.get(name)):", "True:"),
        lambda: shapes.test_a_number_that_came_from_a_shape_stays_what_it_was("power"),
    ),
    "what random images tell is a proof": (
        pruner,
        ("not asked and cut.departure is None", "not asked"),
        departures.test_what_random_images_do_not_tell_is_not_proven,
    ),
    "any pick is right": (
        departure,
        ("return inside and np.array_equal(", "return inside or np.array_equal("),
        lambda: picks.test_another_pick_is_a_departure("window"),
    ),
    "no layer picks by place": (
        sys.modules["rice_jax.prune.dependencies"],  # its name is a function's too
        ("if layer not in wide]", "if not layer]"),
        lambda: picks.test_a_layer_that_is_not_narrow_itself_picks_what_it_did(
            picks.PICKS["window"], "one", [0]
        ),
    ),
    "one filter less tells all": (
        shapes_held,
        ("for removed in (_first_of, _others_of):", "for removed in (_first_of,):"),
        lambda: shapes.test_a_number_that_changes_when_more_is_gone_stays_what_it_was("a seventh"),
    ),
    "any place is right": (
        departure,
        ("np.all(inside) and np.array_equal(source[taken], wanted)", "np.all(inside)"),
        lambda: departures.test_a_place_that_is_not_its_own_is_a_departure(pytest.MonkeyPatch()),
    ),
    "sums over any places": (
        departure,
        ("!= self._left(line):", "!= self._left(line) and False:"),
        departures.test_a_sum_over_places_of_what_is_gone_is_a_departure,
    ),
    "one channel for several": (
        departure,
        ("size != twin.shape[axis]", "False"),
        departures.test_one_channel_is_not_spread_over_the_places_of_others,
    ),
    "repetitions are no number": (
        departure,
        ("value.shape[axis] != twin.shape[axis]", "False"),
        lambda: departures.test_a_number_made_of_as_many_as_there_are_channels_is_a_departure(
            "sum"
        ),
    ),
    "any number of logits": (
        certificate,
        ("if first.shape != second.shape or", "if"),
        certified(
            certificates.test_logits_of_another_kind_are_not_compared, lambda logits: logits[:, :1]
        ),
    ),
    "short sums round once": (
        rules,
        ("gamma(terms, unit) + gamma(terms)", "2 * gamma(terms)"),
        lambda: bounds.test_bounds_hold_for_pools_that_round_after_each_term(32),
    ),
    "a step is off by nothing": (
        rules,
        ("error * at_lo + least, terms, above=error * at_hi", "least, terms, above=0.0 * at_hi"),
        lambda: bounds.test_bounds_hold_for_weights_and_images_that_are_rounded_to_another_type(
            "float16", "bfloat16"
        ),
    ),
    "one of two conditions": (
        rules,
        ("jnp.minimum(a_lo, b_lo)", "jnp.maximum(a_lo, b_lo)"),
        lambda: bounds.test_bounds_contain_functions("both"),
    ),
    "what is apart by an end": (
        rules,
        ("(a.lo > b.hi) | (b.lo > a.hi)", "(a.hi > b.hi) | (b.lo > a.hi)"),
        lambda: bounds.test_bounds_contain_functions("equal"),
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
        lambda: bounds.test_bounds_contain_what_fractions_are_cut_to("near to a whole number"),
    ),
    "any output": (
        departure,
        ("if not self._is_twin(value, twin) or", "if"),
        departures.test_a_net_that_returns_something_else_is_a_departure,
    ),
    "all nets agree": (
        agreement,
        ("_CLOSE = 1e-5", "_CLOSE = 1e5"),
        lambda: shapes.test_a_number_that_came_from_a_shape_stays_what_it_was("root"),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_to_be_changed_stands_there_once(name):
    module, (before, after), _ = MUTATIONS[name]
    assert inspect.getsource(module).count(before) == 1
    assert before != after


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.one_in(12)
def test_a_loosened_proof_makes_a_test_fail(name):
    module, (before, after), test = MUTATIONS[name]
    with (
        mutated(module, before, after),
        pytest.raises((AssertionError, UserError, pytest.fail.Exception)),
    ):
        test()


def test_what_is_not_changed_passes_and_a_change_does_not_last():
    test = MUTATIONS["sums without rounding"][2]
    with mutated(interval, "share = (terms + 8) * unit", "share = unit * (terms + 8)"):
        test()
    test()
