"""The flat computation: complete, tagged with its layers, and equal to the module's own result."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest

from rice_jax import models, profile
from rice_jax.graph.trace import trace, variable_shapes


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(x))
        return x + nn.Conv(x.shape[-1], (3, 3), name="conv")(y)


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        block = nn.remat(Block)(name="block")
        x = block(block(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def names(traced, layer):
    return [equation.name for equation in traced.equations if equation.layer == layer]


def test_equations_carry_the_path_of_their_layer():
    traced = trace(models.build("googlenet_light"), (1, 32, 32, 3))
    assert names(traced, "inception3a/branch2/reduce") == ["conv_general_dilated", "reshape", "add"]
    assert names(traced, "pool1") == ["reduce_window_max"]
    assert "relu" in names(traced, "inception3a/branch2")
    assert traced.layers["inception3a/branch2/reduce"].params == {
        "kernel": (1, 1, 64, 16),
        "bias": (16,),
    }
    assert traced.layers["inception3a"].output.shape == (1, 4, 4, 56)
    assert list(traced.layers)[:3] == ["", "conv1", "pool1"]


@pytest.mark.parametrize("make", [Residual, lambda: models.build("googlenet_light")])
def test_evaluation_of_the_trace_equals_the_module(make):
    module, x = make(), prunable.images(1)
    variables = prunable.random_variables(variable_shapes(module, x.shape), 0)
    traced = trace(module, x.shape)
    both = prunable.compiled(
        lambda v, x: (traced.evaluate(v, x, traced.outputs)[0], module.apply(v, x)), variables, x
    )
    np.testing.assert_allclose(*both(variables, x), rtol=1e-5, atol=1e-6)


def test_an_edited_value_is_what_the_rest_of_the_net_reads():
    module, x = models.build("final", stages=((2,), (2,)), dense=3), jnp.ones((1, 8, 8, 3))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    traced = trace(module, x.shape)
    dense, head = traced.layers["dense"].output, traced.layers["head"].output
    silenced = {dense: jnp.zeros_like}
    got = traced.evaluate(variables, x, [dense, head], silenced)
    assert not got[0].any()
    np.testing.assert_array_equal(got[1][0], variables["params"]["head"]["bias"])


def test_a_shared_module_called_twice_is_one_layer_with_two_calls():
    traced = trace(Residual(), (1, 8, 8, 3))
    assert traced.layers["block/conv"].calls == 2
    assert names(traced, "block/conv").count("conv_general_dilated") == 2


def test_producers_and_consumers_follow_the_data():
    traced = trace(models.build("final"), (1, 16, 16, 3))
    conv1 = traced.layers["conv1"].output
    assert traced.producer(conv1).name == "add"
    (relu,) = traced.consumers(conv1)
    assert relu.name == "relu"
    (pool,) = traced.consumers(relu.outputs[0])
    assert pool.layer == "pool1"
    assert traced.producer(traced.input) is None


class Reduced(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jax.lax.reduce(x, 0.0, lambda a, b: jnp.hypot(a, b), (1, 2))


def test_a_reduction_by_a_function_of_its_own_is_one_equation():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    traced = trace(Reduced(), x.shape)
    assert [equation.name for equation in traced.equations] == ["reduce"]
    (norms,) = traced.evaluate({}, x, traced.outputs)
    np.testing.assert_allclose(norms, [[56**0.5, 84**0.5]], rtol=1e-6)


def test_tracing_computes_nothing():
    module = models.build("vgg16")
    traced = trace(module, (1, 224, 224, 3))
    assert traced.outputs[0].shape == (1, 5)
    assert traced.variables["params/conv1/kernel"].dtype == jnp.float32


def test_a_reduction_with_an_operator_of_its_own_is_one_equation():
    class Product(nn.Module):
        @nn.compact
        def __call__(self, x):
            zero = jnp.sin(x[0, 0, 0, 0]) * 0  # not a constant: JAX cannot know the monoid
            return jax.lax.reduce_window(
                x, zero, lambda a, b: a + 2 * b, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
            )

    traced = trace(Product(), (1, 4, 4, 2))
    assert traced.equations[-1].name == "reduce_window"
    assert traced.outputs[0].shape == (1, 2, 2, 2)


def test_what_a_platform_does_otherwise_can_be_run_instead_of_the_default():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            others = {platform: lambda x: x + 1 for platform in ("cpu", "cuda", "rocm", "tpu")}
            x = 2 * jax.lax.platform_dependent(2 * x, **others, default=lambda x: (x + 3) * 4)
            return nn.relu(x)

    traced = trace(Net(), (1,))
    x = jnp.array([5.0])
    assert [equation.name for equation in traced.equations] == ["mul", "add", "mul", "mul", "relu"]
    inside = traced.equations[1].outputs[0]

    def run(wanted, **kwargs):
        return jax.jit(lambda x: traced.evaluate({}, x, wanted, **kwargs))(x)

    assert run(traced.outputs) == [2 * 4 * (2 * 5 + 3)]
    assert run(traced.outputs, by_platform=True) == [2 * (2 * 5 + 1)]
    # A value of the default alone is there in no other way.
    assert run([inside, *traced.outputs], by_platform=True) == [2 * 5 + 3, 2 * 4 * (2 * 5 + 3)]


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(4, name="dense")(x)), None


def scanned(x):
    loop = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
    return loop(name="loop")(x, None)[0]


@pytest.mark.parametrize(
    ("step", "primitive", "inside"),
    [
        (scanned, "scan", [["dot_general", "reshape", "add", "relu"]]),
        (
            lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: jnp.sin(x) * 2, x),
            "while",
            [["reduce_sum", "lt"], ["sin", "mul"]],
        ),
        (
            lambda x: jax.lax.switch(jnp.int32(x[0, 0]), [jnp.sin, jnp.cos, jnp.tan], x),
            "cond",
            [["sin"], ["cos"], ["tan"]],
        ),
    ],
)
def test_a_loop_and_a_branch_are_one_equation_that_holds_what_it_runs(step, primitive, inside):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return step(x) + 1

    x = jnp.ones((2, 4)) / 8
    variables = Net().init(jax.random.key(0), x)
    traced = trace(Net(), x.shape)
    (whole,) = [equation for equation in traced.equations if equation.bodies]
    assert whole.name == primitive
    bodies = [[e.name for e in body.equations if e.name != "transpose"] for body in whole.bodies]
    assert bodies == inside
    # To evaluate a trace, the equation runs as the whole that it is.
    (got,) = traced.evaluate(variables, x, traced.outputs)
    np.testing.assert_allclose(got, Net().apply(variables, x), rtol=1e-6)


def test_layers_in_a_loop_have_paths_there_and_no_output_outside():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return scanned(x)

    traced = trace(Net(), (2, 4))
    (loop,) = [equation for equation in traced.equations if equation.name == "scan"]
    (body,) = loop.bodies
    assert {equation.layer for equation in body.equations} == {"loop", "loop/dense"}
    assert body.layer_outputs["loop/dense"].shape == (2, 4)
    assert traced.layers["loop/dense"].output is None
    assert traced.layers["loop/dense"].params == {"kernel": (3, 4, 4), "bias": (3, 4)}


def lifted(transform, **options):
    """`transform` of a function that calls a convolution."""

    def call(module, x):
        return transform(lambda layer, x: layer(x), **options)(nn.Conv(4, (3, 3), name="conv"), x)

    return call


def wrapped(wrapper, **kwargs):
    return lambda module, x: wrapper(nn.Conv(4, (3, 3), name="conv"), name="norm")(x, **kwargs)


def made_by(transform, **options):
    kind = transform(nn.Conv, **options)
    return lambda module, x: kind(4, (3, 3), name="conv")(x)


def unchanged(variables):
    return variables


@pytest.mark.parametrize(
    "call",
    [
        wrapped(nn.WeightNorm),
        wrapped(nn.SpectralNorm, update_stats=False),
        made_by(nn.remat),
        made_by(nn.jit),
        made_by(nn.map_variables, mapped_collections="params", trans_in_fn=unchanged, init=True),
        made_by(nn.add_metadata_axis, variable_axes={"params": None}),
        lifted(nn.remat),
        lifted(nn.jit),
        lifted(
            nn.custom_vjp, forward_fn=lambda f, x: (f(x), x), backward_fn=lambda kept, g: (g, g)
        ),
    ],
)
def test_a_layer_in_a_wrapper_is_no_call_of_the_outermost_module(call):
    """Flax runs the setup of a copy of it, in a scope of its own."""

    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            return call(self, x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Inner(name="inner")(x).mean((1, 2))
            return x @ self.param("matrix", nn.initializers.normal(), (4, 3))

    layers = trace(Outer(), (1, 6, 6, 3)).layers
    modules = {path: layer.module for path, layer in layers.items() if path != "inner/norm"}
    assert modules == {"": Outer, "inner": Inner, "inner/conv": nn.Conv}
    assert (layers[""].calls, layers[""].methods) == (1, {"__call__"})
    rows = {row.path: (row.type, row.params) for row in profile.count(Outer(), (6, 6, 3)).rows}
    assert rows[""] == ("Outer", 12)
    assert rows["inner/conv"] == ("Conv", 3 * 3 * 3 * 4 + 4)
