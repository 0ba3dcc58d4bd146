"""A configuration out of a file of one's own, whatever stands in it, and fields set over it."""

import sys
from pathlib import Path

import pytest

from rice_jax import config as configuration
from rice_jax.commands import named, settings

ROOT = Path(__file__).parents[1]


def test_a_file_s_name_may_have_colons(tmp_path):
    folder = tmp_path / "at 12:30"
    folder.mkdir()
    source = (ROOT / "configs" / "final.py").read_text()
    (folder / "a:b.py").write_text(source.replace("get_config(", "get_config(name='x:y', more=''"))
    for argument in ("", ":z", ":1:2"):
        assert named.load(f"{folder / 'a:b.py'}{argument}").model.name == "final"


def test_a_file_s_dataclasses_may_have_annotations_as_text(tmp_path):
    """As `from __future__ import annotations` makes them: they are looked up in its module."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from rice_jax.config import default\n"
        "@dataclasses.dataclass\n"
        "class Mine:\n"
        "    net: str = 'cnn'\n"
        "def get_config():\n"
        "    return default(Mine().net)\n"
    )
    assert named.load(str(file)).model.name == "cnn"


@pytest.mark.parametrize("beside", ["my_widths.py", "my_widths/__init__.py"])
def test_a_file_imports_what_lies_beside_it(beside, tmp_path, monkeypatch):
    """From wherever it is called, and a file there hides no installed package."""
    folder = tmp_path / "nets"
    (folder / beside).parent.mkdir(parents=True)
    (folder / beside).write_text("DENSE = 3\n")
    (folder / "optax.py").write_text("raise SystemError\n")
    (folder / "mine.py").write_text(
        "import optax\n"
        "from my_widths import DENSE\n"
        "from rice_jax.config import default\n"
        "def get_config():\n"
        "    config = default('cnn')\n"
        "    config.model.dense = DENSE\n"
        "    return config\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "optax", raising=False)
    try:
        assert named.load("nets/mine.py").model.dense == 3
    finally:
        sys.modules.pop("my_widths", None)


def test_a_frozen_configuration_takes_fields_as_any_other(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ml_collections import FrozenConfigDict\n"
        "from rice_jax.config import default\n"
        "def get_config():\n"
        "    return FrozenConfigDict(default('cnn'))\n"
    )
    config, _ = settings.chosen(str(file), None, ["--config.model.dense=3"])
    assert config.model.dense == 3


@pytest.mark.parametrize("text", ["1k,1e1", "1_000, 10", "(1000, 10)", "[1000, 10]"])
def test_several_numbers_are_read_in_any_notation(text):
    config = configuration.default("final")
    fields = [f"--config.train.quick.epochs={text}"]
    assert settings.set_fields(config, fields, configuration.FIELDS)
    assert config.train.quick.epochs == (1000, 10)
