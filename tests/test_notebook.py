"""The Colab notebook, run whole on stand-in images: every cell as a person would."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
OPTIONS = (
    "--config.data.path=synthetic --config.data.image_size=32 --config.data.synthetic_per_class=10 "
    "--config.train.epochs=1 --config.train.batch_size=16 --config.data.cache_dir=cache "
    "'--config.model.stages=((4,),)'"
)
AS_ANYBODY = ["-c", "user.name=A", "-c", "user.email=a@example.org"]


def executed(tmp_path):
    """The notebook after all its cells ran in `tmp_path`, which has the repository's configs."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    notebook = nbformat.read(ROOT / "scripts" / "colab_tpu.ipynb", as_version=4)
    nbformat.validate(notebook)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    return notebook


@pytest.mark.thorough
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    for name, value in {
        "RICE_JAX_OPTIONS": OPTIONS,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XLA_FLAGS": quick,
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }.items():
        monkeypatch.setenv(name, value)
    cells = executed(tmp_path).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    # Curves, two confusion matrices, the convolution, dead filters, FLOPs, three comparisons.
    assert len(pictures) == 3 + 1 + 1 + 1 + 3
    [words] = [o["data"]["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    assert "drawn grains, on which no net shows what it is worth" in words
    assert "Synthetic data" in words
    printed = "".join(o["text"] for o in outputs if o["output_type"] == "stream")
    assert "error" not in printed.lower()
    assert printed.count("conv1 (Conv)") == 2  # in the profiles of two nets


def test_the_set_up_again_finds_its_folder_again(tmp_path, monkeypatch):
    """Run once more, in whatever folder the kernel is by then, it neither nests nor clones anew."""
    repository, content = tmp_path / "repository", tmp_path / "content"
    (repository / "rice_jax").mkdir(parents=True)
    (repository / "rice_jax" / "__init__.py").touch()  # a package of the repository's own name
    (repository / "pyproject.toml").touch()
    content.mkdir()
    for words in (["init", "--quiet"], ["add", "."], [*AS_ANYBODY, "commit", "--quiet", "-m", "."]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    cells = nbformat.read(ROOT / "scripts" / "colab_tpu.ipynb", as_version=4).cells
    [set_up] = [cell.source for cell in cells if "git clone" in cell.source]
    places = []
    monkeypatch.chdir(content)
    for _ in range(2):
        for line in map(str.strip, set_up.replace("/content", str(content)).splitlines()):
            if line.startswith("%cd "):
                os.chdir(line.removeprefix("%cd "))
            elif "git clone" in line:
                command = line.removeprefix("!").replace("{REPOSITORY}", f"file://{repository}")
                subprocess.run(command, shell=True, check=True)
            elif line.startswith("!pip"):
                assert Path("pyproject.toml").exists()
        places.append(Path.cwd())
    assert places == [content / "rice_jax"] * 2
