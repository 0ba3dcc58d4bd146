"""Inverted residuals: Sandler et al. 2018, Howard et al. 2019, Tan and Le 2019."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn


def divisible_by_8(width):
    """The nearest multiple of 8, not more than a tenth below."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


class SqueezeExcite(nn.Module):
    """A gate for each channel: Hu et al. 2017, arXiv:1709.01507."""

    width: int
    activation: Callable[..., Any]
    gate: Callable[..., Any]

    @nn.compact
    def __call__(self, x):
        scale = x.mean(axis=(1, 2), keepdims=True)
        scale = self.activation(nn.Conv(self.width, (1, 1), name="reduce")(scale))
        return x * self.gate(nn.Conv(x.shape[-1], (1, 1), name="expand")(scale))


class InvertedResidual(nn.Module):
    """Expands, convolves each channel on its own, and projects without an activation."""

    channels: int
    expanded: int
    width: int
    kernel: int = 3
    stride: int = 1
    activation: Callable[..., Any] = nn.relu6
    squeeze: int = 0
    gate: Callable[..., Any] = nn.sigmoid

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        inputs = x
        if self.expanded != self.channels:
            x = nn.Conv(self.expanded, (1, 1), use_bias=False, name="expand")(x)
            x = self.activation(norm(name="expand_bn")(x))
        x = nn.Conv(
            self.expanded,
            (self.kernel, self.kernel),
            self.stride,
            feature_group_count=self.expanded,
            use_bias=False,
            name="depthwise",
        )(x)
        x = self.activation(norm(name="depthwise_bn")(x))
        if self.squeeze:
            activation = nn.relu if self.activation is nn.hard_swish else self.activation
            x = SqueezeExcite(self.squeeze, activation, self.gate, name="se")(x)
        x = nn.Conv(self.width, (1, 1), use_bias=False, name="project")(x)
        x = norm(name="project_bn")(x)
        return x + inputs if self.stride == 1 and self.width == self.channels else x


class MobileNetV2(nn.Module):
    """arXiv:1801.04381: (expansion, width, blocks, stride) a stage."""

    stages: Sequence[Sequence[int]] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    stem: int = 32
    last: int = 1280
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.relu6(norm()(nn.Conv(self.stem, (3, 3), 2, use_bias=False)(x)))
        channels = self.stem
        for expansion, width, blocks, stride in self.stages:
            for number in range(blocks):
                stride = 1 if number else stride
                block = InvertedResidual(channels, expansion * channels, width, stride=stride)
                x, channels = block(x, train), width
        x = nn.relu6(norm()(nn.Conv(self.last, (1, 1), use_bias=False)(x)))
        x = nn.Dropout(0.2, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.classes)(x)


class MobileNetV3(nn.Module):
    """arXiv:1905.02244, Large: (kernel, expanded, width, gated, h-swish, stride) a block."""

    blocks: Sequence[Sequence[int]] = (
        (3, 16, 16, 0, 0, 1),
        (3, 64, 24, 0, 0, 2),
        (3, 72, 24, 0, 0, 1),
        (5, 72, 40, 1, 0, 2),
        (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1),
        (3, 240, 80, 0, 1, 2),
        (3, 200, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1),
        (3, 480, 112, 1, 1, 1),
        (3, 672, 112, 1, 1, 1),
        (5, 672, 160, 1, 1, 2),
        (5, 960, 160, 1, 1, 1),
        (5, 960, 160, 1, 1, 1),
    )
    stem: int = 16
    last: int = 1280
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.hard_swish(norm()(nn.Conv(self.stem, (3, 3), 2, use_bias=False)(x)))
        channels = self.stem
        for kernel, expanded, width, gated, swish, stride in self.blocks:
            block = InvertedResidual(
                channels,
                expanded,
                width,
                kernel,
                stride,
                activation=nn.hard_swish if swish else nn.relu,
                squeeze=divisible_by_8(expanded / 4) if gated else 0,
                gate=nn.hard_sigmoid,
            )
            x, channels = block(x, train), width
        x = nn.Conv(self.blocks[-1][1], (1, 1), use_bias=False)(x)
        x = nn.hard_swish(norm()(x)).mean((1, 2))
        x = nn.hard_swish(nn.Dense(self.last)(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(self.classes)(x)


class EfficientNet(nn.Module):
    """arXiv:1905.11946, B0: (expansion, width, blocks, stride, kernel) a stage."""

    stages: Sequence[Sequence[int]] = (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )
    stem: int = 32
    last: int = 1280
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.swish(norm()(nn.Conv(self.stem, (3, 3), 2, use_bias=False)(x)))
        channels = self.stem
        for expansion, width, blocks, stride, kernel in self.stages:
            for number in range(blocks):
                block = InvertedResidual(
                    channels,
                    expansion * channels,
                    width,
                    kernel,
                    stride=1 if number else stride,
                    activation=nn.swish,
                    squeeze=max(1, channels // 4),
                )
                x, channels = block(x, train), width
        x = nn.swish(norm()(nn.Conv(self.last, (1, 1), use_bias=False)(x)))
        x = nn.Dropout(0.2, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.classes)(x)
