"""Images that are the user's own: more epochs where they are few, a word where they are small."""

import shutil

import cv2
import data_files
import numpy as np
import pytest
from hypothesis import given, strategies
from hypothesis import settings as hypothesis_settings
from report_runs import make_run, text_of
from small_run import read, small

from rice_jax import config as configuration
from rice_jax import data, models, nets, own_images, stages, train
from rice_jax.train import schedule

pytestmark = pytest.mark.usefixtures("drawn_small")

FOLDER = "photographs"


def quick(name="final", **fields):
    made = configuration.default(name)
    wanted = {"data.path": FOLDER, "train.schedule": "quick"} | fields
    made.update_from_flattened_dict(wanted)
    return made


def steps(config, images):
    return schedule.epochs(config.train) * -(-images // config.train.batch_size)


@pytest.mark.parametrize("name", sorted(models.NETS))
@hypothesis_settings(max_examples=25)  # of ten nets
@given(images=strategies.integers(1, 100_000), batch=strategies.integers(1, 300))
def test_few_images_get_as_many_epochs_as_they_need_and_many_the_usual(name, images, batch):
    config = quick(name, **{"train.batch_size": batch})
    usual = config.train.quick.epochs
    said = own_images.settle(config, images)
    found = config.train.quick.epochs
    times = sum(found) // sum(usual)
    assert found == tuple(each * times for each in usual)
    assert bool(said) == (times > 1)
    needed = steps(quick(name, **{"train.batch_size": batch}), images)
    if needed >= own_images.LEAST_STEPS:
        assert times == 1
    else:
        full = sum(usual) * (times + 1) > own_images.MOST_EPOCHS
        assert full or steps(config, images) >= own_images.LEAST_STEPS
        assert (times - 1) * needed < own_images.LEAST_STEPS
    if times > 1:
        assert sum(found) <= own_images.MOST_EPOCHS


def test_it_says_what_it_decided_in_a_line():
    config = quick()
    # 32 batches of 64, and 8 epochs: 256 steps, of which 16 times as many are 4,096.
    assert own_images.settle(config, 2_023) == (
        "2,023 images are few: 128 epochs instead of 8, so that there are 4,096 steps "
        "(--config.train.quick.epochs=64,64)"
    )
    assert config.train.quick.epochs == (64, 64)
    # Of 640 of them ten batches: the steps that are told are those that there will be.
    assert "128 epochs instead of 8, so that there are 1,280 steps" in own_images.settle(
        quick(**{"train.images": 640}), 2_023
    )


@pytest.mark.parametrize(
    ("some", "made"), [(64, 128), (640, 1_280), (2_000, 4_096), (9_999, 4_096)]
)
def test_it_tells_the_steps_that_there_are_where_only_some_are_learned_from(some, made):
    config = quick(**{"train.images": some})
    assert f"there are {made:,} steps (" in own_images.settle(config, 2_023)
    learned = schedule.images(config.train, 2_023)
    assert made == steps(config, learned)


LEFT = {
    "the study's recipe": ({"train.schedule": "study"}, ()),
    "epochs of the user's": ({"train.quick.epochs": (3, 2)}, ()),
    "epochs that the user gave as they are": ({}, ("train.quick.epochs",)),
    "sizes of the user's": ({"train.quick.shrink": (4, 1)}, ()),
    "the sample": ({"data.path": "sample"}, ()),
    "drawn grains": ({"data.path": "synthetic"}, ()),
}


@pytest.mark.parametrize(("fields", "settled"), LEFT.values(), ids=LEFT)
def test_what_is_not_left_open_stays(fields, settled):
    config = quick(**fields)
    before = configuration.to_json(config)
    assert own_images.settle(config, 100, settled) == ""
    assert configuration.to_json(config) == before


def test_some_of_many_images_are_a_wish_for_less_and_get_no_more_epochs():
    some = quick(**{"train.images": 640})
    assert own_images.settle(some, 60_000) == ""
    assert some.train.quick.epochs == quick().train.quick.epochs


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Pictures of 12 pixels a side, twenty of each class."""
    return data_files.write_folder(tmp_path_factory.mktemp("images"), data_files.pictures(20))


@pytest.fixture
def job(images, tmp_path, monkeypatch):
    """What makes a run on them: twice as many epochs as usual, of five steps each."""
    monkeypatch.setattr(own_images, "LEAST_STEPS", 20)
    quick = {"train.quick.epochs": (1, 1), "train.quick.shrink": (1, 1)}  # each size is compiled
    fields = {
        "data.path": str(images),
        "data.image_size": 16,
        "model.stages": ((2,),),
        "model.dense": 4,
        "train.schedule": "quick",
        "train.on_collapse": "warn",
    }

    def make(*given, restart=False, do=("train",), **more):
        usual = configuration.default

        def default(name):
            made = usual(name)
            made.update_from_flattened_dict(quick)
            return made

        monkeypatch.setattr(configuration, "default", default)
        config = small("final", tmp_path / "cache", **fields | quick | more)
        stages.run_stages(config, str(tmp_path / "run"), do, given, restart=restart)
        return read(tmp_path / "run", "config.json")

    return make


def test_a_run_has_them_and_goes_on_and_begins_again(job, capsys):
    made = job()
    said = capsys.readouterr().out
    assert "80 images are few: 4 epochs instead of 2" in said
    assert "images of 12 x 12 pixels are enlarged to 16 x 16" in said
    assert made["config"]["train"]["quick"]["epochs"] == [2, 2]
    assert made["data"]["size"] == [12, 12]
    assert made["data"]["copies"].keys() == {"in_training", "in_two_classes", "pairs"}
    assert job() == made
    again = capsys.readouterr().out
    assert "are few" not in again
    assert "enlarged" not in again
    anew = job("train.quick.epochs", restart=True)
    assert "are few" not in capsys.readouterr().out
    assert anew["config"]["train"]["quick"]["epochs"] == [1, 1]
    assert job() == anew


def test_a_run_has_them_whatever_was_done_before_its_images_were_known(job):
    assert job(do=["profile"])["config"]["train"]["quick"]["epochs"] == [1, 1]
    assert job()["config"]["train"]["quick"]["epochs"] == [2, 2]


@pytest.mark.parametrize("do", ["evaluate", "profile"])
@pytest.mark.one_in(2)
def test_a_run_has_them_whatever_was_done_with_weights_that_it_begins_with(
    job, tmp_path, capsys, do
):
    job()
    named = {"model.weights": str((tmp_path / "run").rename(tmp_path / "other"))}
    capsys.readouterr()
    job(do=[do], **named)
    assert job(**named)["config"]["train"]["quick"]["epochs"] == [2, 2]
    assert "80 images are few: 4 epochs instead of 2" in capsys.readouterr().out
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 1 + 4
    assert job(**named)["config"]["train"]["quick"]["epochs"] == [2, 2]
    assert "are few" not in capsys.readouterr().out


def test_a_run_killed_before_its_first_checkpoint_has_those_that_it_began_with(job, tmp_path):
    made = job("train.quick.epochs")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert job() == made


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_the_size_of_images_is_the_median_of_both_sides(tmp_path, suffix):
    files = {}
    for label in "ab":
        for number, (height, width) in enumerate([(8, 30), (20, 10), (9, 31)] * 8):
            image = np.full((height, width, 3), 10 * number, np.uint8)
            files[f"{label}/{number}{suffix}"] = cv2.imencode(suffix, image)[1].tobytes()
    dataset = data.load(data_files.write_folder(tmp_path / "images", files), tmp_path / "cache")
    sizes = [
        cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR).shape
        for record in dataset.splits["train"]
    ]
    middle = (len(sizes) - 1) // 2
    heights, widths, _ = (sorted(sides) for sides in zip(*sizes, strict=True))
    assert dataset.size == (heights[middle], widths[middle])


class Photographs:
    """Images of a size, as far as advice asks."""

    name = "photographs"

    def __init__(self, height, width, images=60_000):
        self.size = height, width
        self.splits = {"train": range(images)}


def advised(name, size=(250, 250), images=60_000, given=(), **fields):
    config = configuration.default(name)
    config.update_from_flattened_dict({"data.path": FOLDER} | fields)
    before = configuration.to_json(config)
    said = own_images.advice(config, Photographs(*size, images), given)
    assert configuration.to_json(config) == before
    return said


@pytest.mark.parametrize(("side", "times"), [(112, "4"), (28, "64"), (16, "196")])
def test_images_that_are_enlarged_are_told_with_what_they_cost(side, times):
    assert advised("vgg_custom" if side > 16 else "cnn_light", (side // 2, side)) == [
        f"photographs: images of {side} x {side // 2} pixels are enlarged to 224 x 224; "
        f"--config.data.image_size={side} computes with {times} times fewer pixels"
    ]


@pytest.mark.parametrize("recipe", ["study", "quick"])
@pytest.mark.parametrize("side", [1, 3, 7, 20, 32, 100])
@pytest.mark.parametrize("name", sorted(name for name in models.NETS if not nets.NETS[name].frozen))
@pytest.mark.one_in(3)
def test_the_size_that_is_advised_is_one_that_can_be_trained(name, side, recipe):
    """Net by net, whose shapes are kept; an inception a stage halves as many times as all."""
    config = configuration.default(name)
    fields = {"train.schedule": recipe}
    if "inceptions" in config.model:
        fields["model.inceptions"] = tuple(stage[:1] for stage in config.model.inceptions)
    [said] = advised(name, (side, side), **fields)
    advice = int(said.partition("--config.data.image_size=")[2].split()[0])
    assert max(side, config.model.get("grid", 0)) <= advice < 224
    config.update_from_flattened_dict(fields | {"data.image_size": advice})
    assert train.image_sizes(config)
    assert schedule.takes(train.build(config), advice)


UNTOLD = {
    "as large": ((224, 224), {}),
    "larger": ((3000, 4000), {}),
    "larger in one side": ((100, 300), {}),
    "hardly smaller": ((200, 200), {}),
    "from weights, whose size it is": ((100, 100), {"model.weights": "zoo:final"}),
}


@pytest.mark.parametrize(("size", "fields"), UNTOLD.values(), ids=UNTOLD)
def test_of_other_images_nothing_is_told(size, fields):
    assert advised("final", size, **fields) == []


def test_few_images_are_told_where_the_recipe_is_the_study_s():
    # 50 epochs of 32 batches are 1,600 steps.
    assert advised("final", images=2_023) == [
        "2,023 images are few for the study's recipe: --config.train.schedule=quick learns more "
        "from such, with --config.train.augment=true more yet (docs/own_images.md)"
    ]
    assert advised("final", images=2_023, **{"train.augment": True}) == [
        "2,023 images are few for the study's recipe: --config.train.schedule=quick learns more "
        "from such (docs/own_images.md)"
    ]
    both = advised("cnn", (32, 32), images=2_023)
    assert [line.split()[0] for line in both] == ["photographs:", "2,023"]


ENOUGH = {
    "many": {"images": 5_100},  # 50 epochs of 80 batches are 4,000 steps
    "many in small batches": {"images": 2_023, "train.batch_size": 16},
    "a recipe that was chosen": {"images": 100, "given": ("train.schedule",)},
    "quick": {"images": 100, "train.schedule": "quick"},
    "from weights": {"images": 100, "model.weights": "zoo:final"},
    "the sample": {"images": 100, "data.path": "sample"},
    "drawn grains": {"images": 100, "data.path": "synthetic"},
}


@pytest.mark.parametrize("asked", ENOUGH.values(), ids=ENOUGH)
def test_nothing_is_told_of_images_that_are_enough(asked):
    assert advised("final", **asked) == []


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (
            (6, 7),
            "They come at 7 x 6 pixels (medians) and are enlarged to 8 x 8, whatever their shape.",
        ),
        ((300, 300), "They come at 300 x 300 pixels (medians) and are resized to 8 x 8."),
        ((8, 8), "They come at 8 x 8 pixels."),
    ],
)
def test_a_report_tells_their_size(size, told, tmp_path):
    run = make_run(tmp_path)
    written = run.read_json("config.json")
    assert "pixels" not in text_of(run).partition("## The images")[2].partition("##")[0]
    run.write_json("config.json", written | {"data": written["data"] | {"size": size}})
    assert told in text_of(run)
