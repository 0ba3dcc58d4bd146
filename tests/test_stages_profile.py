"""The profile stage: a net counted and timed, without weights or images."""

import pytest
from small_run import read, small

from rice_jax import records
from rice_jax.errors import UserError
from rice_jax.stages import run_stages

pytestmark = pytest.mark.usefixtures("drawn_small")


def test_profile_tells_what_other_runtimes_take(tmp_path, capsys, monkeypatch):
    taken = {"LiteRT": records.Seconds(median=0.001), "onnxruntime": records.Seconds(median=1000.0)}
    lacking = {"onnxruntime": ".onnx needs a package that is not installed"}
    for found, why in ((taken, {}), ({"LiteRT": taken["LiteRT"]}, lacking)):
        monkeypatch.setattr("rice_jax.export.elsewhere.latencies", lambda *_, it=(found, why): it)
        settings = small("nano", tmp_path, **{"profile.runtimes": True})
        run_stages(settings, str(tmp_path / "nano"), ["profile"])
        told, time = capsys.readouterr().out, read(tmp_path / "nano", "profile.json")["time"]
        report = (tmp_path / "nano" / "report.md").read_text()
        faster = time["measured"]["from_host"] / 0.001
        assert {runtime: seconds["median"] for runtime, seconds in time["runtimes"].items()} == {
            runtime: seconds.median for runtime, seconds in found.items()
        }
        assert f"{faster:.2f} times as fast" in told
        assert f"LiteRT 1 ms ({faster:.2f} times as fast)" in report
        assert f"--workdir={tmp_path / 'nano'} --out=net.tflite" in told
        assert ("onnxruntime was not timed: .onnx needs a package" in told) == bool(why)


def test_times_are_told_in_units_that_fit(tmp_path, capsys, monkeypatch):
    measured = {"device": "cpu", "median": 0.0042, "p10": 0.004, "p90": 0.005, "from_host": 2.5}
    batch = {"repeats": 3, "compile_seconds": 1.0, "batch_size": 2, "images_per_second": 0.4}
    times = {**measured, "repeats": 3, "compile_seconds": 1.0, "throughput": batch}
    monkeypatch.setattr("rice_jax.profile.latency", lambda *_, **__: times)
    config = small("nano", tmp_path, **{"profile.device_flops_per_second": 2e9})
    run_stages(config, str(tmp_path / "nano"), ["profile"])
    told = capsys.readouterr().out
    assert "in theory at 2 GFLOP/s, 4.2 ms measured on cpu, 2.5 s with the way there" in told
    assert "0.4 images/s in batches of 2" in told


@pytest.mark.parametrize("name", ["final", "vgg16"])
@pytest.mark.one_in(2)
def test_profile_needs_neither_weights_nor_data(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RICE_IMAGE_DATASET", str(tmp_path / "nothing here"))
    run_stages(small(name, tmp_path), str(tmp_path / name), ["profile"])
    assert read(tmp_path / name, "profile.json")["totals"]["flops"]["study"] > 0
    assert (tmp_path / name / "report.md").is_file()


@pytest.mark.parametrize("field", ["device_flops_per_second", "device_bytes_per_second"])
def test_a_device_without_a_peak_is_refused_before_anything_is_done(field, tmp_path):
    config = small("cnn_light", tmp_path / "cache", **{f"profile.{field}": 0.0})
    with pytest.raises(UserError, match=rf"config\.profile\.{field}=0\.0: give a number above 0"):
        run_stages(config, str(tmp_path / "run"), ["train", "profile"])
    assert not (tmp_path / "run").exists()
