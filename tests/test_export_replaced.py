"""A file that a new export was to replace, where the new one cannot be written."""

import functools
import resource
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny_training
from tiny_checkpoints import limit_of

from rice_jax import train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.export import artifact, exporting
from rice_jax.run import Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
NEEDED = {".stablehlo": "jax", ".onnx": "jax2onnx", ".tflite": "litert_converter"}


def on_a_full_disk(write, part):
    """The same write where no file whose name has this part can have a byte; all else goes on."""

    @functools.wraps(write)
    def written(run, partial, content):
        with limit_of(resource.RLIMIT_FSIZE, 0) if part in partial.name else nullcontext():
            return write(run, partial, content)

    return written


@pytest.mark.parametrize("suffix", NEEDED)
def test_a_file_and_what_stands_beside_it_are_replaced_both_or_none(suffix, tmp_path, monkeypatch):
    pytest.importorskip(NEEDED[suffix])
    run, config = Run(tmp_path / "run"), tiny_training.config()
    run.create()
    run.write_json("config.json", {"config": to_json(config), "data": None})
    image = jnp.zeros((1, tiny_training.SIZE, tiny_training.SIZE, 3))
    params = train.build(config).init(jax.random.key(0), image)["params"]
    train.begin(config, run, tiny_training.dataset(), params)
    out = tmp_path / f"net{suffix}"
    exporting.write(run, str(out))
    there = {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
    for part in (out.name, f"{out.name}.json"):
        with monkeypatch.context() as patched:
            patched.setattr(Run, "_write_beside", on_a_full_disk(Run._write_beside, part))
            with pytest.raises(UserError, match=rf"cannot write .*{part}: File too large"):
                exporting.write(run, str(out))
        left = {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
        assert left == there
    assert artifact.read(str(out)).about["net"] == config.model.name
    out.write_bytes(b"of another")
    assert exporting.write(run, str(out)).bytes == len(Path(out).read_bytes())
