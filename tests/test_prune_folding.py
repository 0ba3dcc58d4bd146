"""What a removed constant leaves behind goes into a bias that is one number a filter and no one
else's, or the filter stays."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from jax import lax

from rice_jax import prune
from rice_jax.graph.trace import Equation, variable_shapes

SHAPE = (2, 4, 4, 3)
CONSTANT = 0.75


class Reader(nn.Module):
    """Filters of 1 x 1, of which the first is made constant, and what reads them."""

    read: object

    @nn.compact
    def __call__(self, x):
        y = self.read(self, nn.relu(nn.Conv(4, (1, 1), name="first")(x)))
        return nn.Dense(3, name="head")(y.reshape(y.shape[0], -1))


def kernel(module, *shape):
    return module.param("kernel", nn.initializers.normal(1.0), shape)


def bias(module, *shape):
    return module.param("bias", nn.initializers.normal(1.0), shape)


def twice(alias):
    """A dense layer of which the bias is read again, by another name."""

    def read(module, y):
        own = bias(module, 4)
        return (y @ kernel(module, y.shape[-1], 4) + own) * jnp.tanh(alias(own))

    return read


def on_rows(module, y):
    """As many rows as filters, and a bias for each row."""
    return y @ kernel(module, y.shape[-1], 4) + bias(module, 4)[:, None, None].transpose(1, 0, 2)


def turned(module, y):
    """The bias is dealt out in another order."""
    return y @ kernel(module, y.shape[-1], 4) + bias(module, 4).reshape(2, 2).T.reshape(4)


def of_several(module, y):
    """Two axes of filters, and one number for all along the first."""
    product = jnp.einsum("nhwc,ckf->nhwkf", y, kernel(module, y.shape[-1], 2, 4))
    return product + bias(module, 4)


def read_again(module, y):
    """The sum is read before the bias too."""
    product = y @ kernel(module, y.shape[-1], 4)
    return (product + bias(module, 4)) * jnp.tanh(product)


def from_the_left(module, y):
    own = jnp.broadcast_to(bias(module, 4), (*y.shape[:-1], 4))
    return lax.sub(own, y @ kernel(module, y.shape[-1], 4))


def plain(module, y):
    return y @ kernel(module, y.shape[-1], 4) + bias(module, 4)


def cast(module, y):
    own = bias(module, 4).reshape(1, 4).astype(jnp.float16).astype(jnp.float32)
    return y @ kernel(module, y.shape[-1], 4) + own


def less(module, y):
    return y @ kernel(module, y.shape[-1], 4) - bias(module, 4)


def scaled(module, y):
    """A kernel that is computed: what it is, not its parameter, is folded."""
    return y @ (2 * jnp.exp(kernel(module, y.shape[-1], 4))) + bias(module, 4)


def unpadded(module, y):
    conv = nn.Conv(4, (2, 2), padding="VALID", parent=module, name="conv")
    return conv(y)


STAYS = {
    "read again": twice(lambda own: own),
    "read through a cast": twice(lambda own: own.astype(jnp.bfloat16).astype(jnp.float32)),
    "read through a reshape": twice(lambda own: own.reshape(2, 2).reshape(1, 4)),
    "read through a barrier": twice(lambda own: lax.optimization_barrier(own)),
    "for rows": on_rows,
    "in another order": turned,
    "for one of two axes": of_several,
    "sum read again": read_again,
    "from the left": from_the_left,
}
GOES = {"plain": plain, "cast": cast, "less": less, "scaled": scaled, "unpadded": unpadded}


def pruned(read):
    module = Reader(read)
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    first = variables["params"]["first"]
    first["kernel"] = np.abs(first["kernel"]) + 0.1
    first["kernel"][..., 0] = 0
    first["bias"] = np.float32([CONSTANT, 0.1, 0.1, 0.1])
    images = [(prunable.images(0, SHAPE), np.zeros(2, int))]
    return prune.prune(module, variables, images, drop="proven", on_unknown="keep")


@pytest.mark.parametrize("name", STAYS)
@pytest.mark.one_in(3)
def test_a_constant_that_no_bias_takes_up_stays(name):
    result = pruned(STAYS[name])
    assert result.refused == {"first": [0]}
    assert not result.removed
    assert result.certificate.max_abs_logit_difference == 0


@pytest.mark.parametrize("name", GOES)
@pytest.mark.one_in(2)
def test_a_constant_that_a_bias_takes_up_goes(name):
    result = pruned(GOES[name])
    assert result.removed == {"first": [0]}
    assert result.certificate.proven
    limit = 1e-2 if name == "cast" else 1e-5
    assert result.certificate.max_relative_logit_difference < limit


APPLY = Equation.apply


def as_on_a_gpu(equation, *operands):
    """Products in TF32, but on the host's CPU where that is asked for."""
    if equation.name == "dot_general" and jax.config.jax_default_device is None:
        operands = [lax.reduce_precision(jnp.asarray(each), 8, 10) for each in operands]
    return APPLY(equation, *operands)


def test_what_a_bias_takes_up_is_no_product_of_a_gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Equation, "apply", as_on_a_gpu)
        result = pruned(plain)
    params = prunable.random_variables(variable_shapes(Reader(plain), SHAPE), 0)["params"]
    taken_up = CONSTANT * np.float64(params["kernel"][0])
    folded = np.float64(result.variables["params"]["bias"]) - params["bias"]
    np.testing.assert_allclose(folded, taken_up, rtol=1e-5)


def test_a_filter_that_hardly_changes_is_not_constant():
    module = Reader(plain)
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    variables["params"]["first"]["kernel"] *= 1e-4
    variables["params"]["first"]["bias"][:] = CONSTANT
    images = [(prunable.images(0, SHAPE), np.zeros(2, int))]
    for drop in ("dead", "proven"):
        result = prune.prune(module, variables, images, drop=drop)
        assert not result.removed
        assert not result.refused


def test_a_filter_that_the_last_images_wake_is_not_dead():
    module = Reader(plain)
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    variables["params"]["first"]["kernel"] = np.ones((1, 1, 3, 4), np.float32)
    variables["params"]["first"]["bias"] = np.float32([-1.5, 1, 1, 1])  # three bright colours
    dark, bright = (np.full(SHAPE, value, np.float32) for value in (0.1, 0.9))
    labels = np.zeros(2, int)
    batches = [(dark, labels), (bright, labels)]
    assert not prune.prune(module, variables, batches, drop="dead").removed
