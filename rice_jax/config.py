"""Configurations: every field's default, meaning and bounds; to JSON and back.

The defaults are the study's recipe. A net's own fields, `config.model`, are in nets.py.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rice_jax import nets
from rice_jax.bounds import (
    MOST_EPOCHS,
    Field,
    Place,
    Real,
    Several,
    Switch,
    Text,
    Whole,
    Word,
    checked,
    nearest,
)
from rice_jax.errors import UserError

if TYPE_CHECKING:
    import ml_collections

    from rice_jax.records import ConfigFile
    from rice_jax.run import Run

_COUNT = Whole(1, 1_000_000)
_EPOCHS = Whole(1, MOST_EPOCHS)
_RATE = Real(0, 1e6, above=True)

FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "seed": Field(0, "decides weights, order, augmentation and splits", Whole(0, 2**31 - 1)),
        "model.weights": Field(
            "",
            "a Keras .h5 (a whole model or weights alone), a Flax checkpoint (.msgpack, "
            ".safetensors, Orbax's folder: the layers that fit), a run's folder, zoo:NAME for a "
            "net that comes with the package, 'random', or empty for the net's own beginning "
            "(random but for vgg16 and vgg_light; on the sample the zoo's net of this name)",
            Place("a path, zoo:NAME, 'random' or nothing", words=("random",), prefix="zoo:"),
        ),
        "data.path": Field(
            "",
            "the Kaggle zip, its unpacked folder or any folder of class folders; 'sample' for the "
            "package's photographs, 'synthetic' for drawn grains; empty for the path in "
            "RICE_IMAGE_DATASET, and without that for the sample",
            Place("a path, 'sample' or 'synthetic'", words=("sample", "synthetic")),
        ),
        "data.cache_dir": Field(
            "~/.cache/rice_jax", "folder of prepared images", Text("a path", may_be_empty=False)
        ),
        "data.image_size": Field(224, "height and width of images in pixels", Whole(1, 4096)),
        "data.split_seed": Field(-1, "decides the splits; -1 for seed", Whole(-1, 2**31 - 1)),
        "data.synthetic_per_class": Field(
            30, "grains of each class, where they are drawn", Whole(3, 1_000_000)
        ),
        "data.keep_decoded": Field(
            True,
            "keep decoded pixels on disk (1.8 GB for 12,000 images) where they fit comfortably",
            Switch(),
        ),
        "data.workers": Field(0, "threads that make batches; 0 for one a core", Whole(0, 1024)),
        "train.schedule": Field(
            "study",
            "'study': epochs, learning_rate, plateau_* and stop_patience; 'quick': the fields of "
            "quick instead, for people without hours",
            Word(("study", "quick")),
        ),
        "train.epochs": Field(
            50, "at most, of the study's schedule; on the sample fewer unless given", _EPOCHS
        ),
        "train.images": Field(
            0,
            "of the training split, evenly spread over it, that are learnt from; 0 for all",
            Whole(0, 1_000_000_000),
        ),
        "train.validation_images": Field(
            0,
            "of the validation split, evenly spread over it, that each epoch ends with; 0 for all",
            Whole(0, 1_000_000_000),
        ),
        "train.validation_augmented": Field(
            False,
            "the validation images are augmented as the test's are: the best epoch is so at that",
            Switch(),
        ),
        "train.batch_size": Field(64, "images in a step", _COUNT),
        "train.learning_rate": Field(1e-3, "of the study's schedule, as epochs", _RATE),
        "train.augment": Field(False, "train on augmented images", Switch()),
        "train.dtype": Field(
            "float32",
            "of activations, never of parameters; bfloat16 pays on GPU and TPU, not on CPU",
            Word(("float32", "bfloat16")),
        ),
        "train.initializer": Field(
            nets.AUTO,
            "how random kernels are drawn: 'own' as the net says (those here by Glorot's rule, as "
            "Keras draws), 'he' by He's, from which a net without normalisation learns sooner, "
            "'auto' by He's where the schedule is quick and the net one of those here",
            Word((nets.AUTO, nets.AS_THE_NET_SAYS, nets.HE)),
        ),
        "train.frozen": Field((), "paths of layers that do not learn", Several(Text("a path"))),
        "train.plateau_patience": Field(
            3, "epochs without a lower validation loss until the rate falls", _COUNT
        ),
        "train.plateau_factor": Field(
            0.2, "what the rate is then multiplied by", Real(0, 1, above=True)
        ),
        "train.plateau_min_delta": Field(1e-4, "how much lower counts as lower", Real(0, 1e6)),
        "train.stop_patience": Field(
            5, "epochs without a lower validation loss until training ends", _COUNT
        ),
        "train.quick.shrink": Field(
            (2, 1),
            "a net that averages its maps learns first from images of image_size / 2, then of the "
            "whole size; one that flattens them stays at the whole size",
            Several(Whole(1, 4096), 1, 100),
        ),
        "train.quick.epochs": Field(
            (4, 4), "epochs at each of these; more where images are few", Several(_EPOCHS, 1, 100)
        ),
        "train.quick.peak_rate": Field(
            4e-3, "the rate rises to it and falls to 0 as half a cosine", _RATE
        ),
        "train.quick.warmup": Field(
            0.05, "share of all steps in which it rises", Real(0, 1, below=True)
        ),
        "train.quick.weight_decay": Field(
            0.0, "AdamW's, on parameters named kernel alone", Real(0, 1e6)
        ),
        "train.teacher": Field(
            "",
            "a trained run's folder, or zoo:NAME, whose answers are learnt from beside the labels",
            Place("a run's folder, zoo:NAME or nothing", prefix="zoo:"),
        ),
        "train.distill.temperature": Field(
            4.0, "the logits of both nets are divided by it", Real(0, 1e3, above=True)
        ),
        "train.distill.weight": Field(
            0.5, "share of the teacher's answers in the loss; the labels have the rest", Real(0, 1)
        ),
        "train.on_collapse": Field(
            "restart",
            "what becomes of a net that no gradient reaches, or that rests at chance for 900 "
            "steps: it begins again with the next seed (5 times at most), stops, or goes on with "
            "a warning",
            Word(("restart", "stop", "warn")),
        ),
        "train.save_seconds": Field(120.0, "between checkpoints within an epoch", Real(0, 1e9)),
        "train.tensorboard": Field(
            False, "history.csv also as event files, in WORKDIR/tensorboard", Switch()
        ),
        "eval.path": Field(
            "", "a folder of class folders to evaluate instead of the test split", Place()
        ),
        "eval.batch_size": Field(64, "images at a time", _COUNT),
        "profile.device_flops_per_second": Field(
            1e12, "peak of the device that theoretical times are for", Real(0, 1e24, above=True)
        ),
        "profile.device_bytes_per_second": Field(
            1e11,
            "of its memory, which decides what bounds each layer",
            Real(0, 1e24, above=True),
        ),
        "profile.runtimes": Field(
            False, "one image is also timed in LiteRT and onnxruntime, exported to them", Switch()
        ),
    }
)
"""By name, as 'train.epochs'; all but those of config.model that are a net's own."""


def fields(net: str) -> dict[str, Field]:
    """Every field of the configuration of the net called `net`, by name, as 'model.dense'."""
    chosen = nets.get(net)
    own = {
        f"model.{name}": Field(chosen.widths[name], field.meaning, field.bounds)
        for name, field in chosen.fields.items()
    }
    name = Field(net, "the net", Word(nets.names()))
    recipe = {
        path: Field(value, FIELDS[path].meaning, FIELDS[path].bounds)
        for path, value in {"train.frozen": chosen.frozen, **chosen.recipe}.items()
    }
    return {"model.name": name} | own | {**FIELDS, **recipe}


def default(name: str) -> "ml_collections.ConfigDict":
    """The configuration of a net, one of `nets.names()`: the study's recipe, or the net's own."""
    import ml_collections

    nested: dict[str, Any] = {"seed": None, "model": {"name": None, "weights": None}}
    for path, field in fields(name).items():
        *sections, last = path.split(".")
        part = nested
        for section in sections:
            part = part.setdefault(section, {})
        part[last] = field.default
    return ml_collections.ConfigDict(nested).lock()


def check(config: "ml_collections.ConfigDict") -> None:
    """Hold every field against its bounds, and fields that depend on each other.

    Raises:
        UserError: a field that is missing, unknown or out of its bounds, by name, with what is
            allowed.
    """
    given = dict(_flat(config.to_dict()))
    known = fields(checked("config.model.name", given.get("model.name"), Word(nets.names())))
    for name in given.keys() - known.keys():
        near = nearest(name, known)
        raise UserError(
            f"config.{name}: there is no such field"
            + (f"; nearest is config.{near}" if near else "")
        )
    for name, field in known.items():
        if name not in given:
            raise UserError(f"config.{name} is missing: give {field.bounds}")
        checked(f"config.{name}", given[name], field.bounds)
    quick = config.train.quick
    if len(quick.shrink) != len(quick.epochs):
        raise UserError(
            f"config.train.quick.shrink={quick.shrink} and config.train.quick.epochs="
            f"{quick.epochs} differ in length: give each size its epochs, as "
            f"--config.train.quick.epochs={_one_for_each(quick.epochs, len(quick.shrink))}"
        )
    if (together := sum(quick.epochs)) > MOST_EPOCHS:
        raise UserError(
            f"config.train.quick.epochs are {together:,} together: give {MOST_EPOCHS:,} at most"
        )


def _one_for_each(epochs: Sequence[int], sizes: int) -> str:
    """So many of the epochs as there are sizes, the last of them again where they are too few."""
    return ",".join(str(number) for number in [*epochs, *[epochs[-1]] * sizes][:sizes])


def mistake(content: Mapping[str, Any]) -> str:
    """Which field of a configuration in JSON cannot be; '' for none.

    It may be of any version, which had other fields, and of a net that is not known here.
    """
    given = dict(_flat(_tuples(content)))
    for section in {name.rpartition(".")[0] for name in FIELDS}:
        if given.get(section) is not None:
            return f"config.{section} has no fields"
    if not isinstance(given.get("model.name"), str):
        return "config.model.name is missing"
    for name, field in FIELDS.items():
        if name in given and not name.startswith("model.") and not field.bounds.allows(given[name]):
            return f"config.{name} is not {field.bounds}"
    return ""


def idle(config: "ml_collections.ConfigDict", given: Iterable[str]) -> str:
    """Which of the fields given changes nothing in a training, and why; '' for none."""
    study = ("epochs", "learning_rate", "stop_patience")
    for name in given:
        part, _, last = name.partition(".")
        if part != "train":
            continue
        if config.train.schedule == "quick" and (last in study or last.startswith("plateau_")):
            instead = {"epochs": "quick.epochs", "learning_rate": "quick.peak_rate"}.get(last)
            other = f"--config.train.{instead}, or " if instead else ""
            return f"{name} changes nothing in the quick schedule: give {other}{_by('study')}"
        if config.train.schedule == "study" and last.startswith("quick."):
            return f"{name} changes nothing in the study's schedule: give {_by('quick')}"
        if not config.train.teacher and last.startswith("distill."):
            return f"{name} changes nothing without a teacher: give --config.train.teacher"
    return ""


def _by(schedule: str) -> str:
    return f"--config.train.schedule={schedule}"


def split_seed(config: "ml_collections.ConfigDict") -> int:
    """What decides the splits: runs that differ in config.seed alone may share their images."""
    chosen = config.data.split_seed
    return config.seed if chosen < 0 else chosen


def set_epochs(config: "ml_collections.ConfigDict", epochs: int) -> None:
    """Let training take so many epochs by either schedule, all on images of the whole size."""
    config.train.epochs = epochs
    config.train.quick.update(shrink=(1,), epochs=(epochs,))


def to_json(config: "ml_collections.ConfigDict") -> dict[str, Any]:
    """The configuration as plain JSON types."""
    return json.loads(config.to_json())


def from_json(content: Mapping[str, Any]) -> "ml_collections.ConfigDict":
    """The configuration that `to_json` wrote, lists turned back into tuples."""
    import ml_collections

    return ml_collections.ConfigDict(_tuples(content)).lock()


def read(run: "Run") -> "ConfigFile":
    """config.json of a run, its configuration as `to_json` gives it.

    Fields that an older version did not have get their defaults.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    from rice_jax.records import ConfigFile, made  # what only reads options need not wait

    content = run.read_json("config.json")
    _net_is_known(run, content)
    try:
        told = made(ConfigFile, content)
        full = completed(told.config)
        check(from_json(full))
        return dataclasses.replace(told, config=full)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{run.path / 'config.json'} is damaged: it is incomplete") from error
    except (UserError, ValueError) as error:
        raise UserError(f"{run.path / 'config.json'} is damaged: {error}") from error


def _net_is_known(run: "Run", content: Any) -> None:
    """UserError where the net has a name and is not known: the file need not be damaged."""
    try:
        name = content["config"]["model"]["name"]
    except (KeyError, TypeError):
        return
    if isinstance(name, str) and name not in nets.names():
        wanted = ": give the file of your own net, --config=FILE"
        if own := nets.names()[len(nets.NETS) :]:
            wanted = (
                f", nor {', '.join(own)}, which --config's file makes: that file has to call "
                "own_net.configuration for this net too, whichever it returns"
            )
        raise UserError(
            f"{run.path / 'config.json'}: config.model.name={name!r} is none of the package's"
            f"{wanted}; if it is none, this is damaged"
        )


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in JSON with all fields of this version: new ones have their defaults.

    Raises:
        ValueError: a field that there is not, or one of another kind.
    """
    given = _of_today(given)
    return _completed(given, to_json(default(given["model"]["name"])))


def _of_today(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What older versions called otherwise, or did without asking, in the fields of today."""
    train = {"initializer": nets.AS_THE_NET_SAYS, **given["train"]}
    if "stop_on_collapse" in train:
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


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _tuples(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _tuples(value) for key, value in content.items()}
    if isinstance(content, list):
        return tuple(_tuples(value) for value in content)
    return content
