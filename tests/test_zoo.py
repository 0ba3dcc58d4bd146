"""The nets that come with the package: what they claim, and what is refused."""

import dataclasses
import hashlib
import io
import json
import math
import re
import shutil
import sys

import data_files
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from rice_jax import config as configuration
from rice_jax import data, evaluate, identity, models, profile, train, zoo
from rice_jax.commands import app
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.zoo.cards import FOLDER

MOST_BYTES = 6_000_000  # of all nets together
MOST_SAMPLE_BYTES = 4_000_000


def settings(name):
    made = configuration.default(zoo.card(name).model["name"])
    made.model.weights = f"zoo:{name}"
    return made


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """The sample, as every net's card is held against it."""
    return data.load("sample", tmp_path_factory.mktemp("cache"), keep_decoded=False)


@pytest.fixture
def copied(tmp_path):
    """A zoo of one net, to be spoiled."""
    for suffix in (".json", ".safetensors"):
        shutil.copy(FOLDER / f"cnn_light{suffix}", tmp_path)
    return tmp_path


def recarded(folder, **changes):
    path = folder / "cnn_light.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_it_is_small_enough_for_a_package():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES
    assert zoo.SAMPLE.stat().st_size < MOST_SAMPLE_BYTES


@pytest.mark.parametrize("name", zoo.names())
def test_a_card_tells_its_net(name):
    module, variables, card = zoo.load(name)
    side = card.image_size
    counted = profile.count(module, (side, side, 3))
    assert card.params == counted.params == sum(x.size for x in jax.tree.leaves(variables))
    assert dataclasses.asdict(card.flops) == counted.flops.to_json()
    assert card.data.images == {"train": 60_000, "validation": 7_500, "test": 7_500}
    assert card.data.classes == data_files.CLASSES
    # Else it may have learned from the sample, which is of that seed's test split.
    assert configuration.split_seed(configuration.from_json(card.config)) == 0
    for field in ("versions", "machine", "date", "command"):
        assert getattr(card, field), field
    assert card.config["data"]["path"] == card.data.name == "Rice_Image_Dataset"
    assert f"--config.data.path={card.data.name}" in card.command  # without it the sample's


HEAVY = [name for name in zoo.names() if zoo.card(name).flops.study > 200_000_000]
LIGHT = 5_000_000
"""FLOPs of a net that sees all images of the sample in a second or two; others see 200."""


@pytest.mark.parametrize("part", ["clean", "augmented"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] if name in HEAVY else [])
        for name in zoo.names()
    ],
)
@pytest.mark.one_in(13)
def test_a_net_does_on_the_sample_as_its_card_says(name, part, photographs):
    """Both figures estimate the same share p of right answers, from m and from n images.

    Their difference then has a variance of p (1 - p) (1 / m + 1 / n) at most: the images of the
    sample are among the card's, which makes it smaller. Five standard deviations, and half an
    image for the step between two counts, fail a right card in less than one of a million.
    """
    module, variables, card = zoo.load(name)
    told = getattr(card.accuracy, part)
    found = evaluate.evaluate(
        module,
        variables["params"],
        photographs.splits["test"],
        classes=photographs.classes,
        image_size=card.image_size,
        batch_size=100,
        augment_seed=None if part == "clean" else 0,
        limit=0 if card.flops.study < LIGHT else 200,
    )
    n, m = found.images, told.images
    right = found.accuracy * n + told.accuracy * m
    share = min(right / (n + m), 1 - 1 / (n + m))
    deviation = math.sqrt(share * (1 - share) * (1 / n + 1 / m))
    assert abs(found.accuracy - told.accuracy) < 5 * deviation + 0.5 / n


def test_a_configuration_takes_its_weights():
    given = settings("cnn_light")
    params = train.initial_params(given, train.build(given))
    jax.tree.map(np.testing.assert_array_equal, params, zoo.load("cnn_light").variables["params"])


@pytest.mark.parametrize("name", zoo.names())
def test_a_net_as_its_card_has_it_does_nothing_otherwise(name):
    given = settings(name)
    given.model.update(zoo.load(name).module.settings())
    assert train.used_otherwise(given) == []


@pytest.mark.parametrize(
    ("weights", "fields", "told"),
    [
        ("final_grid56", {}, "grid=56 (here 0)"),
        ("final_grid112", {"grid": 56, "stem_stride": 2}, "grid=112 (here 56), stem_stride=0 (he"),
        ("final", {"strides": 2}, "strides=1 (here 2)"),
        ("micro", {"grid": 32}, "grid=56 (here 32)"),
        ("final", {"grid": 224}, ""),  # of images of 224 that is none
        ("micro", {"grid": 50}, ""),  # a quarter of 224 again
        ("final", {"dropout": 0.1}, ""),
    ],
)
def test_weights_that_fit_a_net_that_does_otherwise_come_with_a_warning(
    weights, fields, told, tmp_path, capsys
):
    """No parameter has another shape for it, and yet they are of little use there."""
    given = settings(weights)
    given.model.update(fields)
    assert train.given_params(given, train.build(given))
    identity.record(Run(tmp_path), given, None)
    said = capsys.readouterr().err
    assert (f"zoo:{weights} was trained with {told}" in said) == bool(told)
    assert said.count("\n") == bool(told)


def test_a_name_that_is_not_there_lists_those_that_are():
    given = settings("cnn_light")
    given.model.weights = "zoo:resnet"
    with pytest.raises(UserError, match=r"no net called 'resnet'; it has .*cnn_light"):
        train.initial_params(given, train.build(given))


@pytest.mark.parametrize("name", ["../cnn_light", "", "cnn_light.json", "CNN_LIGHT"])
def test_no_other_name_reads_a_file(name):
    with pytest.raises(UserError, match="it has "):
        zoo.load(name)


@pytest.mark.parametrize("other", ["final", "cnn"])
def test_another_nets_weights_are_refused(other):
    given = configuration.default(other)
    given.model.weights = "zoo:cnn_light"
    with pytest.raises(UserError, match="'zoo:cnn_light' is of another net: "):
        train.initial_params(given, train.build(given))


def test_what_is_saved_is_loaded(tmp_path):
    module = models.build("final", stages=((2,),), dense=3)
    params = module.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))["params"]
    card = zoo.card("cnn_light")
    made = configuration.default("final")
    made.model.update(stages=((2,),), dense=3)
    made.data.image_size = 8
    zoo.save(
        "tiny", params, dataclasses.replace(card, config=configuration.to_json(made)), tmp_path
    )
    assert zoo.names(tmp_path) == ("tiny",)
    entry = zoo.load("tiny", tmp_path)
    assert entry.module == module
    jax.tree.map(np.testing.assert_array_equal, entry.variables["params"], params)
    assert entry.card.name == "tiny"


@pytest.mark.parametrize("at", [0, 3, 9, 40, -1])
def test_a_changed_byte_of_the_weights_is_noticed(at, copied):
    path = copied / "cnn_light.safetensors"
    content = bytearray(path.read_bytes())
    content[at] ^= 0x11
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is not the file that its card \S+ is of"):
        zoo.load("cnn_light", copied)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}trailing"])
def test_a_file_of_another_kind_is_one_line(content, copied):
    (copied / "cnn_light.safetensors").write_bytes(content)
    recarded(copied, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(UserError, match=r"is damaged|another net") as error:
        zoo.load("cnn_light", copied)
    assert "\n" not in str(error.value)


def spoil(arrays):
    yield {path: array for path, array in arrays.items() if path != "head/bias"}
    yield arrays | {"conv9/kernel": arrays["conv1/kernel"]}
    yield arrays | {"head/bias": arrays["head/bias"][:4]}
    yield arrays | {"head/bias": arrays["head/bias"].astype(np.float64)}


@pytest.mark.parametrize("kind", range(4))
def test_weights_of_another_net_than_the_card_tells_are_refused(kind, copied):
    arrays = traverse_util.flatten_dict(zoo.load("cnn_light").variables["params"], sep="/")
    content = safetensors.numpy.save(list(spoil(arrays))[kind])
    (copied / "cnn_light.safetensors").write_bytes(content)
    recarded(copied, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(UserError, match=r"another net than cnn_light.json tells: \S+ differs"):
        zoo.load("cnn_light", copied)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "final"}, "the card of final"),
        ({"params": "many"}, r"Expected `int`, got `str` - at `\$.params`"),
        ({"accuracy": None}, r"`null` - at `\$.accuracy`"),
        ({"config": {}}, "does not tell its net"),
        (
            {"config": {"model": {"name": "cnn_light", "weights": "", "legs": 4}}},
            "not tell its net",
        ),
        ({"config": {"model": {"name": "resnet", "weights": ""}}}, "resnet"),
    ],
)
def test_a_spoiled_card_is_one_line(changes, said, copied):
    recarded(copied, **changes)
    with pytest.raises(UserError, match=said) as error:
        zoo.load("cnn_light", copied)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_card_that_is_none_is_one_line(text, copied):
    (copied / "cnn_light.json").write_text(text)
    with pytest.raises(UserError, match=r"cnn_light.json is damaged"):
        zoo.card("cnn_light", copied)


def test_the_table_has_a_row_for_each_net():
    header, *rows = zoo.rows(map(zoo.card, zoo.names()))
    assert [row[0] for row in rows] == list(zoo.names())
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_name["cnn_light"]["parameters"] == "51,669"
    assert by_name["cnn_light"]["augmented test"] == "0.6637"


TABLE = zoo.rows(map(zoo.card, zoo.names()))
WHOLE = zoo.lines(TABLE)


@pytest.mark.parametrize("width", [None, 1000, max(map(len, WHOLE))])
def test_where_there_is_room_the_table_has_all(width):
    """Also where nobody asks for the room: what another program reads stays as it is."""
    told = zoo.lines(TABLE, width)
    assert told == WHOLE
    assert [re.split(" {2,}", line) for line in told] == [list(row) for row in TABLE]


@pytest.mark.parametrize("width", range(33, max(map(len, WHOLE)), 7))
def test_a_narrow_terminal_has_whole_columns_and_is_told_which_lack(width):
    told = zoo.lines(TABLE, width)
    assert max(map(len, told)) <= width
    rows, note = told[: len(TABLE)], " ".join(told[len(TABLE) :])
    cells = [re.split(" {2,}", line) for line in rows]
    for column in zip(*cells, strict=True):
        assert column in zip(*TABLE, strict=True)
    lacking = [name for name in TABLE[0] if name not in cells[0]]
    assert cells[0][0] == "net"
    assert lacking
    assert sorted(note.removeprefix("No room for ").partition(": ")[0].split(", ")) == sorted(
        lacking
    )


@pytest.mark.parametrize(("terminal", "width"), [(True, 80), (True, 300), (False, 80)])
def test_the_command_looks_at_the_terminal_alone(terminal, width, monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setattr("sys.stdout", Screen())
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        app.call(["zoo"])
    told = sys.stdout.getvalue().splitlines()
    assert told == zoo.lines(TABLE, width if terminal else None)
    assert max(map(len, told)) <= 80 or not terminal or width > 80
