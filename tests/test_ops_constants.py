"""Variables as constants of a program: on a CPU, up to 4 MB, with the same results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rice_jax import ops

MEGABYTE = 2**20


def product(variables, x):
    return x @ variables["kernel"].astype(x.dtype)


def compiled(variables, x):
    """What `product` of the variables compiles to, and its result."""
    function, given = ops.bound(product, variables)
    jitted = jax.jit(function)
    return jitted.lower(given, x), jitted(given, x)


def arguments(lowered):
    return len(jax.tree.leaves(lowered.in_avals))


@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int8])
@pytest.mark.parametrize(
    ("rows", "as_constants"),
    [(1, True), (4 * MEGABYTE // 256, True), (4 * MEGABYTE // 256 + 1, False)],
)
def test_variables_of_up_to_four_megabytes_are_constants(dtype, rows, as_constants):
    columns = 256 // jnp.dtype(dtype).itemsize
    drawn = np.random.default_rng(0).integers(-3, 4, (rows, columns))  # any order sums them exactly
    kernel = jnp.asarray(drawn, dtype)
    x = jnp.ones((1, rows))
    lowered, result = compiled({"kernel": kernel}, x)
    assert arguments(lowered) == (1 if as_constants else 2)
    np.testing.assert_array_equal(result[0], drawn.sum(0))


@pytest.mark.parametrize("kind", ["key", "number", "shape"])
def test_what_is_no_array_of_numbers_stays_an_argument(kind):
    leaf = {
        "key": jax.random.key(0),
        "number": 1.5,
        "shape": jax.ShapeDtypeStruct((2, 2), jnp.float32),
    }[kind]
    variables = {"kernel": np.ones((2, 2), np.float32), "other": leaf}
    function, given = ops.bound(product, variables)
    assert function is product
    assert given is variables


def test_variables_that_are_traced_are_arguments():
    x = jnp.ones((1, 2))

    def loss(variables):
        function, given = ops.bound(product, variables)
        return function(given, x).sum()

    gradient = jax.grad(loss)({"kernel": jnp.ones((2, 3))})
    np.testing.assert_array_equal(gradient["kernel"], np.ones((2, 3)))
