"""What report.md tells of a run's layers: their maps, what does nothing, what they cost."""

import re

import pytest
from report_runs import DEAD, layer, make_run, profile, table_rows, text_of

from rice_jax.report import figures

pytestmark = pytest.mark.usefixtures("drawn_small")


def test_layer_paths_with_marks_survive_the_tables(tmp_path):
    path = "block|1/`conv`"
    content = {"layers": [{**DEAD["layers"][0], "path": path}], "images": 30}
    layers = [layer(path, 1000, 4)]
    text = text_of(make_run(tmp_path, profile=profile(layers=layers), dead_filters=content))
    assert [row[0] for row in table_rows(text)].count(path) == 2


def test_feature_maps_of_a_small_net_are_all_shown_in_its_order(tmp_path):
    layers = [{**DEAD["layers"][0], "path": f"conv{i}"} for i in (10, 2, 1)]
    run = make_run(tmp_path, dead_filters={"layers": layers, "images": 30})
    for name in ("conv1", "conv10", "conv2", "conv1@2"):
        run.write_bytes(figures.feature_maps_file(name), b"")
    found = re.findall(r"!\[[^]]*\]\(feature_maps/(.+)\.png\)", text_of(run))
    assert found == ["conv10", "conv2", "conv1", "conv1@2"]


@pytest.mark.parametrize("inspected", [True, False])
def test_feature_maps_of_layers_that_the_net_lacks_are_not_shown(tmp_path, inspected):
    """A folder may have held another net, whose pictures stay until theirs are drawn over."""
    run = make_run(tmp_path, **({} if inspected else {"dead_filters": None}))
    own, others = ("conv1", "conv1@2"), ("conv2", "conv10", "conv2@2", "inception/conv1", "Conv1")
    for name in (*own, *others):
        run.write_bytes(figures.feature_maps_file(name), b"")
    found = re.findall(r"\(feature_maps/(.+?)\.png\)", text_of(run))
    assert found == (list(own) if inspected else [])


def test_feature_maps_of_a_large_net_are_shown_in_part_and_linked_for_the_rest(tmp_path):
    layers = [{**DEAD["layers"][0], "path": f"conv{i}"} for i in range(30)]
    run = make_run(tmp_path, dead_filters={"layers": layers, "images": 30})
    for entry in layers:
        run.write_bytes(figures.feature_maps_file(entry["path"]), b"")
    text = text_of(run)
    inline = re.findall(r"!\[[^]]*\]\(feature_maps/(.+)\.png\)", text)
    assert inline == ["conv0", "conv15", "conv29"]
    assert len(re.findall(r"\(feature_maps/", text)) == 30


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (12, None),
        (13, "1 more layer has as many or fewer;"),
        (30, "18 more layers have as many or fewer;"),
    ],
)
def test_many_dead_layers_are_cut_to_the_deadest(tmp_path, layers, said):
    found = [
        {**DEAD["layers"][0], "path": f"conv{i}", "filters": 40, "dead_clean": list(range(i))}
        for i in range(1, layers + 1)
    ]
    text = text_of(make_run(tmp_path, dead_filters={"layers": found, "images": 30}))
    row = [f"conv{layers}", "40", str(layers), "1", "1", f"0-{layers - 1}"]
    assert row in table_rows(text)
    assert said in text if said else "or fewer" not in text


@pytest.mark.parametrize(
    ("dead", "step"),
    [([[0, 2]], "--drop=dead"), ([[], [1]], "--drop=dead"), ([[], []], "--suggest")],
)
def test_dead_filters_are_offered_for_removal_where_there_are_any(tmp_path, dead, step):
    found = [DEAD["layers"][0] | {"path": f"conv{i}", "dead_clean": d} for i, d in enumerate(dead)]
    text = text_of(make_run(tmp_path, dead_filters={"layers": found, "images": 30}))
    (command,) = (line for line in text.splitlines() if "rice-jax prune" in line)
    assert command.endswith(step)
    without = text_of(make_run(tmp_path / "uninspected", dead_filters=None))
    assert "--drop=dead" in without


def test_filters_that_no_census_saw_are_named(tmp_path):
    unseen = {"unseen": ["blocks/conv", "blocks/conv2"]}
    for layers in (DEAD["layers"], []):
        text = text_of(make_run(tmp_path, dead_filters=DEAD | unseen | {"layers": layers}))
        assert "inside a loop: the filters of `blocks/conv`, `blocks/conv2`." in text
    assert "inside a loop" not in text_of(make_run(tmp_path, dead_filters=DEAD))


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        (["memory", "memory"], "memory bounds all layers"),
        (["compute", "compute"], "arithmetic bounds all layers"),
        (["memory", "compute"], "memory bounds 1 of 2 layers and arithmetic the other"),
    ],
)
def test_what_bounds_the_layers_is_said_of_those_there_are(bounds, told, tmp_path):
    content = profile(777_000)
    content["layers"] = [
        row | {"bound": bound} for row, bound in zip(content["layers"], bounds, strict=True)
    ]
    assert f"100 GB/s {told}, where" in text_of(make_run(tmp_path, profile=content))


@pytest.mark.parametrize(
    ("flops", "told"),
    [
        ((500, 300, 200), "`c0` alone does 50.0 % of the work ("),
        ((200, 400, 400), "`c1` and `c2` each do 40.0 % of the work ("),
        ((3333, 3334, 3333), "`c1`, `c0` and `c2` each do 33.3 % of the work ("),
        ((1,) * 20, "`c0`, `c1`, `c2` and 17 more each do 5.0 % of the work ("),
    ],
)
def test_layers_that_do_as_much_as_the_costliest_stand_beside_it(flops, told, tmp_path):
    layers = [layer(f"c{number}", one - 1, 4) for number, one in enumerate(flops)]
    content = profile(sum(flops), layers=layers)
    assert told in text_of(make_run(tmp_path, profile=content))


def test_what_has_no_rule_is_named_as_not_counted(tmp_path):
    uncounted = [{"operation": "while", "layer": "rnn", "input_shapes": [], "output_shapes": []}]
    text = text_of(make_run(tmp_path, profile=profile(777_000, uncounted=uncounted)))
    assert "**Not counted**" in text
    assert "takes it at least 777 kFLOPs" in text
    assert "| ≥ 777,000 |" in text
    assert "≥" not in text_of(make_run(tmp_path, profile=profile(777_000)))


def test_bounds_memory_and_training_are_told_and_an_older_profile_does_without(tmp_path):
    text = text_of(make_run(tmp_path / "new"))
    assert "1 TFLOP/s and 100 GB/s memory bounds all layers, where" in text
    assert "takes at least 6 ns there" in text
    assert "holds 6.98 kB at its peak: 4.94 kB of weights and 2.05 kB of activations" in text
    assert "backward pass take 3 kFLOPs (`formula`)" in text
    old = profile()
    del old["roofline"], old["totals"]["memory"]
    for row in old["layers"]:
        del row["bytes"], row["bound"]
    text = text_of(make_run(tmp_path / "old", profile=old))
    assert "roofline.png" not in text
    assert "at its peak" not in text


def test_latency_is_told_with_the_way_there_and_back_where_that_was_measured(tmp_path):
    text = text_of(make_run(tmp_path / "now"))
    assert "(middle 80 %: 1 ms to 3 ms), 4.2 ms from NumPy's memory and back, and 900" in text
    older = profile()
    del older["time"]["measured"]["from_host"]
    text = text_of(make_run(tmp_path / "then", profile=older))
    assert "(middle 80 %: 1 ms to 3 ms), and 900" in text
