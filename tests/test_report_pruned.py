"""report.md of a pruned run: what was asked for, what is proven, other ways to the same."""

import pytest
from report_runs import PRUNED, make_run, table_rows, text_of

pytestmark = pytest.mark.usefixtures("drawn_small")


def test_pruning_that_a_budget_asked_for_is_told(tmp_path):
    text = text_of(make_run(tmp_path, prune=PRUNED))
    assert "The budget of 310 FLOPs (`study`) was undershot by 10." in text
    assert "differs by more than 0.25" in text
    assert "7 predictions change" in text
    assert "not proven for others." in text


def test_a_single_change_is_told_as_one(tmp_path):
    certificate = PRUNED["certificate"] | {"changed_predictions": 1}
    text = text_of(make_run(tmp_path, prune=PRUNED | {"certificate": certificate}))
    assert "and 1 prediction changes. This holds" in text


def test_what_keeps_a_pruning_from_being_proven_is_told(tmp_path):
    certificate = PRUNED["certificate"] | {"departure": "sqrt in my_own_conv takes 8, 7"}
    text = text_of(make_run(tmp_path, prune=PRUNED | {"certificate": certificate}))
    said = "not proven for others, for sqrt in my\\_own\\_conv takes 8, 7."
    assert said in text


def test_a_bound_is_rounded_to_no_less(tmp_path):
    most = {"max_abs_logit_difference": 1.21e-5, "max_relative_logit_difference": 1.1e-6}
    certificate = PRUNED["certificate"] | most
    text = text_of(make_run(tmp_path, prune=PRUNED | {"certificate": certificate}))
    assert "differs by more than 1.3e-05 (2e-06 of the largest logit)" in text


@pytest.mark.parametrize("criterion", ["taylor", "l1"])
def test_other_ways_to_a_budget_are_told(tmp_path, criterion):
    """The run's own way comes first, though a baseline may go by the same name."""
    ways = {
        criterion: {
            "clean": {"mean": 0.9, "spread": 0.01},
            "augmented": {"mean": 0.5, "spread": 0},
        },
        "scratch": {
            "clean": {"mean": 0.8, "spread": None},
            "augmented": {"mean": 0.4, "spread": None},
        },
    }
    for way in ways.values():
        way["runs"] = [{"seed": 0, "flops": 1234, "clean": 0.9, "augmented": 0.5}]
    ways["scratch"]["latency"] = {"mean": 0.004, "spread": None}
    content = {"epochs": 7, "variants": ways, "whole_latency_seconds": 0.01}
    run = make_run(tmp_path, prune=PRUNED, variants=content)
    rows = table_rows(text_of(run))
    first, scratch = f"this one ({criterion})", "this shape, from random weights"
    assert [first, "1,234", "1", "90.00 % ± 1.00 %", "50.00 % ± 0.00 %", "—", "—"] in rows
    assert [scratch, "1,234", "1", "80.00 %", "40.00 %", "4 ms", "2.50"] in rows
    assert "as many epochs (7)" in text_of(run)


def test_seeds_whose_nets_cost_otherwise_are_told_from_the_least_to_the_most(tmp_path):
    """No seed's figure stands for those of the others, in whatever order they ran."""
    accuracy = {"mean": 0.9, "spread": 0.01}
    cost = (1300, 1234, 1250)
    runs = [
        {"seed": seed, "flops": flops, "clean": 0.9, "augmented": 0.5}
        for seed, flops in enumerate(cost)
    ]
    ways = {"random": {"clean": accuracy, "augmented": accuracy, "runs": runs}}
    run = make_run(tmp_path, prune=PRUNED, variants={"epochs": 7, "variants": ways})
    assert "| 1,234 to 1,300 | 3 |" in text_of(run)


def test_a_pruned_net_whose_flops_lack_something_is_marked(tmp_path):
    lacking = {name: PRUNED[name] | {"uncounted": 1} for name in ("before", "after")}
    text = text_of(make_run(tmp_path, prune=PRUNED | lacking))
    assert "| FLOPs, `study` | ≥ 400 | ≥ 300 | 75.00 % |" in text
    assert "| parameters | 40 | 30 |" in text
