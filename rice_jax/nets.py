"""The nets by name: their widths as plain numbers, which layers stay frozen, and their recipe.

`models` makes Linen modules of them; whoever only asks for names or settings needs no JAX.
"""

import dataclasses
import itertools
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rice_jax.bounds import Field, Real, Several, Whole, Word
from rice_jax.errors import UserError

_IMAGENET = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_FILTERS = Whole(1, 65_536)
GRID = Field(0, "height and width that the image is averaged to; 0 for as it is", Whole(0, 4096))
"""Of any net."""
_CLASSES = Field(5, "classes that the head tells apart; the images decide", Whole(1, 100_000))


@dataclasses.dataclass(frozen=True)
class _Inception(Several):
    """Its six widths, of which one that ends a branch is above 0."""

    def __str__(self) -> str:
        return f"{super().__str__()}, the first, third, fifth and sixth not all 0"

    def allows(self, value: Any) -> bool:
        """Whether it has a branch."""
        return super().allows(value) and any(value[width] for width in (0, 2, 4, 5))


AUTO, AS_THE_NET_SAYS, HE = "auto", "own", "he"
"""Values of config.train.initializer."""

KINDS: Mapping[str, Mapping[str, Field]] = MappingProxyType(
    {
        "plain": {
            "stages": Field(
                (),
                "filters of each 3x3 convolution, a tuple for each stage that a pool ends",
                Several(Several(_FILTERS, 0, 100), 1, 100),
            ),
            "grid": GRID,
            "strides": Field(1, "stride of every convolution", Whole(1, 16)),
            "stem_stride": Field(
                0, "stride of the first convolution; 0 for that of every one", Whole(0, 16)
            ),
            "pooling": Field(
                "average", "what turns maps into features", Word(("average", "flatten"))
            ),
            "dense": Field(512, "units of the dense layer before the head", Whole(1, 1_000_000)),
            "dropout": Field(0.0, "share of units dropped in training", Real(0, 1, below=True)),
            "classes": _CLASSES,
        },
        "googlenet": {
            "grid": GRID,
            "stem_stride": Field(2, "stride of the 7x7 convolution", Whole(1, 16)),
            "stem": Field(
                (), "filters of the 7x7, the 1x1 and the 3x3 convolution", Several(_FILTERS, 3, 3)
            ),
            "inceptions": Field(
                (),
                "six widths of each inception (0: no such branch), a tuple for each stage",
                Several(Several(_Inception(Whole(0, 65_536), 6, 6), 0, 8), 1, 100),
            ),
            "dropout": Field(0.4, "share of units dropped in training", Real(0, 1, below=True)),
            "classes": _CLASSES,
        },
        "micro": {
            "grid": Field(56, "height and width that the image is averaged to", Whole(1, 4096)),
            "convolutions": Field(
                (), "filters of each 3x3 convolution of stride 2", Several(_FILTERS, 1, 100)
            ),
            "dense": Field(32, "units of the dense layer before the head", Whole(1, 1_000_000)),
            "classes": _CLASSES,
        },
    }
)
"""What a configuration may change of a net under config.model: the fields of its Linen class."""


@dataclasses.dataclass(frozen=True)
class Net:
    """A net of the study, or one that is lighter than all of them."""

    kind: str
    """A key of `KINDS`; `OWN` for a net of the user's own."""
    widths: Mapping[str, Any]
    """Fields of its kind: what a configuration may change under config.model."""
    frozen: tuple[str, ...] = ()
    """Paths of the layers that training leaves as they are."""
    needs_weights: bool = False
    """Whether the study starts from trained weights, so that random ones would be a mistake."""
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the configuration that are not as in the study's recipe, as 'train.augment'."""
    module: Any = None
    """Of a net of the user's own its class, Linen's or NNX's."""
    own_fields: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    output: Any = None
    """Which of several outputs of it are the logits, as `graph.call.Output` has it."""

    @property
    def fields(self) -> Mapping[str, Field]:
        """What a configuration may change of the net under config.model."""
        return KINDS[self.kind] if self.module is None else self.own_fields


def _net(kind: str, **widths: Any) -> Net:
    defaults = {name: field.default for name, field in KINDS[kind].items()}
    return Net(kind, MappingProxyType({**defaults, **widths}))


def _convs(last: int) -> tuple[str, ...]:
    return tuple(f"conv{number}" for number in range(1, last + 1))


_VGG16_STAGES = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)

_AUGMENTED = {
    "train.schedule": "quick",
    "train.augment": True,
    "train.validation_augmented": True,
    "train.validation_images": 2500,  # of many: to augment them all each time is slow on a CPU
    "train.batch_size": 128,
    "train.initializer": AS_THE_NET_SAYS,  # as their figures were measured
    "train.quick.peak_rate": 6e-3,
    "train.quick.warmup": 0.02,
    "train.quick.weight_decay": 1e-4,
}

NETS: Mapping[str, Net] = MappingProxyType(
    {
        "cnn": _net("plain", stages=((32,), (64,), (128,)), pooling="flatten", dense=128),
        "cnn_light": _net("plain", stages=((8,), (16,)), strides=2, pooling="flatten", dense=16),
        "googlenet": dataclasses.replace(
            _net(
                "googlenet",
                stem=(64, 64, 192),
                inceptions=(
                    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
                    (
                        (192, 96, 208, 16, 48, 64),
                        (160, 112, 224, 24, 64, 64),
                        (128, 128, 256, 24, 64, 64),
                        (112, 144, 288, 32, 64, 64),
                        (256, 160, 320, 32, 128, 128),
                    ),
                    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
                ),
            ),
            recipe={"train.quick.peak_rate": 5e-4},  # by more it comes to rest at chance
        ),
        "googlenet_light": _net(
            "googlenet",
            stem=(16, 16, 64),
            inceptions=(
                ((16, 16, 24, 4, 8, 8), (24, 24, 32, 4, 8, 8)),
                (
                    (32, 32, 48, 8, 16, 16),
                    (48, 48, 64, 8, 16, 16),
                    (64, 64, 96, 12, 24, 24),
                    (96, 64, 96, 12, 24, 24),
                ),
                ((96, 64, 96, 12, 24, 24), (96, 96, 128, 16, 32, 32)),
            ),
        ),
        "vgg16": dataclasses.replace(
            _net("plain", stages=_VGG16_STAGES, dropout=0.3),
            frozen=_convs(10),  # blocks 1 to 4; block 5 is fine-tuned
            needs_weights=True,
        ),
        "vgg_light": dataclasses.replace(
            _net("plain", stages=_VGG16_STAGES[:4], dropout=0.3),
            frozen=_convs(10),
            needs_weights=True,
        ),
        "vgg_custom": _net("plain", stages=((16,) * 2, (32,) * 2, (64,) * 3), dropout=0.5),
        "final": _net("plain", stages=((8,), (16,) * 3), dropout=0.3),
        "micro": dataclasses.replace(
            _net("micro", grid=56, convolutions=(6, 12, 16, 32)),
            recipe=_AUGMENTED | {"train.quick.shrink": (4, 2), "train.quick.epochs": (85, 9)},
        ),
        "nano": dataclasses.replace(
            _net("micro", grid=32, convolutions=(6, 12, 20)),
            recipe=_AUGMENTED | {"train.quick.shrink": (7, 1), "train.quick.epochs": (90, 3)},
        ),
    }
)
"""By name: the study's eight, and two that are lighter."""


SUPPLIED = ("dtype", "first_image")
"""Fields of a net's class that training and export set, and no configuration."""
LEARNS = ("train", "training", "is_training")
STAYS = ("deterministic", "use_running_average")
"""By which a net of one's own is told that it learns now, and that it does not."""
RNGS = "rngs"
"""By which an NNX net of one's own is given what it draws from as it learns."""
CLASSES = ("classes", "num_classes", "n_classes", "num_labels", "num_outputs")
"""By which a net of one's own may call how many classes its head tells apart, the first it has."""
OWN = "own"
"""The kind of a net of the user's own."""
_OWN: dict[str, Net] = {}


def told(names: Container[str], train: bool) -> dict[str, bool]:
    """Whether a net learns, by those of the `names` that it may hear it by."""
    learns, stays = dict.fromkeys(LEARNS, train), dict.fromkeys(STAYS, not train)
    return {name: value for name, value in (learns | stays).items() if name in names}


def classes_field(names: Container[str]) -> str | None:
    """How a net of one's own with such fields calls the number of its classes."""
    return next((name for name in CLASSES if name in names), None)


def add(name: str, net: Net) -> None:
    """Make a net of the user's own known, for this process."""
    _OWN[name] = net


def names() -> tuple[str, ...]:
    """All nets that are known."""
    return (*NETS, *_OWN)


def get(name: str) -> Net:
    """The net called `name`; UserError names the known ones where it is none of them."""
    if name not in names():
        raise UserError(f"config.model.name={name!r} is no net; there are {', '.join(names())}")
    return NETS[name] if name in NETS else _OWN[name]


def initializer(name: str, recipe: Mapping[str, Any]) -> str:
    """How a net's random kernels are drawn by a recipe, the `train` part of a configuration.

    'own' or 'he'. Where the recipe leaves it open, a net of the user's own is drawn as its author
    wrote it, and those here as Keras draws them in the study, by He's rule by the quick schedule.
    """
    how = recipe.get("initializer", AS_THE_NET_SAYS)
    if how != AUTO:
        return how
    return HE if recipe["schedule"] == "quick" and name in NETS else AS_THE_NET_SAYS


def block(side: int, grid: int) -> int:
    """So many pixels of `side` become one where a net averages to about `grid`; 1 where to none."""
    return max(1, side // grid) if grid else 1


def averaged(side: int, grid: int) -> int:
    """Height and width of an image of `side` pixels once a net averages it to about `grid`."""
    return side // block(side, grid)


def validated_at(sizes: Sequence[int], whole: int, grid: int) -> tuple[int, ...]:
    """Height and width of the images that a net is validated on, by epoch.

    Those that it learns from while they grow: of others it has not learned anything yet. The whole
    ones throughout where it averages all of them to the same size, and where it never learns from
    whole ones, which are what it is for all the same.

    Args:
        sizes: height and width of the images of each epoch, all that are planned.
        whole: of a whole image.
        grid: that the net averages images to; 0 where it does not.
    """
    alike = _alike(sizes, whole, grid)
    return (whole,) * len(sizes) if alike or sizes[-1] != whole else tuple(sizes)


def _alike(sizes: Sequence[int], whole: int, grid: int) -> bool:
    """Whether a net averages images of all these sizes to what it averages whole ones to."""
    return all(averaged(size, grid) == averaged(whole, grid) for size in sizes)


def _by_epoch(sizes: Sequence[int]) -> list[str]:
    """Sizes that change by epoch, in words."""
    parts, first = [], 1
    for size, alike in itertools.groupby(sizes):
        last = first + len(list(alike)) - 1
        epochs = f"epochs {first} to {last}" if last > first else f"epoch {first}"
        parts.append(f"{size} x {size} in {epochs}")
        first = last + 1
    return parts


def learned_from(sizes: Sequence[int], validated: Sequence[int], whole: int, grid: int) -> str:
    """What to say of a training whose epochs have images of other sizes than the whole one.

    Args:
        sizes: height and width of the images of each epoch.
        validated: of those of its validation.
        whole: of a whole image.
        grid: that the net averages images to; 0 where it does not.

    Returns:
        'images of 112 x 112 pixels in epoch 1, ...'; empty where all are `whole`.
    """
    if all(size == whole for size in sizes):
        return ""
    told = f"images of {', of '.join(_by_epoch(sizes))}; validation is at "
    if tuple(validated) == tuple(sizes):
        return f"{told}the same size, and the best epoch is one of the largest"
    if any(size != whole for size in validated):  # an older version began it
        return f"{told}{', '.join(_by_epoch(validated))}"
    told += f"{whole} x {whole}"
    if _alike(sizes, whole, grid):
        return told
    return f"{told}, which says little of a net that has not learned at that size yet"


def weights_wanted(name: str) -> str:
    """What to say where a net needs weights that are not there: which, and where they are."""
    run = " or the folder of a vgg16 run" if name == "vgg_light" else ""
    return (
        f"{name} starts from trained weights: set --config.model.weights to Keras's "
        f"{_IMAGENET.rpartition('/')[2]} (get it from {_IMAGENET}){run}, "
        "or to 'random' to learn from nothing, with --config.train.frozen='()' in all layers"
    )
