"""Nets with loops, branches and the number of images in them, as files that have none of these."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rice_jax import export
from rice_jax.errors import UserError
from rice_jax.export import runtimes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jax2onnx's own
IMAGES = np.random.default_rng(0).random((3, 8, 8, 3), dtype=np.float32) - np.float32(0.3)
NEEDED = {".onnx": "jax2onnx", ".tflite": "litert_converter"}
MADE = {".onnx": export.to_onnx, ".tflite": export.to_tflite}


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Conv(4, (3, 3), name="conv")(x)) + x, None


class Deep(nn.Module):
    """Three blocks whose kernels lie in one array."""

    @nn.compact
    def __call__(self, x):
        split = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        return nn.scan(Block, length=3, **split)(name="blocks")(x, None)[0]


def by_rows(step, x, **options):
    """From row to row, what is handed on and what is given for each."""
    carry, given = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1), **options)
    return carry[:, None] + given.swapaxes(0, 1)


def adding(carry, row):
    return 0.5 * carry + row, carry - row


def of_like_sizes(x):
    """What stays and what is handed on have the size of a part, and as many rows as steps."""
    stays = x[:, :4, 0, 0]

    def step(carry, part):
        return carry * stays + part, carry

    carry, given = jax.lax.scan(step, stays, jnp.stack([stays, 2 * stays, -stays, stays + 1]))
    return x * (carry + given.sum(0))[:, :1, None, None]


def in_one_step(x):
    """The one step's axis stands before another of one."""
    carry, given = jax.lax.scan(lambda c, part: (c + part, c - part), x[:, :1], x[None, :, :1])
    return x * carry - given[0]


def loop_in_loop(x):
    def outer(x, _):
        return jax.lax.fori_loop(0, 2, lambda i, x: jnp.cbrt(x) + i, x), x.mean((1, 2))

    x, means = jax.lax.scan(outer, x, None, length=2)
    return x * means[1][:, None, None]


def switch(x):
    """Of three, the second for these images; a number that is too large or small is the nearest."""
    branches = [lambda x: x - 1, lambda x: jnp.fmod(x, 0.3), lambda x: 3 * x]
    numbers = (jnp.int32(jnp.ceil(x.max((1, 2, 3)) * 0 + each)) for each in (1, 7, -7))
    return sum(jax.lax.switch(number[0], branches, x) for number in numbers)


LOOPS = {
    "scan": lambda x: by_rows(adding, x),
    "scan in reverse": lambda x: by_rows(adding, x, reverse=True),
    "scan in twos": lambda x: by_rows(adding, x, unroll=2),
    "scan of like sizes": of_like_sizes,
    "scan in one step": in_one_step,
    "layers": lambda x: Deep(name="deep")(x),
    "fori": lambda x: jax.lax.fori_loop(0, 4, lambda i, x: 0.5 * x + i, x),
    "map": lambda x: jax.lax.map(lambda row: row * row.mean((1, 2), keepdims=True), x[None])[0],
    "map of nothing": lambda x: x * jax.lax.map(lambda row: row, x.swapaxes(0, 1)).swapaxes(0, 1),
    "loop in loop": loop_in_loop,
    "cond": lambda x: jax.lax.cond(x.size > 1, lambda x: 2 * x, lambda x: x - 1, x),
    "cond on values": lambda x: jax.lax.cond(x.min() > -9, jnp.tanh, lambda x: x - 1, x),
    "cond, then a norm": lambda x: nn.RMSNorm(name="norm")(
        jax.lax.cond(x.min() > 9, lambda x: x - 1, lambda x: 2 * x, x)
    ),
    "switch": switch,
}


class Around(nn.Module):
    operation: Any

    @nn.compact
    def __call__(self, x):
        x = self.operation(nn.Conv(4, (3, 3), name="conv")(x))
        return nn.Dense(3, name="head")(x.reshape(x.shape[0], -1))


def around(operation):
    module = Around(operation)
    variables = module.init(jax.random.key(0), IMAGES)
    return module, variables, module.apply(variables, IMAGES)


@pytest.mark.parametrize("suffix", MADE)
@pytest.mark.parametrize("name", LOOPS)
def test_loops_and_branches_are_written_out(name, suffix):
    pytest.importorskip(NEEDED[suffix])
    module, variables, logits = around(LOOPS[name])
    content = MADE[suffix](module, variables, 8)
    found = runtimes.opened(suffix, content)(IMAGES)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", MADE)
def test_what_a_format_lacks_is_named_where_a_loop_holds_it(suffix):
    pytest.importorskip(NEEDED[suffix])

    def step(x, _):
        return jax.lax.linalg.cholesky(jnp.eye(8) + 0 * x[..., 0])[..., None] + x, None

    def operation(x):
        return jax.lax.scan(step, x, None, length=2)[0]

    module, variables, _ = around(operation)
    with pytest.raises(UserError, match=r"^the net: cholesky has (no|an) \w+ form"):
        MADE[suffix](module, variables, 8)


OF_THE_BATCH = {
    "mean": lambda x: x - x.mean(),
    "norm over the batch": lambda x: (
        (x - x.mean((0, 1, 2))) * jax.lax.rsqrt(x.var((0, 1, 2)) + 0.1)
    ),
    "rows as images": lambda x: nn.relu(x.reshape(8 * x.shape[0], 8, 4) - 0.1).reshape(x.shape),
    "number of images": lambda x: 2 * x / (3 * x.shape[0] + 1),
    "more than images": lambda x: jnp.concatenate([x, x])[: x.shape[0]],
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_what_is_computed_of_the_number_of_images_is_so_in_onnx(name, count):
    """'8*batch' is eight times a batch's size."""
    pytest.importorskip("jax2onnx")
    module, variables, _ = around(OF_THE_BATCH[name])
    images = IMAGES[:count]
    found = runtimes.opened(".onnx", export.to_onnx(module, variables, 8))(images)
    np.testing.assert_allclose(found, module.apply(variables, images), rtol=1e-5, atol=1e-5)


def first_half_doubled(x):
    half = x.shape[0] // 2
    return jnp.concatenate([2 * x[:half], x[half:]])


@pytest.mark.parametrize(
    ("primitive", "operation"),
    [
        ("gather", first_half_doubled),
        ("sort", lambda x: jnp.sort(x, 0)),
        ("sort", lambda x: x - jnp.median(x, 0)),
        ("sort", lambda x: x - jnp.median(x)),
        ("sort", lambda x: x - jnp.quantile(x, 0.3, axis=0)),
        ("sort", lambda x: x * jnp.argsort(x.ravel()).reshape(x.shape)),
        ("cumprod", lambda x: jnp.cumprod(x, 0)),
        ("cummax", lambda x: jax.lax.cummax(x, 0)),
        ("scan", lambda x: jax.lax.scan(lambda c, each: (c + each, c), x[0], x)[1]),
        ("scan", lambda x: jax.lax.map(lambda each: each - each.mean(), x)),
        ("scan", lambda x: 2 * jax.lax.map(lambda each: jnp.sort(each, 0), x)),
    ],
)
@pytest.mark.one_in(2)
def test_what_goes_over_a_batch_of_any_size_is_right_or_named_as_what_does(primitive, operation):
    """Not what is done with it: some of that is read by nothing where there is one image.

    Loops over the images can be had of what JAX 0.10 writes.
    """
    pytest.importorskip("jax2onnx")
    module, variables, _ = around(operation)
    refused = (
        f"the net: {primitive} has an ONNX form for one image, but none for a batch of any size; "
        "a .stablehlo takes more"
    )
    content, said = None, None
    try:
        content = export.to_onnx(module, variables, 8)
    except UserError as error:
        said = str(error)
    assert content or said == refused
    for count in (1, 3) if content else ():
        found = runtimes.opened(".onnx", content)(IMAGES[:count])
        wanted = module.apply(variables, IMAGES[:count])
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
