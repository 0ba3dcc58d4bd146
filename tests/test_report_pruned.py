"""report.md of a pruned run: what was asked for, what is proven, other ways to the same."""

import pytest
from report_runs import DEAD, HISTORY, PRUNED, make_run, table_rows, text_of

from rice_jax import records
from rice_jax.lighten import removal
from rice_jax.report import figures

pytestmark = pytest.mark.usefixtures("drawn_small")


def test_pruning_that_a_budget_asked_for_is_told(tmp_path):
    text = text_of(make_run(tmp_path, prune=PRUNED))
    assert "The budget of 310 FLOPs (`study`) was undershot by 10." in text
    assert "differs by more than 0.25" in text
    assert "7 predictions change" in text
    assert "not proven for others." in text


@pytest.mark.parametrize(("met", "told"), [(34, "met exactly"), (33, "undershot by 1")])
def test_a_budget_that_is_met_to_the_last_filter_is_not_undershot(tmp_path, met, told):
    budget = {"asked": 34, "met": met, "under": 34 - met}
    text = text_of(make_run(tmp_path, prune=PRUNED | {"budgets": {"filters": budget}}))
    assert f"The budget of 34 filters was {told}." in text


@pytest.mark.parametrize(("steps", "told"), [(1, ""), (3, " after the last of 3 steps of pruning")])
def test_epochs_of_the_last_step_are_told_as_such(tmp_path, steps, told):
    pruned = PRUNED | {"request": PRUNED["request"] | {"steps": steps}}
    text = text_of(make_run(tmp_path, prune=pruned))
    when = f"after the last of {steps} cuts, between which it trained," if steps > 1 else "before"
    assert f"no logit of the net {when} " in text
    assert f"It learned for 3 epochs from 240 images{told}; the figures are those" in text


@pytest.mark.parametrize(
    ("asked", "trained", "step"),
    [
        ({"drop": "dead"}, False, "--suggest"),
        ({"drop": "dead", "kinds": ["clean"]}, False, "--suggest"),
        ({"drop": "dead"}, True, "--drop=dead"),  # training may leave new ones
        ({"drop": "dead", "split": "train"}, False, "--drop=dead"),
        ({"drop": "dead", "only": ["conv1"]}, False, "--drop=dead"),
        ({"drop": "dead", "skip": ["conv1"]}, False, "--drop=dead"),
        ({"drop": "proven"}, False, "--drop=dead"),
        ({}, False, "--drop=dead"),
    ],
)
def test_what_was_done_is_not_offered_again(tmp_path, asked, trained, step):
    """Of a net with filters that are zero on the test images, which were not what it went by."""
    pruned = PRUNED | {"request": PRUNED["request"] | asked}
    run = make_run(tmp_path, prune=pruned, dead_filters=DEAD, history=HISTORY if trained else None)
    (command,) = (line for line in text_of(run).splitlines() if "rice-jax prune" in line)
    assert command.endswith(step)


def test_a_single_change_is_told_as_one(tmp_path):
    certificate = PRUNED["certificate"] | {"changed_predictions": 1}
    text = text_of(make_run(tmp_path, prune=PRUNED | {"certificate": certificate}))
    assert "and 1 prediction changes. This holds" in text


def test_what_keeps_a_pruning_from_being_proven_is_told(tmp_path):
    certificate = PRUNED["certificate"] | {"departure": "sqrt in my_own_conv takes 8, 7"}
    text = text_of(make_run(tmp_path, prune=PRUNED | {"certificate": certificate}))
    said = "not proven for others, for sqrt in my\\_own\\_conv takes 8, 7."
    assert said in text


@pytest.mark.parametrize("anew", [[], ["dense"], ["conv1", "dense"]])
def test_what_no_pruning_left_of_the_whole_net_is_told(tmp_path, anew):
    """Blocks that went as a whole, and the layers that are random since then."""
    layers = {"dropped_layers": ["conv1", "conv2"], "started_anew": anew}
    text = text_of(make_run(tmp_path, prune=PRUNED | layers))
    assert "Left out as a whole: `conv1`, `conv2`." in text
    names = ", ".join(f"`{path}`" for path in anew)
    assert text.count("random") == 2 * bool(anew)
    assert not anew or f"those of `runs/final`, but for {names}, which began at random" in text
    assert not anew or f"began with random weights: {names} of this net." in text
    whole = text_of(make_run(tmp_path / "whole", prune=PRUNED))
    assert "Left out" not in whole


@pytest.mark.parametrize(
    ("renamed", "told"),
    [
        ({}, ""),
        ({"conv3": "conv1"}, "`conv3` is `conv1`."),
        ({"conv3": "conv1", "conv4": "conv2"}, "`conv3` is `conv1`, `conv4` is `conv2`."),
    ],
)
def test_layers_that_have_another_name_in_the_new_net_are_told(tmp_path, renamed, told):
    text = text_of(make_run(tmp_path, prune=PRUNED | ({"renamed": renamed} if renamed else {})))
    assert ("have the whole net's names; elsewhere " in text) == bool(told)
    assert told in text


def test_a_bound_is_rounded_to_no_less(tmp_path, capsys):
    """On the page and on a terminal, to the same digits."""
    most = {"max_abs_logit_difference": 1.2101e-5, "max_relative_logit_difference": 1.101e-6}
    certificate = PRUNED["certificate"] | most
    content = PRUNED | {"certificate": certificate}
    text = text_of(make_run(tmp_path, prune=content))
    assert "differs by more than 1.3e-05 (1.2e-06 of the largest logit)" in text
    removal.tell(records.made(records.PruneFile, content))
    told = "logits differ by 1.3e-05 at most (1.2e-06 of the largest logit)"
    assert told in capsys.readouterr().out


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
    assert "measured one after the other when all were trained" in text_of(run)


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


@pytest.mark.parametrize("lacks", [False, True])
def test_flops_that_lack_something_are_marked_wherever_lighter_nets_are_told(tmp_path, lacks):
    """Ways to a budget, a search and budgets that were tried: on pages and in figures."""
    told = {"flops_complete": not lacks}
    run = {"seed": 0, "flops": 1234, "clean": 0.9, "augmented": 0.5, **told}
    mean = {"mean": 0.9, "spread": None}
    ways = {"random": {"clean": mean, "augmented": mean, "runs": [run]}}
    made = make_run(tmp_path, prune=PRUNED, variants={"epochs": 7, "variants": ways})
    whole = {"name": "", "out_of": None, "step": None, "removed": {}, "why": "", "accuracy": 0.9}
    whole |= {"costs": {"flops": 5678, "params": 99}, **told}
    stem = whole | {
        "name": "stem",
        "out_of": "",
        "step": "stem",
        "removed": {"stem_stride": [1, 2]},
    }
    forecast = {"candidates": 1, "images": 9, "minutes": 1.0, "images_per_second": 1.0}
    search = {"request": {}, "config": {}, "images": {"train": 9, "validation": 9}, "floor": 0.9}
    search |= {"forecast": forecast, "candidates": [whole, stem], "front": ["", "stem"]}
    made.write_json("lighten.json", search | {"chosen": "stem", "finished": True})
    rows = [[cell.lstrip("≥ ") for cell in row] for row in table_rows(text_of(made))]
    marked = [cell for row in table_rows(text_of(made)) for cell in row if cell.startswith("≥")]
    assert {"1,234", "5,678", "99"} <= {cell for row in rows for cell in row}
    assert set(marked) == ({"≥ 1,234", "≥ 5,678"} if lacks else set())
    candidates = [records.made(records.Candidate, each) for each in (whole, stem)]
    row = records.Suggestion(
        cost=9, params=9, filters_removed=0, clean=0.9, augmented=0.8, flops_complete=not lacks
    )
    searched = {
        measure: figures.searched(
            candidates, front=[""], chosen=None, measure=measure, floor=0.9, title="net"
        )
        for measure in ("flops", "params")
    }
    drawn = (searched["flops"], figures.budgets([row, row], measure="FLOPs"))
    assert ["≥" in each.axes[0].get_xlabel() for each in drawn] == [lacks, lacks]
    assert "≥" not in searched["params"].axes[0].get_xlabel()


@pytest.mark.parametrize("measure", ["flops", "latency"])
def test_a_search_by_latency_tells_when_it_was_measured(tmp_path, measure):
    costs = {"flops": 10, "params": 5, "latency": 0.004}
    whole = {"name": "", "out_of": None, "step": None, "removed": {}, "why": "", "accuracy": 0.9}
    whole |= {"costs": costs}
    stem = whole | {"name": "stem", "out_of": "", "step": "stem", "costs": costs | {measure: 0.003}}
    forecast = {"candidates": 1, "images": 9, "minutes": 1.0, "images_per_second": 1.0}
    search = {"request": {"measure": measure}, "config": {}, "floor": 0.9, "forecast": forecast}
    search |= {"images": {"train": 9, "validation": 9}, "candidates": [whole, stem]}
    run = make_run(tmp_path)
    run.write_json("lighten.json", search | {"front": ["stem"], "chosen": "stem", "finished": True})
    text = text_of(run)
    assert f"{'75.0' if measure == 'latency' else '< 0.1'} % of the cost." in text
    assert ("measured in turn, the whole net's too, when all had learnt" in text) == (
        measure == "latency"
    )


@pytest.mark.parametrize("lacks", [0, 2])
def test_flops_that_lack_something_are_marked_on_a_terminal(capsys, lacks):
    content = PRUNED | {name: PRUNED[name] | {"uncounted": lacks} for name in ("before", "after")}
    relative = {"max_relative_logit_difference": 0.1}
    content |= {"certificate": PRUNED["certificate"] | relative}
    removal.tell(records.made(records.PruneFile, content))
    told = capsys.readouterr().out.splitlines()
    sign = "≥ " if lacks else ""
    assert f"FLOPs (study): {sign}400 to {sign}300 (75.00 %)" in told
    assert "parameters: 40 to 30 (75.00 %)" in told


@pytest.mark.parametrize("measure", ["study", "params", "filters"])
def test_of_what_a_net_has_none_of_no_share_is_told(tmp_path, capsys, measure):
    """As filters of a net of dense layers alone; on a terminal and on the page."""
    content = PRUNED | {name: PRUNED[name] | {measure: 0} for name in ("before", "after")}
    relative = {"max_relative_logit_difference": 0.1}
    content |= {"certificate": PRUNED["certificate"] | relative}
    removal.tell(records.made(records.PruneFile, content))
    label = {"study": "FLOPs (study)"}.get(measure, {"params": "parameters"}.get(measure, measure))
    assert f"{label}: 0 to 0" in capsys.readouterr().out.splitlines()
    rows = table_rows(text_of(make_run(tmp_path, prune=content)))
    assert [row[1:] for row in rows if row[1:3] == ["0", "0"]] == [["0", "0", "—"]]
