"""What a run's JSON files hold: written as it is told, read as any version wrote it."""

import dataclasses
import json

import jax
import pytest
import report_runs
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from rice_jax import inspection, profile, records
from rice_jax.errors import UserError
from rice_jax.run import Run

FILES = [kind for kind in vars(records).values() if isinstance(kind, type) and "FILE" in vars(kind)]
CONTENT = {
    records.ConfigFile: {"config": {"model": {"name": "final"}}},
    records.EvaluationFile: {"clean": report_runs.result(), "path": "test split"},
    records.ProfileFile: report_runs.profile(),
    records.DeadFiltersFile: report_runs.DEAD,
    records.PruneFile: {"request": {"parent": "runs/final"}},
}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="head")(nn.relu(nn.Conv(3, (3, 3), name="conv")(x)).mean((1, 2)))


def test_each_file_has_a_name_of_its_own():
    names = [kind.FILE for kind in FILES]
    assert len(set(names)) == len(names)
    assert {"config.json", "profile.json", "evaluation.json", "summary.json"} <= set(names)


def test_a_profile_loses_nothing_on_its_way_through_a_record():
    device = profile.Device(1e12, 1e11)
    content = profile.count(Net(), (8, 8, 3)).to_json("final", device)
    assert records.plain(records.made(records.ProfileFile, content)) == content


def test_findings_lose_nothing_on_their_way_through_a_record():
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
    variables = Net().init(jax.random.key(0), images)
    seen = inspection.census(Net(), variables, [images])
    content = inspection.to_json(seen, seen, {"conv": []})
    plain = json.loads(json.dumps(content, default=lambda array: array.tolist()))
    assert records.plain(records.made(records.DeadFiltersFile, plain)) == plain


@pytest.mark.parametrize("kind", CONTENT, ids=lambda kind: kind.FILE)
def test_what_is_written_is_read(kind, tmp_path):
    run = Run(tmp_path)
    found = records.made(kind, CONTENT[kind])
    records.write(run, found)
    assert run.has(kind.FILE)
    assert records.read(run, kind) == records.read_if_there(run, kind) == found


def test_what_there_is_nothing_to_tell_of_is_not_written(tmp_path):
    run = Run(tmp_path)
    records.write(run, records.EvaluationFile(path="photos"))
    assert run.read_json("evaluation.json") == {"path": "photos"}
    records.write(run, records.ConfigFile(config={}))
    assert run.read_json("config.json")["data"] is None


def test_no_file_is_none_and_one_of_later_fields_is_read(tmp_path):
    run = Run(tmp_path)
    assert records.read_if_there(run, records.DeadFiltersFile) is None
    run.write_json("dead_filters.json", report_runs.DEAD | {"of_the_future": 1})
    found = records.read(run, records.DeadFiltersFile)
    assert found.unseen == []  # which older versions did not write
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.images = 0


def places(content, place=()):
    """Each part of a JSON content, by the keys that lead to it."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from places(value, (*place, key))


@given(st.sampled_from(list(CONTENT)), st.data())
def test_a_part_of_another_kind_is_one_line_that_names_file_and_place(tmp_path_factory, kind, draw):
    content = json.loads(json.dumps(CONTENT[kind]))
    if kind is records.ConfigFile:
        content = {"config": {}, "data": {"name": "rice"}, "seed": 1}
    *way, last = draw.draw(st.sampled_from(sorted(places(content), key=str)))
    part = content
    for key in way:
        part = part[key]
    part[last] = object  # nothing in JSON is this
    with pytest.raises(ValueError, match=r"\$|object"):
        records.made(kind, content)
    run = Run(tmp_path_factory.mktemp("run"))
    run.write_json(kind.FILE, [])
    with pytest.raises(UserError, match=r"\.json is damaged: Expected `object`") as error:
        records.read(run, kind)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "claim", "said"),
    [
        (
            records.DeadFiltersFile,
            {"layers": [{"path": "conv1", "filters": 10**12}]},
            "tells of 1,000,000,000,000 filters",
        ),
        (records.DeadFiltersFile, {"layers": [{"path": "conv1", "filters": -1}]}, "-1 filters"),
        (
            records.EvaluationFile,
            {"clean": report_runs.result() | {"confusion_matrix": [[1, 0], [0]]}},
            "confusion matrix is not square",
        ),
    ],
)
def test_a_file_that_claims_what_it_does_not_hold_is_damaged(kind, claim, said, tmp_path):
    run = Run(tmp_path)
    run.write_json(kind.FILE, CONTENT[kind] | claim)
    with pytest.raises(UserError, match=f"{kind.FILE} is damaged: .*{said}"):
        records.read(run, kind)
