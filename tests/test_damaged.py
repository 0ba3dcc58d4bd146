"""Damaged runs and data sets: each is an error of one line or a counted skip, in bounded memory.

What befalls a single image, zip, .h5 or checkpoint: test_data_images, test_data_archive,
test_models_h5_damaged, test_train_damaged.
"""

import contextlib
import json
import resource
import shutil
from pathlib import Path

import data_files
import jax
import numpy as np
import pytest
import tiny_training
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_images import DAMAGED

from rice_jax import config, data, train
from rice_jax.errors import UserError
from rice_jax.run import Run

MOST_MEMORY = 512 << 20
FEW_BUT_THE_SAME = settings(derandomize=True)


@contextlib.contextmanager
def bounded_memory():
    """MemoryError where the process would take half a gigabyte more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run before its first step, and its parameters."""
    run = Run(tmp_path_factory.mktemp("sound"))
    tiny, images = tiny_training.config(), tiny_training.dataset()
    params = train.initial_params(tiny, train.build(tiny))
    train.begin(tiny, run, images, params)
    about = {"name": "tiny", "synthetic": True, "fingerprint": "tiny"}
    about["classes"] = list(tiny_training.CLASSES)
    run.write_json("config.json", {"config": config.to_json(tiny), "data": about})
    return run, params


@pytest.fixture
def copy(sound, tmp_path):
    shutil.copytree(sound[0].path, tmp_path / "run")
    return Run(tmp_path / "run")


def damaged(content, change):
    """Some bytes flipped, or the end missing."""
    content = bytearray(content)
    if change.draw(st.integers(0, 4)) == 0:
        return bytes(content[: change.draw(st.integers(0, len(content) - 1))])
    for _ in range(change.draw(st.integers(1, 3))):
        content[change.draw(st.integers(0, len(content) - 1))] ^= change.draw(st.integers(1, 255))
    return bytes(content)


def loads_or_says_why(run, params):
    """What is loaded is what was saved; what is not is refused on one line."""
    refusal = ""
    with bounded_memory():
        try:
            found = train.load(run).params
        except UserError as error:
            refusal = str(error)
    if not refusal:
        jax.tree.map(np.testing.assert_array_equal, found, params)
    else:
        assert str(run.path) in refusal
        assert "\n" not in refusal


@settings(FEW_BUT_THE_SAME, max_examples=60)
@given(change=st.data())
def test_a_configuration_with_flipped_or_missing_bytes(sound, tmp_path_factory, change):
    run, params = sound
    copied = Run(shutil.copytree(run.path, tmp_path_factory.mktemp("config"), dirs_exist_ok=True))
    file = copied.path / "config.json"
    file.write_bytes(damaged(file.read_bytes(), change))
    loads_or_says_why(copied, params)
    shutil.rmtree(copied.path)


@settings(FEW_BUT_THE_SAME, max_examples=25)
@given(change=st.data())
def test_a_checkpoint_with_flipped_or_missing_bytes(sound, tmp_path_factory, change):
    run, params = sound
    copied = Run(shutil.copytree(run.path, tmp_path_factory.mktemp("saved"), dirs_exist_ok=True))
    files = sorted(path for path in Path(copied.checkpoints).rglob("*") if path.is_file())
    file = change.draw(st.sampled_from([path for path in files if path.stat().st_size]))
    file.write_bytes(damaged(file.read_bytes(), change))
    loads_or_says_why(copied, params)
    shutil.rmtree(copied.path)


def fields(content, place=()):
    """The place of every part of a configuration."""
    for name, value in content.items():
        yield (*place, name)
        if isinstance(value, dict):
            yield from fields(value, (*place, name))


@pytest.mark.parametrize("wrong", [None, {}, ["x"], 10**30])
def test_a_field_of_another_kind_is_named(copy, wrong):
    content = json.loads((copy.path / "config.json").read_text())
    for *place, name in fields(content["config"]):
        spoilt = json.loads(json.dumps(content))
        part = spoilt["config"]
        for step in place:
            part = part[step]
        if type(part[name]) is type(wrong) or (isinstance(part[name], float) and wrong == 10**30):
            continue
        part[name] = wrong
        copy.write_json("config.json", spoilt)
        with pytest.raises(UserError, match=r"config\.json is damaged: .") as error:
            config.read(copy)
        assert name in str(error.value) or "incomplete" in str(error.value)


def test_fields_that_an_older_version_did_not_have_get_their_defaults(copy):
    content = json.loads((copy.path / "config.json").read_text())
    del content["config"]["data"]["split_seed"]
    del content["config"]["profile"]
    copy.write_json("config.json", content)
    filled = config.from_json(config.read(copy).config)
    assert config.to_json(filled) == config.to_json(tiny_training.config())


def test_a_field_that_there_is_not_is_named(copy):
    content = json.loads((copy.path / "config.json").read_text())
    content["config"]["train"]["batch_sizd"] = content["config"]["train"].pop("batch_size")
    copy.write_json("config.json", content)
    with pytest.raises(UserError, match=r"damaged: there is no config\.train\.batch_sizd"):
        config.read(copy)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_each_kind_of_damaged_image_is_a_counted_skip(tmp_path, kind, capsys):
    files = data_files.pictures(100 * len(DAMAGED), ("Arborio", "Basmati"))
    bad = {f"Basmati/{fault}.jpg": content for fault, (content, _) in DAMAGED.items()}
    write = {"folder": data_files.write_folder, "zip": data_files.write_zip}[kind]
    path = write(tmp_path / f"rice.{kind}", files | bad)
    with bounded_memory():
        loaded = data.load(path, tmp_path / "cache", keep_decoded=False)
    told = {skipped["name"]: skipped["reason"] for skipped in loaded.skipped}
    assert told.keys() == bad.keys()
    for fault, (_, reason) in DAMAGED.items():
        assert reason in told[f"Basmati/{fault}.jpg"]
    assert sum(map(len, loaded.splits.values())) == len(files)
    assert f"left out {len(bad)} of {len(files) + len(bad)} images" in capsys.readouterr().err
