"""Files of one answer, as a comparison's or an image's explained: all are of the same, or none."""

import resource

import pytest
import tiny_training
from compared_runs import run_of
from tiny_checkpoints import limit_of

from rice_jax import explanation, train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.prediction import predict
from rice_jax.report import comparison
from rice_jax.run import Run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def comparing(tmp_path):
    """Compares one of two runs."""
    runs = [run_of(tmp_path / name, name, 900, 100) for name in ("cnn", "googlenet")]
    return lambda which, out: comparison.compare([str(runs[which])], str(out))


@pytest.fixture
def explaining(tmp_path):
    """Explains one of two images."""
    run, source = Run(tmp_path / "run"), tiny_training.Images(2, seed=5)
    run.create()
    config = tiny_training.config(epochs=1)
    run.write_json("config.json", {"config": to_json(config), "data": None})
    train.train(config, run, tiny_training.dataset())
    trained = train.load(run)

    def explain(which, out):
        image = tmp_path / f"{which}.png"
        image.write_bytes(source[which]["image"])
        (said,) = predict(trained, [str(image)])
        explanation.into(str(out), run)(trained, said)

    return explain


@pytest.mark.parametrize("answering", ["comparing", "explaining"])
def test_a_disk_that_fills_up_leaves_what_was_there(answering, request, tmp_path):
    answer, out = request.getfixturevalue(answering), tmp_path / "out"
    answer(0, tmp_path / "first")
    first = contents(tmp_path / "first")
    for before in ({}, first):
        out.mkdir(exist_ok=True)
        for name, content in before.items():
            (out / name).write_bytes(content)
        with (
            limit_of(resource.RLIMIT_FSIZE, max(map(len, first.values())) // 2),
            pytest.raises(UserError, match=r"cannot write .*out/.*: File too large"),
        ):
            answer(1, out)
        assert contents(out) == before
    answer(1, out)
    assert contents(out).keys() == first.keys()
    assert contents(out) != first
