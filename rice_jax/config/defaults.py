"""Every field's default, meaning and bounds."""

from collections.abc import Mapping
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
)

if TYPE_CHECKING:
    import ml_collections


_COUNT = Whole(1, 1_000_000)
_EPOCHS = Whole(1, MOST_EPOCHS)
_RATE = Real(0, 1e6, above=True)

FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "seed": Field(0, "decides weights, order, augmentation and splits", Whole(0, 2**31 - 1)),
        "model.weights": Field(
            "",
            "a Keras .keras or .h5 (a whole model or weights alone), a Flax checkpoint (.msgpack, "
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
            "steps: it begins again with the next seed (5 times at most, by the quick schedule at "
            "half the rate each time), stops, or goes on with a warning",
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


def split_seed(config: "ml_collections.ConfigDict") -> int:
    """What decides the splits: runs that differ in config.seed alone may share their images."""
    chosen = config.data.split_seed
    return config.seed if chosen < 0 else chosen


def set_epochs(config: "ml_collections.ConfigDict", epochs: int) -> None:
    """Let training take so many epochs by either schedule, all on images of the whole size."""
    config.train.epochs = epochs
    config.train.quick.update(shrink=(1,), epochs=(epochs,))
