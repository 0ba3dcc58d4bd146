"""Files of averaged images, as the net would average them first: a device has no room for more."""

import json
import re
from pathlib import Path

import commands
import jax
import numpy as np
import pytest
import tiny_training
from data_files import write_folder
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax import config as configuration
from rice_jax import models, own_net, train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.export import artifact, averaging, exporting, passport
from rice_jax.run import Run
from rice_jax.train.prepared import Images

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
SIDE, BLOCK = 18, 4  # 18 pixels make four blocks, and two are left over
NEEDED = {
    "net.stablehlo": None,
    "net.onnx": "jax2onnx",
    "net.tflite": "litert_converter",
    "int8.onnx": "jax2onnx",
    "int8.tflite": "ai_edge_quantizer",
}


def tiny(name="micro", **model):
    made = configuration.default(name)
    made.data.update(image_size=SIDE, workers=1)
    made.model.update(classes=len(tiny_training.CLASSES), **model)
    made.eval.batch_size = 8
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a net that averages, with random parameters."""
    run, made = Run(tmp_path_factory.mktemp("run")), tiny(convolutions=(3,), grid=4, dense=4)
    run.write_json("config.json", {"config": to_json(made), "data": None})
    net = train.build(made)
    params = net.init(jax.random.key(0), np.zeros((1, SIDE, SIDE, 3), np.float32))["params"]
    train.begin(made, run, tiny_training.dataset(), params)
    return run


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    """f(name): the run as such a file, made on first use."""
    folder = tmp_path_factory.mktemp("files")

    def make(name):
        if NEEDED[name]:
            pytest.importorskip(NEEDED[name])
        path = folder / name
        if not path.exists():
            source = tiny_training.dataset(20).splits["train"]
            images = Images(tiny(), source) if name.startswith("int8") else None
            exporting.write(run, str(path), images, averaged=True)
        return path

    return make


def about(path):
    return json.loads(Path(f"{path}.json").read_text())


@pytest.mark.parametrize(
    ("side", "grid", "size"), [(224, 56, 4), (224, 32, 7), (112, 56, 2), (250, 56, 4), (167, 56, 2)]
)
def test_so_many_pixels_of_a_side_become_one(side, grid, size):
    made = tiny(grid=grid)
    made.data.image_size = side
    assert averaging.block(made) == size


@pytest.mark.parametrize(("name", "side"), [("micro", 111), ("final", 224), ("cnn_light", 224)])
def test_a_net_that_averages_no_image_is_told(name, side):
    made = configuration.default(name)
    made.data.image_size = side
    with pytest.raises(UserError, match=rf"{name} takes images of {side} x {side} as they are"):
        averaging.block(made)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 3))
def test_what_is_averaged_is_what_the_net_averages(side, grid, seed):
    images = np.random.default_rng(seed).random((2, side, side, 3), dtype=np.float32)
    size = max(1, side // grid)
    wanted = nn.avg_pool(images, (size, size), (size, size))
    np.testing.assert_allclose(averaging.averaged(images, size), wanted, atol=1e-6)
    shrunk = models.layers.Shrink(grid).apply({}, images)
    np.testing.assert_allclose(averaging.averaged(images, size), shrunk, atol=1e-6)


@pytest.mark.parametrize(("side", "size"), [(18, 4), (224, 4), (224, 7)])
def test_the_docs_average_alike(side, size):
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    names = dict(re.findall(r"`(\w) = (about[^`]+)`", page))
    [average] = re.findall(r"`(image\[[^`]+mean[^`]+)`", page)
    image = np.random.default_rng(0).random((side, side, 3))
    told = {"image_size": side, "averaged": size}
    a = eval(names["a"], {"about": told})
    s = eval(names["s"], {"about": told, "a": a})
    found = eval(average, {"image": image, "a": a, "s": s})
    np.testing.assert_allclose(found, averaging.averaged(image[None], size)[0])


@pytest.mark.parametrize("name", NEEDED)
def test_the_file_of_averaged_images_gives_what_the_net_gives_of_whole_ones(name, file, run):
    opened, trained = artifact.read(str(file(name))), train.load(run)
    images = np.random.default_rng(1).random((3, SIDE, SIDE, 3), dtype=np.float32)
    exact = np.asarray(trained.module.apply({"params": trained.params}, images))
    near = 0.1 * np.ptp(exact) if name.startswith("int8") else 1e-5
    assert np.abs(opened.net(images) - exact).max() <= near
    small = images[:, :16, :16].reshape(3, 4, BLOCK, 4, BLOCK, 3).mean((2, 4))
    np.testing.assert_allclose(opened.alone(small), opened.net(images), atol=near)


class Flat(nn.Module):
    """A net of a user's own whose parameters depend on the size of the image that it sees."""

    classes: int = 5

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.classes, name="head")(images.reshape(images.shape[0], -1))


def test_a_net_of_ones_own_that_was_given_a_grid_too(tmp_path):
    made, run = own_net.configuration(Flat), Run(tmp_path / "run")
    made.data.update(image_size=SIDE, workers=1)
    made.model.update(grid=4, classes=len(tiny_training.CLASSES))
    run.create()
    run.write_json("config.json", {"config": to_json(made), "data": None})
    train.begin(made, run, tiny_training.dataset(), train.initial_params(made, train.build(made)))
    exporting.write(run, str(tmp_path / "net.stablehlo"), averaged=True)
    images = np.random.default_rng(1).random((3, SIDE, SIDE, 3), dtype=np.float32)
    kernel, bias = (np.asarray(train.load(run).params["head"][name]) for name in ("kernel", "bias"))
    small = images[:, :16, :16].reshape(3, 4, BLOCK, 4, BLOCK, 3).mean((2, 4))
    found = artifact.read(str(tmp_path / "net.stablehlo")).net(images)
    np.testing.assert_allclose(found, small.reshape(3, -1) @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("name", NEEDED)
def test_it_tells_what_it_takes(name, file):
    told, read = about(file(name)), artifact.read(str(file(name))).about
    assert (told["image_size"], told["averaged"]) == (SIDE, BLOCK)
    assert (read["image_size"], read["averaged"]) == (SIDE, BLOCK)
    assert "4, 4, 3)" in told["input"]
    assert "averaged over 4 x 4 pixels" in told["input"]
    # Convolution 3 x 3 x 3 x 3 on 2 x 2 outputs, dense 6 x 4 and head 4 x classes.
    assert told["flops"]["formula"] == 2 * (27 * 3 * 4 + 6 * 4 + 4 * len(tiny_training.CLASSES))


@pytest.mark.parametrize("name", NEEDED)
def test_it_is_evaluated_on_whole_images(name, file, tmp_path):
    source = tiny_training.dataset(40).splits["test"]
    records = (source[index] for index in range(len(source)))
    photographs = write_folder(
        tmp_path / "photographs",
        {f"{tiny_training.CLASSES[r['label']]}/{r['name']}": r["image"] for r in records},
    )
    path = file(name)
    done = commands.run("evaluate", f"--artifact={path}", f"--config.eval.path={photographs}")
    assert done.returncode == 0, done.stderr
    told = about(path)
    assert told["evaluation"]["clean"]["images"] == len(source)
    if path.suffix == ".tflite":
        assert told["micro"]["identical"] == told["micro"]["images"] > 0


def test_what_is_told_wrong_is_refused(file):
    path = file("net.stablehlo")
    beside = Path(f"{path}.json")
    good = beside.read_text()
    try:
        for wrong in (2, 0, -1, 19):
            beside.write_text(json.dumps(json.loads(good) | {"averaged": wrong}))
            with pytest.raises(UserError):
                artifact.read(str(path))
    finally:
        beside.write_text(good)


@pytest.mark.parametrize(("field", "taken"), [("averaged", 1), ("resizing", "")])
def test_a_file_of_an_older_version_is_read(field, taken, file):
    """One took whole images, and did not tell how they are resized."""
    told = about(file("net.stablehlo"))
    del told[field]
    assert passport.checked(told)[field] == taken


def test_the_command_says_for_which_nets_it_is(tmp_path, run):
    done = commands.run("export", f"--workdir={run}", f"--out={tmp_path}/n.stablehlo", "--averaged")
    assert done.returncode == 0, done.stderr
    assert about(tmp_path / "n.stablehlo")["averaged"] == BLOCK
    other, made = Run(tmp_path / "final"), tiny_training.config()
    other.create()
    other.write_json("config.json", {"config": to_json(made), "data": None})
    side = made.data.image_size
    net = train.build(made).init(jax.random.key(0), np.zeros((1, side, side, 3), np.float32))
    train.begin(made, other, tiny_training.dataset(), net["params"])
    done = commands.run("export", f"--workdir={other}", f"--out={tmp_path}/no.onnx", "--averaged")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "micro, nano" in done.stderr
    assert not list(tmp_path.glob("no.onnx*"))
