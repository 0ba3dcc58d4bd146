"""A search for lighter nets: what it tries, keeps and chooses, stopped or not; bad input."""

import dataclasses
import itertools
import shutil
import types

import numpy as np
import pytest

from rice_jax import config as configuration
from rice_jax import evaluate, identity, lock, report, stages
from rice_jax.errors import UserError
from rice_jax.lighten import outcome, search, weighing
from rice_jax.lighten.moves import Lighter
from rice_jax.records import (
    Candidate,
    EvaluationFile,
    Forecast,
    LightenFile,
    SearchRequest,
    StepFile,
    Taken,
    read,
    read_if_there,
    write,
)
from rice_jax.run import Run

FINISH = outcome.finish  # which `plain` leaves out
OF_ANOTHER_CHOICE = ("feature_maps/conv9.png", "tensorboard/events.out.tfevents.9")


class Workshop:
    """Nets that are a cost and an accuracy; their folders, and what was done to them."""

    def __init__(self, out, parent, whole, dataset, measure):
        self.out, self.parent, self.whole, self.dataset = out, parent, whole, dataset
        self.measure = measure
        self.trained = []

    def folder(self, name):
        return Run(self.out.path / "candidates" / name) if name else self.parent

    def result(self, name):
        return read_if_there(self.folder(name), Candidate)

    def begun(self, name):
        return self.folder(name).has("step.json")

    def net(self, name):
        return None

    def begin(self, name, out_of, step, lighter, epochs):
        run = self.folder(name)
        run.create()
        told = {"name": name, "out_of": out_of, "step": step, "why": lighter.why}
        write(run, StepFile(**told, removed=lighter.removed))

    def finish(self, name):
        self.trained.append(name)
        if len(self.trained) == self.stop_at:
            raise KeyboardInterrupt
        run = self.folder(name)
        cost, accuracy = worth(name)
        told = {"accuracy": accuracy}
        if name.endswith(self.failing or "nothing"):
            told = {"accuracy": 0.0, "trouble": "the loss is not finite"}
        costs = {"flops": cost, "params": 1, "bytes": 1, "latency": cost}
        found = Candidate(**vars(read(run, StepFile)), costs=costs, **told)
        write(run, found)
        return found

    def recipe(self, config, epochs):
        return config

    def saves(self, lighter, before):
        return True

    def here(self, run):
        return self.whole

    def accuracy(self, net, split, kind):
        return worth("")[1]

    def costs(self, net):
        return {"costs": {"flops": worth("")[0], "params": 1, "bytes": 1, "latency": 4096.0}}

    def latencies(self, names):
        return {name: 2e-6 * worth(name)[0] for name in names}

    stop_at = None
    failing = ""


def worth(name):
    """Cost and accuracy of a net that has gone through these steps: channels are the better buy."""
    steps = name.split("-") if name else []
    cost = 1024.0 * 0.5 ** steps.count("channels") * 0.25 ** steps.count("resolution")
    lost = 0.01 * steps.count("channels") + 0.04 * steps.count("resolution")
    return cost, round(0.99 - lost + 0.02 * steps.count("longer"), 6)


@pytest.fixture
def plain(monkeypatch, tmp_path):
    """The search over such nets; its call, and what was chosen at its end."""
    made, ended = [], []
    held = types.SimpleNamespace(digest="as trained")

    def workshop(*parts):
        made.append(Workshop(*parts))
        return made[-1]

    splits = dict.fromkeys(("train", "validation"), range(50))
    dataset = types.SimpleNamespace(splits=splits, synthetic=True)
    take = Lighter(None, None, Taken(filters={}), "")
    for name, stand_in in {
        "Workshop": workshop,
        "for_the_net_of": lambda parent, config: config,
        "forecast": lambda *_: Forecast(9, 0, 0.0, 1.0),
        "MOVES": dict.fromkeys(("channels", "resolution"), lambda net, judge: take),
        "longer": lambda net: take,
        "identity": types.SimpleNamespace(
            load_own=lambda *_: dataset, refuse_strangers=identity.refuse_strangers
        ),
        "train": types.SimpleNamespace(load=lambda run: held, check=lambda *_, **__: None),
    }.items():
        monkeypatch.setattr(search, name, stand_in)
    monkeypatch.setattr(search._Search, "_judge", lambda self, net: None)
    monkeypatch.setattr(outcome, "finish", lambda *asked: ended.append(asked))

    def call(out="out", stop_at=None, failing="", parent=tmp_path / "run", fields=(), **asked):
        made.clear()
        held.digest = asked.pop("weights", held.digest)
        monkeypatch.setattr(Workshop, "stop_at", stop_at)
        monkeypatch.setattr(Workshop, "failing", failing)
        request = SearchRequest(steps=("channels", "resolution"), **asked)
        run = Run(tmp_path / out)
        config = configuration.default("final")
        config.update_from_flattened_dict(dict(fields))
        search.search(request, config, Run(parent), run)
        return run, made[0].trained, ended[-1]

    return call


def test_a_search_of_more_candidates_than_its_file_may_have_is_not_begun(plain):
    """The whole net, 2 out of it, 2 out of each of 100 in 99 rounds, and 101 that learn longer."""
    with pytest.raises(UserError, match="--rounds and --beam allow 19,904 candidates: up to 1,000"):
        plain(rounds=100, beam=100, final_epochs=4)


def test_steps_end_where_no_folder_could_have_their_name(plain, capsys):
    _, trained, _ = plain(at_least=0.0, slack=1.0, rounds=40, beam=1, final_epochs=0)
    longest = max(map(len, trained))
    assert 255 - len("-resolution") < longest <= 255
    assert "its folder's name would be too long" in capsys.readouterr().out


def test_the_most_hopeful_nets_are_made_lighter_and_the_near_ones_learn_longer(plain):
    _, trained, ended = plain(within=0.021, slack=0.03, rounds=3, beam=1)
    _, content, points, floor = ended
    assert floor == pytest.approx(0.969)
    assert trained == [
        "channels",  # 512 FLOPs, 0.98
        "resolution",  # 256, 0.95: the cheapest of 0.939 and more
        "resolution-channels",  # 128, 0.94: now that
        "resolution-resolution",  # 64, 0.91
        "resolution-channels-channels",  # 64, 0.93
        "resolution-channels-resolution",  # 32, 0.90
        "resolution-longer",  # 256, 0.97: there
        "resolution-channels-longer",  # 128, 0.96: not there
    ]
    assert weighing.lightest(points, floor).name == "resolution-longer"
    names = [candidate.name for candidate in content.candidates]
    assert names == ["", *trained]
    assert content.front == [point.name for point in weighing.front(points)]


@pytest.mark.parametrize("at_least", [0.0, 0.01, 0.5, 0.97])
@pytest.mark.parametrize("failing", ["resolution", "channels", "longer", "channels-resolution"])
def test_a_net_that_could_not_learn_is_neither_gone_on_with_nor_chosen(plain, failing, at_least):
    """However little is wanted; the others are tried as before."""
    _, trained, ended = plain(failing=failing, at_least=at_least, slack=0.05, rounds=3)
    _, content, points, floor = ended
    failed = {each.name for each in content.candidates if each.trouble}
    assert failed == {name for name in trained if name.endswith(failing)}
    assert {each.out_of for each in content.candidates}.isdisjoint(failed)
    assert failed.isdisjoint(content.front)
    assert failed.isdisjoint(point.name for point in points)
    assert weighing.lightest(points, floor).accuracy >= floor
    names = [each.name for each in content.candidates]
    assert names == ["", *trained], "they are told of"


@pytest.mark.parametrize(
    ("candidates", "said"),
    [(1, "At most one candidate, which learns from 9"), (2, "At most 2 candidates, which learn")],
)
def test_a_single_candidate_is_forecast_as_one(candidates, said):
    assert str(Forecast(candidates, 9, 1.0, 1.0)).startswith(said)


_MINUTES = [(0.0, "1 min"), (0.49, "1 min"), (1.6, "2 min"), (90.2, "90 min"), (4000, "67 h")]


@pytest.mark.parametrize(("minutes", "said"), _MINUTES)
@pytest.mark.parametrize(("rate", "told"), [(0.4, "0.4"), (143.2, "143")])
def test_a_search_is_forecast_in_units_that_fit(minutes, said, rate, told):
    assert f"about {said}, at {told} images/s" in str(Forecast(2, 9, minutes, rate))


@pytest.mark.parametrize("asked", [{"within": 0.03, "beam": 2}, {"at_least": 0.93, "beam": 1}])
def test_a_stopped_search_ends_as_if_it_never_had_been(plain, asked):
    run, trained, (_, content, points, floor) = plain(rounds=4, **asked)
    for stop_at in itertools.count(1):
        name = f"stopped{stop_at}"
        try:
            plain(name, stop_at=stop_at, rounds=4, **asked)
            break
        except KeyboardInterrupt:
            again, later, ended = plain(name, rounds=4, **asked)
            assert later == trained[stop_at - 1 :]
            assert ended[1:] == (content, points, floor)
            assert again.read_json("lighten.json") == run.read_json("lighten.json")
    assert stop_at == len(trained) + 1


@pytest.mark.parametrize("stop_at", [None, 1, 3])
def test_the_choice_is_by_latencies_that_were_measured_one_after_the_other(plain, capsys, stop_at):
    """When the search began the machine was four times as slow."""
    asked = {"measure": "latency", "rounds": 2, "at_least": 0.9}
    if stop_at:
        with pytest.raises(KeyboardInterrupt):
            plain(stop_at=stop_at, **asked)
    run, _, (_, content, points, _) = plain(failing="longer", **asked)
    names = [point.name for point in points]
    assert names[0] == ""
    assert len(names) > 3
    assert [point.cost for point in points] == [2e-6 * worth(name)[0] for name in names]
    told = {each.name: each.costs["latency"] for each in content.candidates if not each.trouble}
    assert told == {point.name: point.cost for point in points}
    assert content.front == [point.name for point in weighing.front(points)]
    assert "the run itself: 2.05 ms\nchannels: 1.02 ms\n" in capsys.readouterr().out
    first, *others = read(run, LightenFile).candidates  # by these a search goes on
    assert first.costs["latency"] == 4096
    assert all(each.costs["latency"] == worth(each.name)[0] for each in others)


@pytest.mark.parametrize("schedule_of_the_run", ["study", "quick"])
@pytest.mark.parametrize(
    ("field", "other", "has_a_part"),
    [
        ("train.quick.peak_rate", 1e-3, True),
        ("train.quick.warmup", 0.5, True),
        ("train.quick.weight_decay", 0.1, True),
        ("train.batch_size", 7, True),
        ("train.augment", True, True),
        ("train.learning_rate", 7.0, False),
        ("train.plateau_patience", 7, False),
        ("train.save_seconds", 7.0, False),
    ],
)
def test_candidates_of_a_search_all_learn_alike(
    plain, schedule_of_the_run, field, other, has_a_part
):
    """By the quick schedule, whichever their run was trained by."""
    run = {"train.schedule": schedule_of_the_run}
    plain(rounds=1, fields=run)
    if has_a_part:
        with pytest.raises(UserError, match=f"holds a search with config.{field}="):
            plain(rounds=2, fields=run | {field: other})
    else:
        assert plain(rounds=2, fields=run | {field: other})[1]


@pytest.mark.parametrize("finished", [False, True])
def test_a_search_out_of_a_run_that_has_learned_on_is_refused(plain, finished):
    """Its nets would be weighed against an accuracy that the run no longer has."""
    run, tried, _ = plain(rounds=1)
    content = run.read_json("lighten.json") | {"finished": finished, "chosen": tried[0]}
    run.write_json("lighten.json", content)
    with pytest.raises(UserError, match=f"{run} was begun when .*run had other weights.*--out"):
        plain(rounds=1 if finished else 2, weights="learned on")
    assert run.read_json("lighten.json") == content
    del content["weights"]  # as an older version wrote it
    run.write_json("lighten.json", content | {"finished": False})
    assert plain(rounds=2, weights="learned on")[1]


def test_a_search_killed_before_its_report_was_written_still_writes_it(plain, monkeypatch):
    run, trained, (_, content, *_) = plain(rounds=1)
    shown = []
    monkeypatch.setattr(outcome, "show", lambda workshop, content: shown.append(content))
    finished = dataclasses.replace(content, chosen=trained[0], finished=True)
    write(run, finished)
    plain(rounds=1)
    assert shown == [read(run, type(finished))]
    monkeypatch.setattr(report, "is_current", lambda asked: asked.path == run.path)
    monkeypatch.setattr(lock, "hold", lambda run: pytest.fail("it may be on a read-only disk"))
    plain(rounds=1)
    assert len(shown) == 1, "the report is there"


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_search_whose_folder_was_removed_does_not_bring_it_back(
    kept, plain, monkeypatch, tmp_path
):
    """While what goes next was judged: the folder was made anew, with nobody's lock in it."""
    judged = []

    def judge(self, net):
        judged.append(net)
        if len(judged) > kept:
            shutil.rmtree(tmp_path / "out")

    monkeypatch.setattr(search._Search, "_judge", judge)
    with pytest.raises(UserError, match="out was removed while the search was at work"):
        plain(rounds=2)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_candidate_left_half_written_is_no_part_of_the_chosen_run(tmp_path):
    candidate, out = Run(tmp_path / "candidate"), Run(tmp_path / "out")
    whole = ["checkpoints/1/state", "config.json", "feature_maps/a.partial", "report.md"]
    halves = [".report.md.7.partial", ".lock", "feature_maps/.conv1.png.12.partial"]
    for name in [*whole, *halves]:
        (candidate.path / name).parent.mkdir(parents=True, exist_ok=True)
        (candidate.path / name).write_bytes(b"content")
    out.create()
    outcome._copy(candidate, out)
    left = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert sorted(str(path.relative_to(out.path)) for path in left) == whole


def test_the_same_folder_goes_on_with_a_wider_margin_and_refuses_other_candidates(
    plain, monkeypatch, tmp_path
):
    run, trained, _ = plain(rounds=2, within=0.0)
    _, more, _ = plain(rounds=2, within=0.05)
    assert not set(trained) & set(more)
    for asked, said in (
        ({"share": 0.3}, "a search with share=0.5, not 0.3"),
        ({"round_to": 8}, "a search with round_to=1, not 8"),
        ({"measure": "params"}, "a search with measure=flops, not params"),
    ):
        with pytest.raises(UserError, match=said):
            plain(**asked)
    monkeypatch.chdir(tmp_path)
    assert plain(rounds=2, within=0.05, parent="run")[1] == []
    with pytest.raises(UserError, match=r"with parent=run, not another: .*make run a link to"):
        plain(rounds=2, within=0.05, parent="another")
    content = run.read_json("lighten.json")
    configs = ({}, {"model": None}, {"model": {"name": "final"}, "train": 7})
    of_parts = ({"candidates": [{"name": ""}]}, *({"config": each} for each in configs))
    for damaged in ([], {"request": {}}, *(content | part for part in of_parts)):
        run.write_json("lighten.json", damaged)
        with pytest.raises(UserError, match="is damaged"):
            plain(rounds=2)
    run.write_json("lighten.json", content | {"finished": True})
    with pytest.raises(UserError, match=r"within=0\.05, not 0\.1"):
        plain(rounds=2, within=0.1)


@pytest.mark.parametrize(
    ("field", "value", "accuracy"),
    [
        ("seed", 0, 0.5),
        ("seed", 7, worth("")[1]),
        ("data.image_size", 224, 0.5),
        ("data.image_size", 112, worth("")[1]),
    ],
)
def test_the_whole_net_is_tested_on_what_the_search_s_seed_draws(
    field, value, accuracy, plain, monkeypatch
):
    """Its own evaluation is taken where that had the same images, augmented alike; else anew."""
    run, trained, asked = plain(rounds=1, within=0.5)
    result = evaluate.report(np.array([[1, 1], [0, 0]]), ["a", "b"])  # half of them right
    for name in ("", *trained):
        folder = asked[0].folder(name)
        folder.create()
        config = configuration.default("final")
        config.update_from_flattened_dict({} if name else {field: value})
        folder.write_json("config.json", {"config": configuration.to_json(config), "data": None})
        write(folder, EvaluationFile(clean=result, augmented=result, path="test split"))
    spared = ((report, "is_current"), (stages, "run_stages"), (outcome, "show"))
    for owner, name in (*spared, (outcome.train, "load")):
        monkeypatch.setattr(owner, name, lambda *_: True)
    left = [run.write_bytes(name, b"") for name in OF_ANOTHER_CHOICE]
    FINISH(*asked)
    assert not any(file.exists() for file in left), "of what was chosen before it was stopped"
    tested = read(run, LightenFile).test
    assert tested[""].augmented == accuracy
    assert {tested[name].augmented for name in trained} == {0.5}
