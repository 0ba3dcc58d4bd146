"""A mistake on the command line is one clear line and exit status 1."""

import json

import commands
import pytest

from rice_jax import cli
from rice_jax import config as configuration
from rice_jax.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=configs/final.py", "--config.train.epochz=3"], "epochz"),
        (["--config=configs/final.py", "--config.train.epochs=many"], "many"),
        (["--config=configs/nothing.py"], "configs/nothing.py: there is no such file"),
        (["--confg=configs/final.py"], "confg"),
        (
            ["--config=configs/final.py", "--stages=train,dance"],
            "train, evaluate, profile, inspect",
        ),
        ([], "--config is missing"),
    ],
)
def test_wrong_flags_are_named_in_one_line(arguments, said, tmp_path):
    result = commands.run("main", *arguments, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 1
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"config": {"model": {"name": "resnet"}}}'])
def test_a_damaged_configuration_of_a_run_is_one_line(content, tmp_path, capsys):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(SystemExit) as exit_:
        cli.define_config(["main.py", f"--workdir={tmp_path}"])
    assert exit_.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert f"{tmp_path}/config.json" in line


def test_a_section_that_a_saved_configuration_lacks_is_named_in_one_line(tmp_path):
    saved = {"config": configuration.to_json(configuration.default("final"))}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    result = commands.run("main", f"--workdir={tmp_path}", "--config.modle.dense=2")
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: --config.modle.dense=2: there is no such field.")


def test_help_names_the_flags():
    result = commands.run("main", "--help")
    assert "--workdir" in result.stdout
    assert "--stages" in result.stdout
    assert "goes on where the run" in result.stdout


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("two\nlines"), 1, "error: two lines"),
        (OSError(28, "No space left on device", "runs/x"), 1, "runs/x: No space left on device"),
        (KeyboardInterrupt(), 130, "goes on"),
    ],
)
def test_what_a_user_can_mend_has_no_traceback(error, status, said, capsys, monkeypatch):
    def main(argv):
        raise error

    monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: main(["name"]))
    monkeypatch.setattr(cli.backend, "configure", lambda: None)
    with pytest.raises(SystemExit) as exit_:
        cli.run(main)
    assert exit_.value.code == status
    said_lines = capsys.readouterr().err.splitlines()
    assert len(said_lines) == 1
    assert said in said_lines[0]
