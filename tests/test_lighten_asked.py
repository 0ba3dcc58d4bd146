"""What a pruning or a search is asked for, and what there is."""

import pytest

from rice_jax import config
from rice_jax.errors import UserError
from rice_jax.lighten.pruning import prune_run
from rice_jax.lighten.search import search
from rice_jax.lighten.suggest import suggest
from rice_jax.records import PruneRequest, SearchRequest
from rice_jax.run import Run

OF_A_PRUNING = {
    "criterion": ("l3", "give taylor, l1, "),
    "allocation": ("equal", "give global, uniform or isomorphic"),
    "round_to": (0, "give a whole number from 1"),
    "tail_margin": (2.0, "give a number from 0 to 1"),
    "split": ("tests", "give train, validation or test; nearest is test"),
    "kinds": (("clean", "augmentd"), "give .* clean or augmented; nearest is augmented"),
    "judge_images": (0, "give a whole number from 1"),
    "on_unknown": ("ignore", "give error or keep"),
    "budgets": ({"flops": 9}, "a budget's measure=flops: give formula, study, xla, params or fil"),
}
OF_A_SEARCH = {
    "within": (2.0, "give a number from -1 to 1"),
    "at_least": (95, "give a number from 0 to 1"),
    "measure": ("study", "give flops, params, bytes or latency"),
    "steps": (("channel",), "give .* of: channels, layer, .*; nearest is channels"),
    "share": (1.0, "give a number above 0 to below 1"),
    "round_to": (0, "give a whole number from 1"),
    "rounds": (0, "give a whole number from 1"),
    "beam": (-1, "give a whole number from 1"),
    "slack": (-0.1, "give a number from 0 to 1"),
    "epochs": (0, "give a whole number from 1"),
    "final_epochs": (-1, "give a whole number from 0"),
    "criterion": ("l3", "give taylor, l1, "),
    "judge_images": (0, "give a whole number from 1"),
}


@pytest.mark.parametrize("field", OF_A_PRUNING)
@pytest.mark.parametrize("do", [prune_run, suggest])
def test_a_pruning_of_what_there_is_not_is_told_before_anything_is_done(do, field, tmp_path):
    value, said = OF_A_PRUNING[field]
    parent, out = Run(tmp_path / "parent"), Run(tmp_path / "out")
    with pytest.raises(UserError, match=said):
        do(PruneRequest(**{field: value}), config.default("final"), parent, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", OF_A_SEARCH)
def test_a_search_for_what_there_is_not_is_told_before_anything_is_done(field, tmp_path):
    value, said = OF_A_SEARCH[field]
    parent, out = Run(tmp_path / "parent"), Run(tmp_path / "out")
    with pytest.raises(UserError, match=f"{field}=.*: {said}"):
        search(SearchRequest(**{field: value}), config.default("final"), parent, out)
    assert not list(tmp_path.iterdir())
