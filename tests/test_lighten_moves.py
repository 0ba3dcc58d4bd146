"""What a step takes from a net, and the run that a search of real steps leaves."""

import dataclasses

import jax
import numpy as np
import prunable
import pytest
import tiny_training
from flax import traverse_util
from report_runs import result

from rice_jax import config as configuration
from rice_jax import data, identity, profile, report, stages, train
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.lighten import candidate, search, smaller
from rice_jax.lighten.moves import MOVES, Judge
from rice_jax.records import (
    Copies,
    EvaluationFile,
    Result,
    SearchRequest,
    Taken,
    made,
    plain,
    write,
)
from rice_jax.report import record
from rice_jax.report.page import lightening, to_markdown
from rice_jax.run import Run

pytestmark = pytest.mark.usefixtures("drawn_small")

NETS = {
    "final": {"stages": ((4,), (4, 6)), "dense": 8},
    "cnn_light": {"stages": ((4,), (6,)), "dense": 8},
    "googlenet_light": {"stem": (4, 4, 8), "inceptions": (((4, 2, 4, 2, 4, 4),) * 2,)},
    "micro": {"grid": 16, "convolutions": (4, 6), "dense": 8},
}


def net(name, side=32):
    config = configuration.default(name)
    config.model.update(NETS[name])
    config.data.image_size = side
    module = train.build(config)
    params = prunable.random_variables(variable_shapes(module, (1, side, side, 3)), 0)["params"]
    return train.Trained(config, module, params, tiny_training.CLASSES, 1)


def judged(side=32, measure="study"):
    images = prunable.images(1, (10, side, side, 3))
    return Judge([(images, np.arange(10) % 5)], 0.5, measure, "l1")


def counted(config):
    side = config.data.image_size
    return profile.count(train.build(config), (side, side, 3))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        *(("final", step) for step in ("channels", "resolution", "stem")),
        *(("cnn_light", step) for step in ("layer", "resolution", "stem")),
        ("googlenet_light", "stem"),
        ("micro", "resolution"),
    ],
)
def test_a_step_leaves_a_lighter_net_whose_parameters_fit(name, step, monkeypatch):
    monkeypatch.setattr("rice_jax.lighten.moves._right", lambda *_: 0.5)
    whole = net(name)
    lighter = MOVES[step](whole, judged())
    assert lighter.why
    assert counted(lighter.config).flops.study < counted(whole.config).flops.study
    wanted = variable_shapes(train.build(lighter.config), (1, 32, 32, 3))["params"]
    assert jax.tree.map(np.shape, lighter.params) == jax.tree.map(lambda leaf: leaf.shape, wanted)
    configuration.check(lighter.config)


@pytest.mark.parametrize(("multiple", "share"), [(2, 0.5), (3, 0.8)])
@pytest.mark.parametrize("name", ["final", "googlenet_light", "micro"])
@pytest.mark.one_in(2)
def test_layers_that_lose_channels_keep_a_multiple(name, multiple, share):
    whole = net(name)
    judge = dataclasses.replace(judged(), round_to=multiple, share=share)
    lighter = MOVES["channels"](whole, judge)
    sizes = [
        {path: kernel.shape[-1] for path, kernel in traverse_util.flatten_dict(params).items()}
        for params in (whole.params, lighter.params)
    ]
    less = {path: left for path, left in sizes[1].items() if left < sizes[0][path]}
    assert less
    assert all(left % multiple == 0 for left in less.values())


@pytest.mark.usefixtures("as_arguments")
def test_what_judges_a_layer_takes_the_parameters_as_an_argument():
    assert MOVES["layer"](net("cnn_light"), judged()).why


def test_a_net_whose_first_convolution_has_no_stride_of_its_own_keeps_it():
    assert "no field of the net's" in MOVES["stem"](net("micro"), judged())


def test_maps_that_would_vanish_are_not_halved():
    assert "a map would vanish" in MOVES["resolution"](net("cnn_light", 16), judged(16))


def test_the_whole_image_s_cost_is_counted_however_coarse_the_net_sees_it():
    coarse = MOVES["resolution"](net("final"), judged())
    rows = {row.path: row for row in counted(coarse.config).rows}
    assert coarse.removed == Taken(resolution=(32, 16))
    assert rows["shrink"].flops.study == 32 * 32 * 3  # each number is added once, or divided
    assert rows["conv1"].output_shape == (1, 16, 16, 4)
    again = MOVES["resolution"](
        train.Trained(coarse.config, train.build(coarse.config), coarse.params, (), 1), judged()
    )
    assert again.removed == Taken(resolution=(16, 8))
    assert {r.path: r for r in counted(again.config).rows}["shrink"].flops.study == 32 * 32 * 3


@pytest.mark.parametrize(("step", "side"), [("resolution", 64), ("stem", 64), ("stem", 96)])
def test_a_dense_layer_reads_a_smaller_map_as_if_it_were_repeated(step, side):
    """96 pixels: maps of 6 and 3; 64: of 4 and 2."""
    whole = net("cnn_light", side)
    lighter = MOVES[step](whole, judged(side))
    height = side // 16
    small = np.random.default_rng(0).random((height // 2, height // 2, 6)).astype(np.float32)
    large = small.repeat(2, 0).repeat(2, 1).reshape(-1)
    kernels = (params["dense"]["kernel"] for params in (whole.params, lighter.params))
    before, after = (
        x @ kernel for x, kernel in zip((large, small.reshape(-1)), kernels, strict=True)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4)


def test_the_layer_that_goes_is_the_one_that_loses_least_for_what_it_saves(monkeypatch):
    whole = net("final")
    right = {((4,), (4, 6)): 0.9, ((), (4, 6)): 0.8, ((4,), (6,)): 0.7, ((4,), (4,)): 0.6}
    monkeypatch.setattr(
        "rice_jax.lighten.moves._right", lambda module, *_: right[tuple(module.stages)]
    )
    lighter = MOVES["layer"](whole, judged())
    cost = {
        stages: counted(smaller.configured(whole.config, whole.module.of_stages(stages)))
        for stages in right
    }
    first, *others = right
    lost = {
        stages: (right[first] - right[stages])
        / (1 - cost[stages].flops.study / cost[first].flops.study)
        for stages in others
        if cost[stages].flops.study < cost[first].flops.study
    }
    assert tuple(lighter.config.model.stages) == min(lost, key=lost.get)


def test_parameters_decide_where_they_are_what_is_to_be_small():
    lighter = MOVES["channels"](net("cnn_light"), judged(measure="params"))
    before, after = (counted(each.config).params for each in (net("cnn_light"), lighter))
    assert after <= before / 2


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The call of a search out of a run, with accuracies made up and no epoch trained."""
    whole = net("final", tiny_training.SIZE)
    splits = tiny_training.dataset().splits
    none = Copies(in_training={}, in_two_classes=0)
    dataset = data.Dataset("tiny", True, whole.classes, splits, "tiny", skipped=(), copies=none)
    run = Run(tmp_path / "run")
    train.begin(whole.config, run, dataset, whole.params)
    content = {"config": configuration.to_json(whole.config), "seed": 0, "versions": {}}
    run.write_json("config.json", content | {"data": plain(identity._describe(dataset))})
    looked_at = []

    def evaluated(module, params, source, *, augment_seed=None, **_):
        looked_at.append(source is splits["test"])
        size = sum(leaf.size for leaf in traverse_util.flatten_dict(params).values())
        return dataclasses.replace(made(Result, result()), accuracy=0.9 - 1 / size)

    def measured(config, workdir, stages):
        net = train.load(Run(workdir))
        told = {kind: evaluated(net.module, net.params, splits["test"]) for kind in record.PARTS}
        if "evaluate" in stages:
            write(Run(workdir), EvaluationFile(**told, path="test split"))

    monkeypatch.setattr("rice_jax.lighten.moves._right", lambda *_: 0.5)
    monkeypatch.setattr(identity, "load_own", lambda *_: dataset)
    monkeypatch.setattr(candidate.evaluate, "evaluate", evaluated)
    monkeypatch.setattr("rice_jax.train.train", lambda *_: None)
    monkeypatch.setattr("rice_jax.train.images_per_second", lambda *_, **__: 100.0)
    monkeypatch.setattr("rice_jax.stages.run_stages", measured)
    monkeypatch.setattr(report, "write", lambda run: None)

    def call(out="out", fields=None, **asked):
        asked = {"rounds": 1, "final_epochs": 0, "criterion": "l1", "judge_images": 8} | asked
        config = configuration.from_json(configuration.to_json(whole.config))
        config.train.teacher = str(run)
        config.update_from_flattened_dict(fields or {})
        out = Run(tmp_path / out)
        search.search(SearchRequest(**asked), config, run, out)
        return run, out, looked_at

    return call


def test_what_a_search_leaves_is_a_run_and_the_account_of_it(trained):
    run, out, looked_at = trained(steps=("channels", "resolution"), within=0.1)
    content = out.read_json("lighten.json")
    assert content["finished"]
    assert set(content["test"]) == set(content["front"]) >= {content["chosen"]}
    assert looked_at.index(True) == len(content["candidates"])  # after all were tried
    chosen = next(c for c in content["candidates"] if c["name"] == content["chosen"])
    assert chosen["accuracy"] >= content["floor"]
    net = train.load(out)
    assert counted(net.config).flops.study == chosen["costs"]["flops"]
    assert net.config.train.teacher == str(run)
    told = out.read_json("config.json")
    assert told["versions"] == identity.versions()  # not those of the run's own command
    assert out.has("front.png")
    assert not run.has("evaluation.json")
    page = to_markdown([lightening.lightening(out, record.load(out))])
    assert f"`{content['chosen']}` (chosen)" in page


@pytest.mark.parametrize(
    ("images", "points"),
    [
        (20, "9.4"),  # 16 right, and one more of 22: sqrt(17 * 5 / 22**2 / 20)
        (100, "4"),  # 80 right: sqrt(81 * 21 / 102**2 / 100) is 0.0404
        (10_000, ""),  # 0.004, and the margin is 0.02
    ],
)
@pytest.mark.one_in(2)  # where it is, and where it is not
def test_a_margin_that_is_less_than_chance_is_told(trained, images, points):
    _, out, _ = trained(steps=("resolution",), within=0.1)
    content = out.read_json("lighten.json")
    content["images"]["validation"], content["floor"] = images, 0.78
    for each in content["candidates"]:
        each["accuracy"] = 0.8
    out.write_json("lighten.json", content)
    page = to_markdown([lightening.lightening(out, record.load(out))])
    assert ("one binomial standard error" in page) == bool(points)
    assert f"{images:,} images tell an accuracy to within {points} points" in page or not points


def test_the_run_s_own_folder_is_only_read_and_images_are_those_of_now(
    trained, tmp_path, monkeypatch
):
    """Also where its evaluation is older than its report, or is of other images."""
    whole = Run(tmp_path / "run")
    told = dict.fromkeys(record.PARTS, made(Result, result()))
    write(whole, EvaluationFile(**told, path="test split"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    done = stages.run_stages
    ran = []

    def run_stages(config, workdir, names):
        ran.append((config.data.path, config.eval.path, workdir))
        done(config, workdir, names)

    monkeypatch.setattr("rice_jax.stages.run_stages", run_stages)
    fields = {"data.path": "elsewhere", "eval.path": "others"}
    trained(steps=("resolution",), within=0.1, fields=fields)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json")} == before
    assert {(path, tested) for path, tested, _ in ran} == {("elsewhere", "")}
    assert str(whole) not in {workdir for *_, workdir in ran}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"within": -0.05, "steps": ("stem",)}, r"nearest is \S*candidates/stem with 0.89"),
        ({"within": -0.05, "steps": ("stem",)}, "goes on with a wider --within, more --slack"),
        ({"at_least": 0.99, "steps": ("resolution",)}, r"lighter has 0\.9900 of the augmented"),
        ({"at_least": 0.99, "steps": ("resolution",)}, "goes on with a lower --at_least, more"),
    ],
)
@pytest.mark.one_in(2)
def test_a_margin_that_nothing_meets_is_told_and_loses_nothing(trained, tmp_path, asked, said):
    with pytest.raises(UserError, match=said):
        trained(**asked)
    content = Run(tmp_path / "out").read_json("lighten.json")
    assert len(content["candidates"]) == 2
    assert not content["finished"]
    assert not Run(tmp_path / "out").has("config.json")


def test_a_folder_that_is_something_else_is_refused(trained, tmp_path):
    Run(tmp_path / "other").create()
    Run(tmp_path / "other").write_json("config.json", {})
    for out, said in (("run", "is the run itself"), ("other", "holds a run that no search made")):
        with pytest.raises(UserError, match=said):
            trained(out)


@pytest.mark.parametrize("name", ["candidates/stem/notes.txt", "checkpoints/model.pt", "report.md"])
def test_what_no_search_made_stays(trained, tmp_path, name):
    theirs = tmp_path / "theirs" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(UserError, match=f"has a {name.partition('/')[0]} that no run made"):
        trained("theirs")
    assert theirs.read_text() == "theirs"
