"""The tests of proofs notice when one is loosened: each of these changes makes one fail."""

import sys

import jax
import mutated
import pytest
import test_prune_certificate as certificates
import test_prune_dead as dead_filters
import test_prune_departure as departures
import test_prune_folding as folding
import test_prune_picks as picks
import test_prune_shapes as shapes

from rice_jax.prune import agreement, biases, certificate, dead, departure, pruner, surgery
from rice_jax.prune import shapes as shapes_held


def certified(test, *arguments):
    return lambda: test(certificates.Net().init(jax.random.key(0), certificates.IMAGES), *arguments)


MUTATIONS = {
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
        ("self.beside.score > _SUSPECT", "False"),
        certified(certificates.test_a_small_logit_is_held_against_its_own_rounding, 0),
    ),
    "relative to nothing": (
        certificate,
        ("difference / found.size if found.size", "difference if found.size"),
        certified(
            certificates.test_a_difference_is_told_in_itself_and_relative_to_the_largest_logit
        ),
    ),
    "proven without a bound": (
        certificate,
        ("or not difference)", "or True)"),
        certified(certificates.test_where_rounding_cannot_be_told_proven_needs_equal_logits),
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
    mutated.require_place(*MUTATIONS[name][:2])


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.one_in(12)
def test_a_loosened_proof_makes_a_test_fail(name):
    mutated.require_failure(*MUTATIONS[name])
