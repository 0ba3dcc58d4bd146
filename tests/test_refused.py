"""A command that is refused leaves nothing where nothing was."""

import commands
import pytest
import tiny_training

from rice_jax.stages import run_stages

IMAGES = ("--config.data.path=synthetic", "--config.data.synthetic_per_class=10")
OTHERS = ("--config.data.path=synthetic", "--config.data.synthetic_per_class=12")
SIZE = f"--config.data.image_size={tiny_training.SIZE}"
SMALLER = ("prune", "--workdir=run", "--images=clean", "--out=OUT")
BY_WEIGHT = (*SMALLER, "--criterion=l1")
FINAL = ("train", "--config=final", *IMAGES, SIZE, "--workdir=OUT")
NO_LAYER = "no layer is called 'nothing'"

NO_MORE = "or RICE_IMAGE_DATASET)\n"
"""How images that are not the run's are refused, where no others can be evaluated instead."""

REFUSED = {
    "prune, only a layer": ((*SMALLER, "--drop=dead", "--only=nothing"), "only=nothing"),
    "prune, budget": ((*BY_WEIGHT, "--max_flops=1"), "budget of 1 cannot be met"),
    "prune, block": ((*SMALLER, "--drop_layers=nothing"), "--drop_layers=nothing"),
    "prune, images": ((*BY_WEIGHT, "--max_filters=2", *OTHERS), NO_MORE),
    "prune, seeds": (
        (*BY_WEIGHT, "--max_filters=2", "--finetune_epochs=1", "--seeds=1,2", "--only=nothing"),
        "only=nothing",
    ),
    "suggest, images": ((*BY_WEIGHT, "--suggest", *OTHERS), NO_MORE),
    "lighten, images": (("lighten", "--workdir=run", "--out=OUT", *OTHERS), NO_MORE),
    "compare": (("compare", "--workdirs=run,run", "--out=OUT"), "is given twice"),
    "export, images": (
        ("export", "--workdir=run", "--int8", "--out=OUT/net.onnx", *OTHERS),
        NO_MORE,
    ),
    "predict": (("predict", "--workdir=run", "--explain=OUT", "run/report.md"), "could not be"),
    "reproduce, sizes": (
        (
            *("reproduce", "--nets=final", *IMAGES, SIZE, "--out=OUT"),
            *("--config.train.schedule=quick", "--config.train.quick.shrink=99,1"),
        ),
        "images of 0 x 0 pixels",
    ),
    "train, frozen": ((*FINAL, "--config.train.frozen=nothing"), NO_LAYER),
    "train, weights": ((*FINAL, "--config.model.weights=run"), "is of another net"),
    "train, no weights": ((*FINAL, "--config.model.weights=run/report.md"), "report.md"),
    "evaluate": ((*FINAL, "--stages=evaluate"), "config.json is missing"),
    "profile": ((*FINAL, "--stages=profile", "--config.train.frozen=nothing"), "'nothing'"),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a trained run."""
    here = tmp_path_factory.mktemp("here")
    config = tiny_training.config(epochs=1)
    config.data.update(path="synthetic", synthetic_per_class=10, cache_dir=str(here / "cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        run_stages(config, "run", ["train"])
    return here


@pytest.mark.usefixtures("drawn_small")
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_command_leaves_nothing(name, here, tmp_path, monkeypatch):
    monkeypatch.chdir(here)
    given, said = REFUSED[name]
    arguments = [each.replace("OUT", str(tmp_path / "new" / "out")) for each in given]
    if any("--config.data" in each for each in given):
        arguments.append(f"--config.data.cache_dir={here / 'cache'}")
    done = commands.run(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert not list(tmp_path.rglob("*"))
