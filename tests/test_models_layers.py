"""The layers that the nets share: Keras's defaults, arrays taken as they are given."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors

from rice_jax.models.layers import Conv, Dense

LAYERS = {
    "Conv": (Conv, {"features": 3, "kernel_size": (3, 3)}, (2, 5, 5, 4)),
    "Dense": (Dense, {"features": 3}, (2, 4)),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    """A layer's class, its fields and the shape of what it takes."""
    return LAYERS[request.param]


def test_a_layer_asks_for_an_initial_array_only_where_it_has_none(layer):
    kind, fields, shape = layer
    asked: list[Sequence[int]] = []

    def drawn(key, shape, dtype):
        asked.append(tuple(shape))
        return jax.random.normal(key, shape, dtype)

    module = kind(**fields, kernel_init=drawn, bias_init=drawn)
    x = jnp.ones(shape)
    variables = module.init(jax.random.key(0), x)
    assert len(asked) == 2  # a kernel and a bias
    jax.jit(module.apply)(variables, x)
    jax.eval_shape(jax.grad(lambda given: module.apply(given, x).sum()), variables)
    assert len(asked) == 2


def test_a_layer_is_flax_s_own_with_keras_s_defaults(layer):
    kind, fields, shape = layer
    theirs = {"Conv": nn.Conv, "Dense": nn.Dense}[kind.__name__]
    x = jax.random.normal(jax.random.key(1), shape)
    kernels = nn.initializers.glorot_uniform()
    ours, theirs = kind(**fields), theirs(**fields, kernel_init=kernels)
    variables = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, theirs.init(jax.random.key(0), x))
    np.testing.assert_array_equal(ours.apply(variables, x), theirs.apply(variables, x))


@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_an_array_of_another_shape_is_refused_as_flax_does(layer, name):
    kind, fields, shape = layer
    x = jnp.ones(shape)
    params = kind(**fields).init(jax.random.key(0), x)["params"]
    params[name] = jnp.concatenate([params[name]] * 2, axis=-1)
    with pytest.raises(errors.ScopeParamShapeError, match=f'"{name}"'):
        kind(**fields).apply({"params": params}, x)


def test_an_array_that_is_not_there_is_named(layer):
    kind, fields, shape = layer
    x = jnp.ones(shape)
    params = kind(**fields).init(jax.random.key(0), x)["params"]
    del params["bias"]
    with pytest.raises(errors.ScopeParamNotFoundError, match='"bias"'):
        kind(**fields).apply({"params": params}, x)


def test_who_looks_into_a_net_meets_each_layer_s_call_alone(layer):
    kind, fields, shape = layer
    met = []

    def look(call, args, kwargs, context):
        met.append(context.method_name)
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        kind(**fields).init(jax.random.key(0), jnp.ones(shape))
    assert met == ["__call__"]
