"""The defaults that configs/*.py share: the study's recipe."""

import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from rice_jax import models
from rice_jax.errors import UserError
from rice_jax.run import Run

# What config.json says of the images, as far as stages rely on it.
_IMAGES = {"name": str, "synthetic": bool, "fingerprint": str, "classes": list}


def default(name: str) -> ml_collections.ConfigDict:
    """The study's configuration of the net called `name` (a key of `models.NETS`)."""
    net = models.get(name)
    config = ml_collections.ConfigDict(
        {
            "seed": 0,
            "model": {
                "name": name,
                # A Keras .h5 (a whole model or weights alone), a run's folder, 'zoo:NAME' for a net
                # that comes with the package, 'random', or '' for the study's own beginning (random
                # but for vgg16 and vgg_light); on the sample '' is the zoo's net of this name.
                "weights": "",
                **net.widths,
            },
            "data": {
                # The Kaggle zip, its unpacked folder or any folder of class folders; 'sample' for
                # the package's photographs, 'synthetic' for drawn grains; '' for the path in
                # RICE_IMAGE_DATASET, and without that for the sample.
                "path": "",
                "cache_dir": "~/.cache/rice_jax",
                "image_size": 224,
                "split_seed": -1,  # decides the splits; -1 for config.seed
                # Grains of each class, where they are drawn.
                "synthetic_per_class": 30,
                # Keep decoded pixels on disk (1.8 GB for 12,000 images) where they fit comfortably.
                "keep_decoded": True,
                "workers": 0,  # decoding threads; 0 for one a core
            },
            "train": {
                # 'study': the study's recipe, the fields from learning_rate to stop_patience.
                # 'quick': the fields of quick below instead; for people without hours.
                "schedule": "study",
                "epochs": 50,  # at most; of the study's schedule; on the sample: see first_run.py
                "batch_size": 64,
                "learning_rate": 1e-3,  # as epochs
                "augment": False,
                "dtype": "float32",  # or bfloat16: of activations, never of parameters
                "frozen": net.frozen,  # paths of layers that do not learn
                "plateau_patience": 3,
                "plateau_factor": 0.2,
                "plateau_min_delta": 1e-4,
                "stop_patience": 5,
                "quick": {
                    # A net that averages its maps learns first from images of image_size / 2, then
                    # of the whole size, so many epochs each; one that flattens them stays at the
                    # whole size. All are validated and tested at the whole size.
                    "shrink": (2, 1),
                    "epochs": (4, 4),
                    "peak_rate": 4e-3,  # the rate rises to it and falls to 0 as half a cosine
                    "warmup": 0.05,  # share of all steps in which it rises: 0 to below 1
                    "weight_decay": 0.0,  # AdamW's, on kernels alone: 0 or more
                },
                # What becomes of a net that no gradient reaches, or that rests at chance for 900
                # steps: 'restart' with the next seed (5 times at most), 'stop', or 'warn'.
                "on_collapse": "restart",
                "save_seconds": 120.0,  # between checkpoints within an epoch
                "tensorboard": False,  # history.csv also as event files, in WORKDIR/tensorboard
            },
            "eval": {
                "path": "",  # a folder of class folders to evaluate instead of the test split
                "batch_size": 64,
            },
            "profile": {
                # FLOP/s of the device that theoretical times are for: 1 TFLOP/s unless you know.
                "device_flops_per_second": 1e12,
                # Bytes/s of its memory, which decides what bounds each layer.
                "device_bytes_per_second": 1e11,
            },
        }
    )
    return config.lock()


def split_seed(config: ml_collections.ConfigDict) -> int:
    """What decides the splits: runs that differ in config.seed alone may share their images."""
    chosen = config.data.split_seed
    return config.seed if chosen < 0 else chosen


def set_epochs(config: ml_collections.ConfigDict, epochs: int) -> None:
    """Let training take so many epochs by either schedule, all on images of the whole size."""
    config.train.epochs = epochs
    config.train.quick.update(shrink=(1,), epochs=(epochs,))


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The configuration as plain JSON types."""
    return json.loads(config.to_json())


def from_json(content: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The configuration that `to_json` wrote, lists turned back into tuples."""
    return ml_collections.ConfigDict(_tuples(content)).lock()


def read(run: Run) -> dict[str, Any]:
    """What config.json of a run holds: 'config' as `to_json` gives it, 'data' (or None), and more.

    Fields that an older version did not have get their defaults.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    content = run.read_json("config.json")
    try:
        given, images = _renamed(content["config"]), content.get("data")
        known = to_json(default(given["model"]["name"]))
        for name, kind in _IMAGES.items() if images else ():
            if not isinstance(images[name], kind):
                raise ValueError(f"data.{name} is {images[name]!r}")
        return content | {"config": _completed(given, known), "data": images}
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{run.path / 'config.json'} is damaged: it is incomplete") from error
    except (UserError, ValueError) as error:
        raise UserError(f"{run.path / 'config.json'} is damaged: {error}") from error


def _renamed(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of older versions under their names of today."""
    if "stop_on_collapse" not in given["train"]:
        return given
    train = dict(given["train"])
    train["on_collapse"] = "stop" if train.pop("stop_on_collapse") else "warn"
    return {**given, "train": train}


def _completed(
    given: Mapping[str, Any], known: Mapping[str, Any], place: str = "config"
) -> dict[str, Any]:
    """All fields that are known, with the values given; ValueError where one cannot be."""
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"there is no {place}.{unknown[0]}")
    completed = {}
    for name, usual in known.items():
        value = given.get(name, usual)
        kinds = (float, int) if isinstance(usual, float) else (type(usual),)
        if isinstance(usual, Mapping):
            value = _completed(value, usual, f"{place}.{name}")
        elif type(value) not in kinds:
            raise ValueError(f"{place}.{name} is {value!r}")
        completed[name] = value
    return completed


def _tuples(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _tuples(value) for key, value in content.items()}
    if isinstance(content, list):
        return tuple(_tuples(value) for value in content)
    return content
