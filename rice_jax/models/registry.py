"""The eight nets by name: which Linen class, which widths, which layers stay frozen."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from rice_jax.errors import UserError
from rice_jax.models.googlenet import GoogLeNet
from rice_jax.models.plain import PlainCNN


@dataclasses.dataclass(frozen=True)
class Net:
    """A net of the study."""

    module: type[nn.Module]
    widths: Mapping[str, Any]
    """Fields of the module: what a configuration may change under config.model."""
    frozen: tuple[str, ...] = ()
    """Paths of the layers that training leaves as they are."""
    needs_weights: bool = False
    """Whether the study starts from trained weights, so that random ones would be a mistake."""


# Fields that a configuration sets elsewhere (config.train.dtype), that a training step sets, or
# that Linen itself adds.
_NOT_WIDTHS = ("dtype", "first_image", "parent", "name")


def _net(module: type[nn.Module], **widths: Any) -> Net:
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(module)
        if field.name not in _NOT_WIDTHS and field.default is not dataclasses.MISSING
    }
    return Net(module, MappingProxyType({**defaults, **widths}))


def _convs(last: int) -> tuple[str, ...]:
    return tuple(f"conv{number}" for number in range(1, last + 1))


_VGG16_STAGES = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)

NETS: Mapping[str, Net] = MappingProxyType(
    {
        "cnn": _net(PlainCNN, stages=((32,), (64,), (128,)), pooling="flatten", dense=128),
        "cnn_light": _net(PlainCNN, stages=((8,), (16,)), strides=2, pooling="flatten", dense=16),
        "googlenet": _net(
            GoogLeNet,
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
        "googlenet_light": _net(
            GoogLeNet,
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
            _net(PlainCNN, stages=_VGG16_STAGES, dropout=0.3),
            frozen=_convs(10),  # blocks 1 to 4; block 5 is fine-tuned
            needs_weights=True,
        ),
        "vgg_light": dataclasses.replace(
            _net(PlainCNN, stages=_VGG16_STAGES[:4], dropout=0.3),
            frozen=_convs(10),
            needs_weights=True,
        ),
        "vgg_custom": _net(PlainCNN, stages=((16,) * 2, (32,) * 2, (64,) * 3), dropout=0.5),
        "final": _net(PlainCNN, stages=((8,), (16,) * 3), dropout=0.3),
    }
)


def get(name: str) -> Net:
    """The net called `name`; UserError names the known ones where it is none of them."""
    if name not in NETS:
        raise UserError(f"config.model.name={name!r} is no net; there are {', '.join(NETS)}")
    return NETS[name]


def build(name: str, **fields: Any) -> nn.Module:
    """The net called `name` as a Linen module, `fields` replacing the study's widths."""
    net = get(name)
    return net.module(**{**net.widths, **fields})
