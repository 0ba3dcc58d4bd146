"""Residual nets: He et al. 2015, Xie et al. 2016, Zagoruyko and Komodakis 2016."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        conv = functools.partial(nn.Conv, use_bias=False)
        y = nn.relu(norm()(conv(self.width, (3, 3), self.stride)(x)))
        y = norm()(conv(self.width, (3, 3))(y))
        if x.shape != y.shape:
            x = conv(self.width, (1, 1), self.stride, name="conv_proj")(x)
            x = norm(name="norm_proj")(x)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1 x 1, then 3 x 3 in groups, then 1 x 1 to four times the width."""

    width: int
    stride: int = 1
    groups: int = 1
    group_width: int = 64

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        conv = functools.partial(nn.Conv, use_bias=False)
        inner = self.width * self.group_width // 64 * self.groups
        y = nn.relu(norm()(conv(inner, (1, 1))(x)))
        y = conv(inner, (3, 3), self.stride, feature_group_count=self.groups)(y)
        y = nn.relu(norm()(y))
        y = norm()(conv(4 * self.width, (1, 1))(y))
        if x.shape != y.shape:
            x = conv(4 * self.width, (1, 1), self.stride, name="conv_proj")(x)
            x = norm(name="norm_proj")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """arXiv:1512.03385, its stride in the 3 x 3 convolution; in groups arXiv:1611.05431."""

    depths: Sequence[int]
    block: Callable[..., nn.Module] = BasicBlock
    width: int = 64
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.width, (7, 7), 2, use_bias=False, name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, depth in enumerate(self.depths):
            for number in range(depth):
                stride = 2 if stage and not number else 1
                x = self.block(self.width * 2**stage, stride)(x, train)
        return nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))


class WideBlock(nn.Module):
    """Norm and ReLU before each of two 3 x 3 convolutions."""

    width: int
    stride: int = 1
    project: bool = False

    def setup(self):
        self.bn1, self.bn2 = nn.BatchNorm(), nn.BatchNorm()
        self.conv1 = nn.Conv(self.width, (3, 3), self.stride, use_bias=False)
        self.conv2 = nn.Conv(self.width, (3, 3), use_bias=False)
        if self.project:
            self.shortcut = nn.Conv(self.width, (1, 1), self.stride, use_bias=False)

    def __call__(self, x, train=False):
        y = nn.relu(self.bn1(x, use_running_average=not train))
        shortcut = self.shortcut(y) if self.project else x
        y = nn.relu(self.bn2(self.conv1(y), use_running_average=not train))
        return self.conv2(y) + shortcut


class WideResNet(nn.Module):
    """arXiv:1605.07146: WRN-depth-widen for images of 32 x 32."""

    depth: int = 28
    widen: int = 10
    base: int = 16
    classes: int = 10

    def setup(self):
        self.conv1 = nn.Conv(self.base, (3, 3), use_bias=False)
        self.blocks = [
            WideBlock(
                self.base * self.widen * 2**stage,
                stride=2 if stage and not number else 1,
                project=not number,
            )
            for stage in range(3)
            for number in range((self.depth - 4) // 6)
        ]
        self.bn = nn.BatchNorm()
        self.fc = nn.Dense(self.classes)

    def __call__(self, x, train=False):
        x = self.conv1(x)
        for block in self.blocks:
            x = block(x, train)
        x = nn.relu(self.bn(x, use_running_average=not train))
        return self.fc(nn.avg_pool(x, x.shape[1:3]).reshape(x.shape[0], -1))
