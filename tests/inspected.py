"""Nets that the tests of inspection look into: small, quick to compile, with weights by NumPy."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from rice_jax import models
from rice_jax.graph.trace import variable_shapes


def small(name: str) -> nn.Module:
    """One of the nets with an eighth of its filters, and one inception a stage."""
    fields: dict[str, Any] = dict(models.get(name).widths)
    if "stem" in fields:
        fields["stem"] = [max(2, width // 8) for width in fields["stem"]]
        fields["inceptions"] = [
            [[max(2, width // 8) for width in stage[0]]] for stage in fields["inceptions"][:2]
        ]
    elif "convolutions" in fields:
        fields |= {"grid": 8, "convolutions": (3, 2), "dense": 4}
    else:
        fields["stages"] = [[max(2, width // 8) for width in stage] for stage in fields["stages"]]
        fields["dense"] = 4
    return models.build(name, **fields)


class Block(nn.Module):
    filters: int

    @nn.compact
    def __call__(self, x):
        y = x
        for number in (1, 2):
            y = nn.Conv(self.filters, (3, 3), use_bias=False, name=f"conv{number}")(y)
            y = nn.BatchNorm(use_running_average=True, name=f"norm{number}")(y)
            y = nn.relu(y) if number == 1 else y
        return nn.relu(x + y)


class Residual(nn.Module):
    """Convolutions with BatchNorm about a skip, one block called twice, an average pool."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="stem")(x))
        block = Block(4, name="block")
        x = nn.avg_pool(block(block(x)), (2, 2), (1, 1), "SAME")
        return nn.Dense(3, name="head")(x.mean((1, 2)))


class Inception(nn.Module):
    """Branches of every kind of convolution, side by side."""

    @nn.compact
    def __call__(self, x):
        branches = [
            nn.relu(nn.Conv(3, (1, 1), name="point")(x)),
            jax.nn.relu6(nn.Conv(4, (3, 3), kernel_dilation=2, name="dilated")(x)),
            nn.relu(nn.Conv(6, (3, 2), feature_group_count=3, name="grouped")(x)),
            nn.max_pool(nn.swish(nn.Conv(2, (3, 3), name="swish")(x)), (3, 3), (1, 1), "SAME"),
            nn.relu(nn.ConvTranspose(3, (2, 2), (2, 2), name="up")(x))[:, ::2, 1::2],
        ]
        x = np.float32(0.5) * jax.numpy.concatenate(branches, axis=-1)
        x = nn.leaky_relu(nn.Conv(5, (5, 5), strides=2, name="merge")(x)) ** 2
        return nn.softmax(nn.Dense(3, name="head")(x.reshape(x.shape[0], -1)))


NETS = {
    **{name: lambda name=name: small(name) for name in models.NETS},
    "residual": Residual,
    "inception": Inception,
}


class Step(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return nn.relu(nn.Conv(3, (3, 3), name="conv")(x)), None


class Looped(nn.Module):
    """A convolution, two in a loop, and one after it."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(3, (1, 1), name="first")(x))
        loop = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return nn.Conv(3, (1, 1), name="last")(loop(name="loop")(x, None)[0])


def random_variables(module: nn.Module, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    """He-scaled kernels, biases about 0 but the first of each layer, which kills its filter."""
    rng = np.random.default_rng(seed)

    def array(path: tuple[str, ...], spec: Any) -> np.ndarray:
        scale = np.sqrt(2 / np.prod(spec.shape[:-1])) if path[-1] == "kernel" else 0.3
        values = rng.normal(size=spec.shape) * scale
        if path[-1] == "bias":
            values[0] = -1000
        return np.float32(np.abs(values) + 0.1 if path[-1] == "var" else values)

    shapes = traverse_util.flatten_dict(variable_shapes(module, shape))
    return traverse_util.unflatten_dict({path: array(path, spec) for path, spec in shapes.items()})


class One(nn.Module):
    """One rectified 3x3 convolution."""

    filters: int
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(self.filters, (3, 3), padding=self.padding, name="conv")(x))


def one(kernel, bias):
    return {"params": {"conv": {"kernel": np.float32(kernel), "bias": np.float32(bias)}}}


class Function(nn.Module):
    """A function of the image, seen through a convolution that passes it on."""

    function: object

    @nn.compact
    def __call__(self, x):
        return nn.Conv(3, (1, 1), use_bias=False, name="conv")(self.function(x))


IDENTITY = {"params": {"conv": {"kernel": np.eye(3, dtype=np.float32)[None, None]}}}


def resized(x, method, rows, columns):
    return jax.image.resize(x, (len(x), rows, columns, x.shape[-1]), method)


SHAPE = (32, 32, 3)


def images(number: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Random pixels, random black and white, all black, all white."""
    rng = np.random.default_rng(seed)
    pixels = rng.random((number, *shape), np.float32)
    pixels[1::2] = pixels[1::2] > 0.5
    pixels[-2:] = np.float32([0, 1])[:, None, None, None]
    return pixels


def assert_contained(bounds: Any, maps: Any) -> None:
    assert bounds.keys() == maps.keys()
    for name, (lo, hi) in bounds.items():
        values = np.asarray(maps[name], np.float64)
        assert np.all(lo <= values), name
        assert np.all(values <= hi), name
