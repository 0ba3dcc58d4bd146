"""Files that a run's net is exported to: written, read back, evaluated on the run's images."""

import contextlib
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import commands
import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny_training
from data_files import picture, write_folder
from markdown_it import MarkdownIt

from rice_jax import data, evaluate, export, models, train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.export import accuracy, artifact, exporting, litert, microcontroller, runtimes
from rice_jax.run import Run
from rice_jax.train.prepared import Images

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
NEEDED = {
    "net.stablehlo": (),
    "net.onnx": ("jax2onnx", "onnxruntime"),
    "net.tflite": ("litert_converter",),
    "int8.onnx": ("jax2onnx", "onnxruntime"),
    "int8.tflite": ("litert_converter", "ai_edge_quantizer"),
}
WHOLE = ["net.stablehlo", "net.onnx", "net.tflite"]
INT8 = ["int8.onnx", "int8.tflite"]


class Gelu(nn.Module):
    """A net that LiteRT has and tflite-micro has not."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x, train=False):
        return nn.gelu(x)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with random parameters."""
    run = Run(tmp_path_factory.mktemp("run"))
    config = tiny_training.config()
    config.seed = 3
    run.write_json("config.json", {"config": to_json(config), "data": None})
    params = models.build("final", **{k: config.model[k] for k in ("stages", "dense")}).init(
        jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32)
    )["params"]
    train.begin(config, run, tiny_training.dataset(), params)
    return run


@pytest.fixture(scope="module")
def file(run):
    """f(name): the run's net as a file, made on first use; what was written and said about it."""
    made = {}

    def make(name):
        for package in NEEDED[name]:
            pytest.importorskip(package)
        if name not in made:
            path = Path(run.path, "new folder", name)
            images = None
            if name in INT8:
                source = tiny_training.dataset(20).splits["train"]
                images = Images(tiny_training.config(), source)
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exporting.tell(exporting.write(run, str(path), images))
            made[name] = path, said.getvalue()
        return made[name]

    return make


def about(path):
    return json.loads(Path(f"{path}.json").read_text())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of class folders."""
    source = tiny_training.dataset(100).splits["test"]
    records = (source[index] for index in range(len(source)))
    return write_folder(
        tmp_path_factory.mktemp("photographs"),
        {f"{tiny_training.CLASSES[r['label']]}/{r['name']}": r["image"] for r in records},
    )


@pytest.fixture(scope="module")
def expected(run, photographs):
    """What the run itself comes to."""
    trained = train.load(run)
    return {
        kind: evaluate.evaluate(
            trained.module,
            trained.params,
            data.folder(photographs, trained.classes),
            classes=trained.classes,
            image_size=tiny_training.SIZE,
            batch_size=7,
            augment_seed=seed,
        )
        for kind, seed in (("clean", None), ("augmented", 3))
    }


def test_the_command_writes(run, tmp_path):
    out = tmp_path / "new" / "net.stablehlo"
    done = commands.run("export", f"--workdir={run}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    told, trained = about(out), train.load(run)
    assert told["params"] == sum(leaf.size for leaf in jax.tree.leaves(trained.params))
    assert f"{told['params']:,} parameters" in done.stdout
    assert f"study {told['flops']['study']:,}" in done.stdout
    assert f"{out.stat().st_size:,} bytes" in done.stdout


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_and_what_is_told_of_it(name, file):
    path, said = file(name)
    told = about(path)
    assert told["classes"] == list(tiny_training.CLASSES)
    assert told["images"] == tiny_training.config().data.path  # where it can be evaluated
    assert told["bytes"] == path.stat().st_size
    assert told["max_abs_logit_difference"] < 1e-5
    if convolution := {".onnx": "Conv", ".tflite": "CONV_2D"}.get(path.suffix):
        assert convolution in told["operators"]
        assert f"operators: {', '.join(told['operators'])}\n" in said
    runtime = artifact.RUNTIMES[path.suffix]
    if runtime != "JAX":
        assert set(told["latency_seconds"]) == {runtime, "rice_jax"}
        for seconds in told["latency_seconds"].values():
            assert 0 < seconds["p10"] <= seconds["median"] <= seconds["p90"]
        assert f"in {runtime}" in said
    read = artifact.read(str(path))
    assert {key: told[key] for key in read.about if key != "sha256"}.items() <= read.about.items()
    assert (read.about["image_size"], read.about["seed"]) == (tiny_training.SIZE, 3)
    assert "no antialiasing" in read.about["resizing"]


@pytest.mark.parametrize("name", [*WHOLE, *INT8])
def test_a_file_is_evaluated_as_its_run_is(name, file, photographs, expected):
    path, _ = file(name)
    done = commands.run("evaluate", f"--artifact={path}", f"--config.eval.path={photographs}")
    assert done.returncode == 0, done.stderr
    told = about(path)
    for kind in ("clean", "augmented"):
        found = told["evaluation"][kind]
        if name in WHOLE:
            assert found["confusion_matrix"] == expected[kind].confusion_matrix
        # In int8 the loss stays near, where the logits' spread is of a few units.
        near = 1e-5 if name in WHOLE else 0.05
        assert found["loss"] == pytest.approx(expected[kind].loss, rel=near)
        assert f"  {found['accuracy']:.4f}" in done.stdout
    assert len(told["evaluation"]["fingerprint"]) == 16  # by which it is one test with a run's
    assert told["evaluation"]["clean"]["loss"] != told["evaluation"]["augmented"]["loss"]
    assert told["params"] > 0  # what the export told stays
    assert told["latency_seconds"][artifact.RUNTIMES[path.suffix]]["median"] > 0
    assert f"{told['precision']}" in done.stdout
    if path.suffix == ".tflite":
        measured = told["micro"]
        assert measured["flash_bytes"] == told["bytes"] == path.stat().st_size
        assert measured["identical"] == measured["images"] == 20
        # The image is one of the arena's tensors, of one byte or four a number.
        pixel = 4 if name in WHOLE else 1
        assert measured["arena_bytes"] > pixel * 3 * tiny_training.SIZE**2


def test_an_int8_tflite_takes_pixels_less_128(file):
    path, said = file("int8.tflite")
    net = litert.interpreter(path.read_bytes())
    (source,), (target,) = net.get_input_details(), net.get_output_details()
    assert source["dtype"] is target["dtype"] is np.int8
    assert source["quantization"] == (pytest.approx(1 / 255), -128)
    assert about(path)["input"] == "images: int8 (1, 16, 16, 3), RGB - 128, one at a time"
    assert "the same class as in float32: " in said
    path, said = file("int8.onnx")  # whose operators outweigh so small a net's weights
    assert f"larger than in float32, {about(path)['float32_bytes']:,} bytes" in said


@pytest.mark.parametrize("name", ["net.pt", "net", ".onnx"])
def test_unknown_kind_of_file(name, run, tmp_path):
    with pytest.raises(
        UserError, match=r"a file's name that ends in \.stablehlo, \.onnx, \.tflite"
    ):
        exporting.write(run, str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_net_that_computes_something_else_is_not_written(run, tmp_path, monkeypatch):
    trained = train.load(run)
    other = jax.tree.map(lambda leaf: leaf + 1, trained.params)
    wrong = export.to_stablehlo(trained.module, other, 16)
    monkeypatch.setattr(export, "to_stablehlo", lambda *_: wrong)
    with pytest.raises(UserError, match="differ"):
        exporting.write(run, str(tmp_path / "net.stablehlo"))
    assert not list(tmp_path.iterdir())


def changed(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_is_told(name, file, tmp_path):
    whole, _ = file(name)
    copy = tmp_path / whole.name
    shutil.copy(f"{whole}.json", f"{copy}.json")
    content = whole.read_bytes()
    random = np.random.default_rng(0).integers(len(content), size=20)
    damaged = [changed(content, place) for place in random]
    for wrong in (*damaged, content[:-1], content + b"\0", b"", b"TFL3", content[::-1]):
        copy.write_bytes(wrong)
        with pytest.raises(UserError, match="is damaged, or"):
            artifact.read(str(copy))
    copy.write_bytes(content)
    assert artifact.read(str(copy)).about["classes"] == list(tiny_training.CLASSES)


OPENED_BY = {
    "net.stablehlo": (jax.export, "deserialize"),
    "net.onnx": (runtimes, "onnx_session"),
    "net.tflite": (runtimes, "interpreter"),
}


@pytest.mark.parametrize("name", OPENED_BY)
def test_a_file_is_opened_once(name, file, monkeypatch):
    path, calls = str(file(name)[0]), []
    where, function = OPENED_BY[name]
    opens = getattr(where, function)
    monkeypatch.setattr(where, function, lambda *a, **k: (calls.append(name), opens(*a, **k))[1])
    assert artifact.read(path).about["image_size"] == tiny_training.SIZE
    assert calls == [name]


def test_a_net_of_another_maker_is_told(tmp_path):
    pytest.importorskip("litert_converter")
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(export.to_tflite(Gelu(), {}, 4))
    with pytest.raises(UserError, match="was not written by rice_jax"):
        artifact.read(str(foreign))


def test_stablehlo_needs_what_stands_beside_it(file, tmp_path):
    whole, _ = file("net.stablehlo")
    copy = shutil.copy(whole, tmp_path)
    with pytest.raises(UserError, match=r"net\.stablehlo\.json is missing, .* or export again"):
        artifact.read(str(copy))
    digest = {"sha256": hashlib.sha256(whole.read_bytes()).hexdigest()}
    for wrong, line in (
        ([], "of another file"),
        (digest, "does not tell its net"),
        (about(whole) | {"classes": "five"}, "does not tell its classes"),
        (about(whole) | {"classes": [1, 2, 3, 4, 5]}, "its classes are no names"),
        (about(whole) | {"classes": ["rye"] * 5}, "or two are the same"),
        (about(whole) | {"image_size": 1.5}, "does not tell its image_size"),
        (about(whole) | {"image_size": 224}, r"of 16 x 16 and .* 5 classes .* says 224 and 5"),
        (about(whole) | {"classes": ["rye"]}, r"of 16 x 16 and .* 5 classes .* says 16 and 1:"),
    ):
        Path(f"{copy}.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=line):
            artifact.read(str(copy))


def test_what_is_told_of_another_file_by_that_name_is_not_taken_over(file, tmp_path, photographs):
    config = tiny_training.config()
    config.eval.path = str(photographs)
    copy = Path(shutil.copy(file("net.onnx")[0], tmp_path))
    of_it = about(file("net.onnx")[0])
    for digest, stays in (("0" * 64, False), (of_it["sha256"], True)):
        Path(f"{copy}.json").write_text(json.dumps(of_it | {"params": 7, "sha256": digest}))
        opened = artifact.read(str(copy))
        accuracy.record(opened, accuracy.evaluate(opened, config))
        assert about(copy)["sha256"] == of_it["sha256"]
        assert about(copy).get("params") == (7 if stays else None)


def test_what_is_damaged_beside_a_file_is_told_before_any_is_evaluated(file, tmp_path):
    first, second = (tmp_path / name for name in ("a.onnx", "b.onnx"))
    for path in (first, second):
        shutil.copy(file("net.onnx")[0], path)
    Path(f"{second}.json").write_text("{")
    done = commands.run("evaluate", f"--artifact={first},{second}")
    assert done.returncode == 1
    assert "cannot read" in done.stderr
    assert "evaluating" not in done.stdout + done.stderr
    assert not Path(f"{first}.json").exists()


def test_fields_that_have_no_part_in_an_export_are_refused(run, tmp_path):
    others = ("model.classes=7", "data.keep_decoded=true", "data.split_seed=9", "seed=1")
    for field in ("data.image_size=64", f"eval.path={tmp_path}", *others):
        done = commands.run("export", f"--workdir={run}", "--out=x.onnx", "--int8",
                            f"--config.{field}")  # fmt: skip
        assert done.returncode == 1
        assert f"--config.{field.partition('=')[0]} has no part in an export" in done.stderr


@pytest.mark.parametrize("name", ["net.stablehlo", "net.onnx"])
def test_a_file_that_its_runtime_does_not_read_is_a_line(name, file, tmp_path, monkeypatch):
    """As one that newer packages wrote."""

    def newer(content):
        raise RuntimeError("Opset 99 is under development\nand more")

    path, _ = file(name)
    opening = "exported" if name.endswith("hlo") else "onnx_session"
    monkeypatch.setattr(artifact.runtimes, opening, newer)
    with pytest.raises(UserError, match=r"cannot be read by .* here: Opset 99 .*; newer packages"):
        artifact.read(str(path))


def test_images_of_other_classes_are_told(file, monkeypatch):
    opened = artifact.read(str(file("net.stablehlo")[0]))
    other = tiny_training.dataset()
    other.classes, other.name = ("oats", "rye"), "grain"
    monkeypatch.setattr(accuracy, "load_images", lambda config: other)
    with pytest.raises(
        UserError, match=r"one for Arborio, .*; the images are of oats, rye \(grain\).*data\.path"
    ):
        accuracy.evaluate(opened, tiny_training.config())


@pytest.mark.parametrize(
    ("name", "line"), [("nothing.onnx", "No such file"), ("net.pt", "no exported net")]
)
def test_what_is_no_file_or_of_no_format_is_told(name, line):
    done = commands.run("evaluate", f"--artifact={name}")
    assert done.returncode == 1
    assert line in done.stderr
    assert name in done.stderr
    assert done.stderr.count("\n") == 1


DOCS = MarkdownIt().parse((Path(__file__).parents[1] / "docs" / "export.md").read_text())
READERS = [token.content for token in DOCS if token.info == "python"]
AS_INT8 = next(
    part
    for token in DOCS
    for part in re.findall(r"takes `(np\.int8.*?)` instead of the division", token.content)
)


def reader(name):
    """The docs' way to read such a file."""
    whole = name.replace("int8", "net")
    found = next(text for text in READERS if f'"{whole}"' in text).replace(whole, name)
    integers = name == "int8.tflite"
    return found.replace("np.float32(image[None]) / 255", AS_INT8) if integers else found


@pytest.mark.parametrize("name", [*WHOLE, *INT8])
def test_the_readers_of_the_docs_read_it(name, file, tmp_path, monkeypatch):
    path, _ = file(name)
    for each in (path, Path(f"{path}.json")):
        shutil.copy(each, tmp_path)
    monkeypatch.chdir(tmp_path)
    photograph = picture(shade=170, size=30, suffix=".jpg")
    Path("photo.jpg").write_bytes(photograph)
    said, names = io.StringIO(), {}
    with contextlib.redirect_stdout(said):
        exec(reader(name), names)
    opened = artifact.read(name)
    pixels = data.decode(photograph, tiny_training.SIZE)
    logits = opened.net(pixels[None].astype(np.float32) / 255)
    assert said.getvalue().strip() == tiny_training.CLASSES[int(logits.argmax())]
    assert np.unique(names["logits"]).size > 1
    assert len(reader(name).splitlines()) <= 13


def test_an_operation_that_tflite_micro_lacks_is_told():
    pytest.importorskip("tflite_micro")
    content = export.to_tflite(Gelu(), {}, 4)
    found = microcontroller.measure(content, [np.zeros((4, 4, 3), np.float32)])
    assert found == {"flash_bytes": len(content), "lacks": "GELU"}
