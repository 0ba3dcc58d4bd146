"""Filters that a user chooses: they go, with nothing else, and what they did is told."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import whole_run
from prunable import compiled

from rice_jax import records, train
from rice_jax.errors import UserError
from rice_jax.lighten.pruning import prune_run
from rice_jax.records import PruneFile, PruneRequest
from rice_jax.run import Run

pytestmark = pytest.mark.usefixtures("drawn_small")

CHOSEN = {"conv1": [3], "conv2": [0, 2]}
"""Of four and three; 0 and 2 of conv1 are dead."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return whole_run.settings(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def parent(settings, tmp_path_factory):
    return whole_run.made(settings, tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def by_hand(settings, parent):
    out = Run(parent.path.parent / "by_hand")
    prune_run(PruneRequest(filters=CHOSEN), settings, parent, out)
    return out


def logits(net, params, images):
    run = compiled(lambda p, x: net.module.apply({"params": p}, x, train=False), params, images)
    return np.asarray(run(params, images))


def test_what_was_chosen_goes_and_nothing_else(parent, by_hand):
    account = records.read(by_hand, PruneFile)
    assert account.removed == CHOSEN
    assert account.kept["conv1"] == [0, 1, 2]
    assert account.kept["conv2"] == [1]
    assert account.request.filters == CHOSEN
    whole, left = (train.load(run).params for run in (parent, by_hand))
    kernel = np.asarray(whole["conv2"]["kernel"])[:, :, [0, 1, 2]][..., [1]]
    np.testing.assert_array_equal(left["conv2"]["kernel"], kernel)


def test_what_is_left_answers_as_if_they_were_silent(parent, by_hand):
    images = np.random.default_rng(0).random((4, 24, 24, 3), np.float32)
    whole, left = (train.load(run) for run in (parent, by_hand))
    silenced = {name: dict(layer) for name, layer in whole.params.items()}
    for path, numbers in CHOSEN.items():  # behind a ReLU a filter of no weight and bias is 0
        for name in ("kernel", "bias"):
            array = np.array(silenced[path][name])
            array[..., numbers] = 0
            silenced[path][name] = array
    before = logits(whole, whole.params, images)
    expected = logits(whole, silenced, images)
    found = logits(left, left.params, images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(before - expected).max() > 1e-3, "they did something"


def test_what_they_did_is_told(by_hand):
    certificate = records.read(by_hand, PruneFile).certificate
    assert certificate.max_abs_logit_difference > 1e-3
    assert not certificate.proven
    report = (by_hand.path / "report.md").read_text()
    assert "| `conv2` | 2 | 0, 2 |" in report
    assert "and is not proven for others" in report


def test_they_go_beside_what_does_nothing(settings, parent, tmp_path):
    out = Run(tmp_path / "both")
    prune_run(PruneRequest("dead", filters={"conv1": [3]}), settings, parent, out)
    assert records.read(out, PruneFile).removed == {"conv1": [0, 2, 3]}


def test_they_count_towards_a_budget(settings, parent, tmp_path):
    out = Run(tmp_path / "budget")
    request = PruneRequest(filters={"conv2": [1]}, budgets={"filters": 5}, criterion="l1")
    prune_run(request, settings, parent, out)
    account = records.read(out, PruneFile)
    assert 1 in account.removed["conv2"]
    assert account.after.filters == 5


def test_others_are_refused_where_some_have_gone(settings, parent, by_hand):
    other = dataclasses.replace(PruneRequest(), filters={"conv1": [1]})
    with pytest.raises(UserError, match=r"was pruned with filters=\{'conv1': \[3\], "):
        prune_run(other, settings, parent, by_hand)


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"conv9": [0]}, "there is no layer 'conv9' with filters; there are conv1, conv2"),
        ({"conv1": [4]}, "conv1 has filters 0 to 3, none is 4"),
        ({"head": [0]}, "filter 0 of head cannot be removed: it ends in the net's output"),
        ({"conv1": [0, 1, 2, 3]}, "conv1"),
        ({"conv1": [-1]}, "give layers with numbers of their filters, as conv1:4"),
        ({"conv1": []}, "give layers with numbers of their filters, as conv1:4"),
    ],
)
def test_what_cannot_go_is_told_and_leaves_nothing(settings, parent, tmp_path, filters, said):
    out = Run(tmp_path / "out")
    with pytest.raises(UserError) as refused:
        prune_run(PruneRequest(filters=filters), settings, parent, out)
    assert said in str(refused.value)
    assert not [path for path in Path(out.path).rglob("*") if path.name != ".lock"]


def test_chosen_filters_and_dropped_blocks_do_not_go_together(settings, parent, tmp_path):
    request = PruneRequest(filters={"conv1": [3]}, drop_layers=("auto",))
    with pytest.raises(UserError, match="--filters and --drop_layers do not go together"):
        prune_run(request, settings, parent, Run(tmp_path / "out"))
