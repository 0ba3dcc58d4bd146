"""Nets for the pruner's tests: the package's with tiny widths, and two of others."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rice_jax import models
from rice_jax.graph.call import key_name
from rice_jax.graph.trace import variable_shapes

SHAPE = (2, 32, 32, 3)

_LIGHT = ((3, 2, 3, 2, 2, 3), (2, 2, 4, 3, 2, 2))
# Of the googlenets an inception or two a stage: each costs seconds to compile.
WIDTHS = {
    "cnn": {"stages": ((3,), (4,), (5,)), "dense": 6},
    "cnn_light": {"stages": ((3,), (4,)), "dense": 5},
    "vgg16": {"stages": ((3,) * 2, (2,) * 2, (3,) * 3, (4,) * 3, (3,) * 3), "dense": 6},
    "vgg_light": {"stages": ((2,) * 2, (3,) * 2, (4,) * 3, (3,) * 3), "dense": 5},
    "vgg_custom": {"stages": ((3,) * 2, (4,) * 2, (3,) * 3), "dense": 5},
    "final": {"stages": ((3,), (4,) * 3), "dense": 6},
    "micro": {"grid": 16, "convolutions": (3, 4, 5), "dense": 6},
    "nano": {"grid": 8, "convolutions": (4, 3), "dense": 5},
    "googlenet": {"stem": (3, 2, 4), "inceptions": (_LIGHT[:1], _LIGHT, _LIGHT[1:])},
    "googlenet_light": {"stem": (2, 3, 4), "inceptions": (_LIGHT[1:], _LIGHT[:1], _LIGHT[1:])},
}


class Residual(nn.Module):
    """Residual blocks with BatchNorm; then a strided projection, a depthwise, a grouped
    convolution, a squeeze-excite gate and an average pool."""

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = nn.relu(norm(name="stem_norm")(nn.Conv(6, (3, 3), use_bias=False, name="stem")(x)))
        for block in ("a", "b"):
            y = nn.Conv(5, (3, 3), use_bias=False, name=f"{block}_in")(x)
            y = nn.relu(norm(name=f"{block}_in_norm")(y))
            y = norm(name=f"{block}_out_norm")(nn.Conv(6, (3, 3), name=f"{block}_out")(y))
            x = nn.relu(x + y)
        y = nn.relu(nn.Conv(8, (3, 3), strides=2, name="down")(x))
        y = nn.relu(nn.Conv(8, (3, 3), feature_group_count=8, name="depthwise")(y))
        y = nn.Conv(8, (3, 3), feature_group_count=2, name="grouped")(y)
        x = nn.relu(y + nn.Conv(8, (1, 1), strides=2, name="shortcut")(x))
        gate = nn.relu(nn.Dense(4, name="squeeze")(x.mean((1, 2))))
        x = x * nn.sigmoid(nn.Dense(8, name="excite")(gate))[:, None, None]
        x = nn.avg_pool(x, (2, 2), (2, 2)).mean((1, 2))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="head")(x)


class Mixed(nn.Module):
    """Convolutions of three sizes side by side."""

    widths: tuple[int, int, int]

    @nn.compact
    def __call__(self, x):
        one, three, pooled = self.widths
        return nn.relu(
            jnp.concatenate(
                [
                    nn.Conv(one, (1, 1), name="one")(x),
                    nn.Conv(three, (3, 3), name="three")(x),
                    nn.Conv(pooled, (1, 1), name="pooled")(nn.max_pool(x, (3, 3), padding="SAME")),
                ],
                axis=-1,
            )
        )


class Inceptions(nn.Module):
    """A user's inception: concatenations one after the other, channels first for a while, a
    flatten into the dense layer."""

    @nn.compact
    def __call__(self, x):
        x = Mixed((3, 2, 4), name="first")(x)
        x = nn.max_pool(x, (4, 4), (4, 4))
        x = jnp.concatenate([x, Mixed((2, 3, 2), name="second")(x)], axis=-1)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, ::2, ::2]
        x = jnp.transpose(jnp.transpose(x, (0, 3, 1, 2)) * 0.5, (0, 2, 3, 1))
        x = nn.relu(nn.Dense(6, name="dense")(x.reshape(x.shape[0], -1)))
        return nn.Dense(4, name="head")(x)


# Of two neighbours tests take the first at their default depth: it compiles sooner.
_ORDER = (
    *("inceptions", "googlenet", "residual", "googlenet_light", "cnn", "cnn_light"),
    *("vgg_custom", "vgg16", "final", "vgg_light", "micro", "nano"),
)
_MADE = {
    **{name: functools.partial(models.build, name, **WIDTHS[name]) for name in models.NETS},
    "residual": Residual,
    "inceptions": Inceptions,
}
NETS = {name: _MADE[name] for name in sorted(_MADE, key=_ORDER.index)}

NORMS = {"stem": "stem_norm", **{f"{b}_{e}": f"{b}_{e}_norm" for b in "ab" for e in ("in", "out")}}
"""The BatchNorm that follows a convolution of `Residual`: what makes its channels."""


def random_variables(shapes, seed):
    """Variables of these shapes under which activations keep their size; none is zero."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        values = rng.normal(0, np.sqrt(2 / fan_in) if leaf.ndim > 1 else 0.3, leaf.shape)
        is_scale = key_name(path[-1]) in ("scale", "var", "running_var")
        return np.float32(np.abs(values) + 0.5 if is_scale else values)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def images(seed, shape=SHAPE):
    return np.random.default_rng(seed).random(shape, np.float32)


def compiled(function, *arguments):
    """`jax.jit` at XLA's lowest effort: these nets run once and compile long."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)


class Silencer:
    """The whole net with filters' channels at zero, without the pruner's help."""

    def __init__(self, module, layers, shape=SHAPE):
        """`layers`: for each path of filters the module that makes their channels, or itself."""
        self.layers, self.shapes = layers, variable_shapes(module, shape)

        def run(variables, x, masks):
            def silence(call, args, kwargs, context):
                result = call(*args, **kwargs)
                mask = masks.get("/".join(context.module.path))
                return result if mask is None else result * mask

            with nn.intercept_methods(silence):
                return module.apply(variables, x)

        self.run = compiled(run, self.shapes, np.zeros(shape, np.float32), self._masks({}))

    def __call__(self, variables, x, removed):
        return self.run(variables, x, self._masks(removed))

    def _masks(self, removed):
        masks = {}
        for path, (made_by, filters) in self.layers.items():
            masks[made_by] = np.ones(filters, np.float32)
            masks[made_by][list(removed.get(path, ()))] = 0
        return masks


def silencer(module, graph):
    """A `Silencer` of all filters that `graph` knows."""
    layers = {
        path: (NORMS.get(path, path), len(filters.channels))
        for path, filters in graph.filters.items()
    }
    return Silencer(module, layers)
