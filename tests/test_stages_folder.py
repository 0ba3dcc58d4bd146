"""A folder evaluated in the test split's place, where something is wrong with the run's images."""

import data_files
import pytest
from small_run import read, small

from rice_jax.stages import run_stages

pytestmark = pytest.mark.usefixtures("drawn_small")


def test_a_folder_s_accuracy_is_kept_where_the_run_s_own_images_cannot_be_read(tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "run"
    run_stages(small("cnn_light", cache, **{"train.epochs": 1}), str(run), ["train"])
    [shard] = cache.glob("*-0/rice_image_dataset/*.*.*/*train*")
    content = bytearray(shard.read_bytes())
    place = content.index(b"JFIF")
    content[place : place + 60] = bytes(60)
    shard.write_bytes(content)
    classes = ("Arborio", "Basmati")
    where = data_files.write_folder(tmp_path / "mine", data_files.pictures(3, classes))
    fields = {"train.epochs": 1, "eval.path": str(where)}
    run_stages(small("cnn_light", cache, **fields), str(run), ["evaluate"])
    evaluation = read(run, "evaluation.json")
    assert evaluation["clean"]["images"] == 6
    assert "in_training" not in evaluation
