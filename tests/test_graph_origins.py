"""Where values come from and who reads that, for computations whose answer is plain to see."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rice_jax.graph.origins import Origins
from rice_jax.graph.primitives import ALIASES, ELEMENTWISE
from rice_jax.graph.trace import trace

SIZE = 4


class Computed(nn.Module):
    """What `body` makes of an image (N, 4) and a variable (4,)."""

    body: object

    @nn.compact
    def __call__(self, x):
        return self.body(x, self.param("bias", nn.initializers.ones, (SIZE,)))


def traced(body):
    found = trace(Computed(body), (2, SIZE))
    return found, Origins(found)


def named(readers):
    return sorted(equation.name for equation in readers)


ALIAS = {
    "itself": lambda b: b,
    "reshaped": lambda b: b.reshape(1, SIZE),
    "repeated": lambda b: jnp.broadcast_to(b, (2, SIZE)),
    "cast to and fro": lambda b: b.astype(jnp.bfloat16).astype(jnp.float32),
    "reduced": lambda b: lax.reduce_precision(b, 8, 7),
    "turned": lambda b: b[None].T.T[0:1],
    "renamed": lambda b: lax.stop_gradient(b),
    "behind a barrier": lambda b: lax.optimization_barrier((b, b * 2))[0],
    "called": lambda b: jax.jit(lambda b: b.reshape(1, SIZE))(b),
    "several": lambda b: jnp.squeeze(b.astype(jnp.float16)[None, :, None], 2).astype(jnp.float32),
}


@pytest.mark.parametrize("name", ALIAS)
def test_an_alias_of_a_variable_is_followed_to_it(name):
    net, origins = traced(lambda x, b: x + ALIAS[name](b))
    added = net.equations[-1]
    origin = origins.origin(added.inputs[1])
    assert origin.path == "params/bias"
    assert added in origin.readers
    assert not origin.returned
    assert {step.name for step in origin.steps} <= ALIASES


@pytest.mark.parametrize(("first", "second"), list(zip(ALIAS, reversed(ALIAS), strict=True)))
def test_whoever_reads_another_alias_reads_the_origin(first, second):
    net, origins = traced(lambda x, b: (x + ALIAS[first](b)) * jnp.exp(ALIAS[second](b)))
    (added,) = (equation for equation in net.equations if equation.name == "add")
    readers = origins.origin(added.inputs[1]).readers
    assert {"add", "exp"} <= set(named(readers))


def test_what_is_returned_under_another_name_is_returned():
    net, origins = traced(lambda x, b: (x + b, b.astype(jnp.bfloat16)[None]))
    assert origins.origin(net.variables["params/bias"]).returned


@pytest.mark.parametrize(
    "operation",
    [jnp.exp, lambda b: b + b, lambda b: b * jnp.flip(b), lambda b: b @ jnp.ones((SIZE, SIZE))],
)
def test_what_computes_is_an_origin_of_its_own(operation):
    net, origins = traced(lambda x, b: x + operation(b).reshape(1, SIZE))
    origin = origins.origin(net.equations[-1].inputs[1])
    assert origin.path is None
    assert origin.value is not net.variables["params/bias"]


def test_constants_are_looked_through_where_it_is_asked_for():
    net, origins = traced(lambda x, b: x + jnp.sqrt(9.0 * x.shape[-1]) * (b / 3).reshape(1, SIZE))
    scaled = net.equations[-1].inputs[1]
    assert origins.origin(scaled).path is None
    origin = origins.origin(scaled, ALIASES | ELEMENTWISE)
    assert origin.path == "params/bias"
    assert next(step.name for step in origin.steps) == "div"
    assert named(origin.readers) == ["add"]


def test_roots_tell_images_variables_and_constants_apart():
    net, origins = traced(lambda x, b: (x * b, jnp.cos(b), jnp.sqrt(jnp.arange(4.0)) + 1))
    mixed, weight, constant = net.outputs
    assert origins.roots(mixed) == {net.input, net.variables["params/bias"]}
    assert origins.is_weight(weight)
    assert origins.paths(weight) == ["params/bias"]
    assert origins.is_constant(constant)
    assert not any(map(origins.is_weight, (mixed, constant)))


def test_one_kernel_scaled_in_two_places_is_one_and_two_constants_are_two():
    net, origins = traced(lambda x, b: (b * 2, b * 3, jnp.ones(2), jnp.ones(2) * 2))
    first, second, one, other = map(origins.identity, net.outputs)
    assert first == second
    assert len({first, one, other}) == 3


def test_places_tell_where_each_element_comes_from():
    net, origins = traced(
        lambda x, b: x[:, :, None] + b.reshape(2, 2).T.astype(jnp.bfloat16).reshape(1, SIZE, 1)
    )
    (added,) = (equation for equation in net.equations if equation.name == "add")
    places = origins.origin(added.inputs[1]).places()
    assert places.shape == added.inputs[1].shape
    np.testing.assert_array_equal(places.reshape(-1, SIZE)[0], [0, 2, 1, 3])


def test_a_weight_is_computed_without_an_image():
    net, origins = traced(lambda x, b: x * jnp.exp(b / jnp.sqrt(4.0)))
    (product,) = (equation for equation in net.equations if equation.name == "mul")
    got = origins.compute(product.inputs[1], {"params": {"bias": np.float32([0, 1, 2, 3])}})
    np.testing.assert_allclose(np.ravel(got), np.exp([0, 0.5, 1, 1.5]), rtol=1e-6)
