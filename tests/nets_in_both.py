"""Ten small nets, each written in Linen and in NNX, layer for layer under the same names."""

import re
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rice_jax.graph.fronts import front

SHAPE = (4, 8, 8, 3)


class PlainLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3), name="conv1")(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(6, (3, 3), strides=2, name="conv2")(x))
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


class PlainNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 6, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(24, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.relu(self.conv2(x))
        return self.head(x.reshape(len(x), -1))


class NormedLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        for number in (1, 2):
            x = nn.Conv(4, (3, 3), strides=2, use_bias=False, name=f"conv{number}")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=True, name=f"norm{number}")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class NormedNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(4, rngs=rngs)
        self.conv2 = nnx.Conv(4, 4, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return self.head(x.mean((1, 2)))


class BlockLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(5, (3, 3), name="into")(x))
        return nn.relu(x + nn.Conv(x.shape[-1], (3, 3), name="out")(y))


class ResidualLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="stem")(x))
        x = BlockLinen(name="block")(x)
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class BlockNNX(nnx.Module):
    def __init__(self, width, rngs):
        self.into = nnx.Conv(width, 5, (3, 3), rngs=rngs)
        self.out = nnx.Conv(5, width, (3, 3), rngs=rngs)

    def __call__(self, x):
        return nnx.relu(x + self.out(nnx.relu(self.into(x))))


class ResidualNNX(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.block = BlockNNX(4, rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.block(nnx.relu(self.stem(x))).mean((1, 2)))


class InceptionLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        one = nn.relu(nn.Conv(3, (1, 1), name="one")(x))
        three = nn.relu(nn.Conv(4, (3, 3), name="three")(x))
        pooled = nn.Conv(2, (1, 1), name="pooled")(nn.avg_pool(x, (3, 3), (1, 1), "SAME"))
        x = jnp.concatenate([one, three, nn.relu(pooled)], -1)
        x = nn.relu(nn.Conv(5, (3, 3), strides=2, name="after")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class InceptionNNX(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Conv(3, 3, (1, 1), rngs=rngs)
        self.three = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.pooled = nnx.Conv(3, 2, (1, 1), rngs=rngs)
        self.after = nnx.Conv(9, 5, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        one, three = nnx.relu(self.one(x)), nnx.relu(self.three(x))
        pooled = self.pooled(nnx.avg_pool(x, (3, 3), (1, 1), "SAME"))
        x = jnp.concatenate([one, three, nnx.relu(pooled)], -1)
        return self.head(nnx.relu(self.after(x)).mean((1, 2)))


class DepthwiseLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="stem")(x))
        x = nn.relu(nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x))
        x = nn.relu(nn.Conv(6, (1, 1), name="pointwise")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class DepthwiseNNX(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.depthwise = nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=rngs)
        self.pointwise = nnx.Conv(4, 6, (1, 1), rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.depthwise(nnx.relu(self.stem(x))))
        return self.head(nnx.relu(self.pointwise(x)).mean((1, 2)))


class DenseLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6, name="one")(x.reshape(len(x), -1)))
        x = nn.tanh(nn.Dense(4, use_bias=False, name="two")(x))
        return nn.Dense(3, name="head")(x)


class DenseNNX(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Linear(192, 6, rngs=rngs)
        self.two = nnx.Linear(6, 4, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.one(x.reshape(len(x), -1)))
        return self.head(nnx.tanh(self.two(x)))


class GroupsLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), strides=2, name="conv1")(x)
        x = nn.relu(nn.GroupNorm(num_groups=3, name="groups")(x))
        x = nn.relu(nn.Conv(4, (3, 3), name="conv2")(x))
        x = nn.relu(nn.LayerNorm(name="layer")(nn.Conv(4, (1, 1), name="conv3")(x)))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class GroupsNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
        self.groups = nnx.GroupNorm(6, num_groups=3, rngs=rngs)
        self.conv2 = nnx.Conv(6, 4, (3, 3), rngs=rngs)
        self.conv3 = nnx.Conv(4, 4, (1, 1), rngs=rngs)
        self.layer = nnx.LayerNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.groups(self.conv1(x)))
        x = nnx.relu(self.conv2(x))
        return self.head(nnx.relu(self.layer(self.conv3(x))).mean((1, 2)))


class TokensLinen(nn.Module):
    """A group norm of places in a row, whose means have as many axes as its input has."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), strides=2, name="conv1")(x)
        x = nn.GroupNorm(num_groups=3, name="groups")(x.reshape(len(x), -1, x.shape[-1]))
        return nn.Dense(3, name="head")(nn.relu(x).mean(1))


class TokensNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
        self.groups = nnx.GroupNorm(6, num_groups=3, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.conv1(x)
        x = self.groups(x.reshape(len(x), -1, x.shape[-1]))
        return self.head(nnx.relu(x).mean(1))


class ListedLinen(nn.Module):
    def setup(self):
        one, two = (nn.Conv(width, (3, 3), strides=2) for width in (4, 5))
        self.body = nn.Sequential([one, nn.relu, two, nn.relu])
        self.tail = [nn.Dense(6), nn.Dense(3)]

    def __call__(self, x):
        x = self.body(x).mean((1, 2))
        for layer in self.tail:
            x = layer(nn.relu(x))
        return x


class ListedNNX(nnx.Module):
    def __init__(self, rngs):
        one = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        two = nnx.Conv(4, 5, (3, 3), strides=2, rngs=rngs)
        self.body = nnx.Sequential(one, nnx.relu, two, nnx.relu)
        # Older versions of Flax take a list as it is.
        listed = getattr(nnx, "List", list)
        self.tail = listed([nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)])

    def __call__(self, x):
        x = self.body(x).mean((1, 2))
        for layer in self.tail:
            x = layer(nnx.relu(x))
        return x


class DroppedLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="conv")(x))
        x = nn.Dropout(0.5, deterministic=True, name="drop1")(x).mean((1, 2))
        x = nn.relu(nn.Dense(5, name="dense")(x))
        return nn.Dense(3, name="head")(nn.Dropout(0.2, deterministic=True, name="drop2")(x))


class DroppedNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.drop1 = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(4, 5, rngs=rngs)
        self.drop2 = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        x = self.drop1(nnx.relu(self.conv(x))).mean((1, 2))
        return self.head(self.drop2(nnx.relu(self.dense(x))))


class ExcitedLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), strides=2, name="conv1")(x))
        gate = nn.relu(nn.Dense(3, name="squeeze")(x.mean((1, 2))))
        x = x * nn.sigmoid(nn.Dense(6, name="excite")(gate))[:, None, None]
        x = nn.relu(nn.Conv(4, (1, 1), name="conv2")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class ExcitedNNX(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
        self.squeeze = nnx.Linear(6, 3, rngs=rngs)
        self.excite = nnx.Linear(3, 6, rngs=rngs)
        self.conv2 = nnx.Conv(6, 4, (1, 1), rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv1(x))
        gate = nnx.relu(self.squeeze(x.mean((1, 2))))
        x = x * nnx.sigmoid(self.excite(gate))[:, None, None]
        return self.head(nnx.relu(self.conv2(x)).mean((1, 2)))


NETS = {
    "plain": (PlainLinen, PlainNNX),
    "batch norm": (NormedLinen, NormedNNX),
    "residual": (ResidualLinen, ResidualNNX),
    "inception": (InceptionLinen, InceptionNNX),
    "depthwise": (DepthwiseLinen, DepthwiseNNX),
    "dense": (DenseLinen, DenseNNX),
    "group and layer norm": (GroupsLinen, GroupsNNX),
    "groups of tokens": (TokensLinen, TokensNNX),
    "sequential and list": (ListedLinen, ListedNNX),
    "dropout": (DroppedLinen, DroppedNNX),
    "squeeze and excite": (ExcitedLinen, ExcitedNNX),
}


def built(name):
    """The net in Linen, in NNX, and its random variables, of which some biases are far below 0."""
    linen, nnx_class = NETS[name]
    module = nnx_class(nnx.Rngs(0))
    module.eval()
    rng = np.random.default_rng(len(name))

    def drawn(path, array):
        own = path[-1].key
        if own == "var":
            return jnp.asarray(rng.uniform(0.5, 2, array.shape), jnp.float32)
        numbers = rng.normal(0, 0.5, array.shape)
        if own == "bias" and len(array) > 3:
            numbers[1] = -50.0  # this filter is dead
        return jnp.asarray(numbers + (own == "scale"), jnp.float32)

    net = front(module)
    variables = jax.tree_util.tree_map_with_path(drawn, net.variables)
    return linen(), net.given(variables)[0], as_linen(variables)


def as_linen(tree):
    """A tree of NNX's with lists of layers named as Linen names them: 'tail/0' is 'tail_0'."""
    found = {}
    for name, inner in tree.items():
        inner = as_linen(inner) if isinstance(inner, Mapping) else inner
        if isinstance(inner, dict) and inner and all(key.isdecimal() for key in inner):
            found |= {f"{name}_{key}": each for key, each in inner.items()}
        else:
            found[name] = inner
    return found


def linen_path(path):
    """The path in Linen of a layer in NNX."""
    return re.sub(r"/(\d+)(?=/|$|@)", r"_\1", path)


def images(seed=0):
    return jax.random.uniform(jax.random.key(seed), SHAPE)
