"""What loops and branches cost: as much as the same steps written out, or a name in `uncounted`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from rice_jax import profile


def call_back(x):
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


class Block(nn.Module):
    """A pre-activation block: a convolution, and what is done around it."""

    @nn.compact
    def __call__(self, x, _):
        y = nn.Conv(4, (3, 3), name="conv")(nn.relu(x))
        return x + nn.BatchNorm(use_running_average=True, name="norm")(y) * 0.5, y.mean((1, 2))


class Repeated(nn.Module):
    """Blocks with weights of their own, in a loop or written out."""

    length: int
    in_a_loop: bool

    @nn.compact
    def __call__(self, x):
        if self.in_a_loop:
            axes = {"params": 0, "batch_stats": 0}
            loop = nn.scan(
                Block, variable_axes=axes, split_rngs={"params": True}, length=self.length
            )
            x, means = loop(name="blocks")(x, None)
        else:
            each = []
            for number in range(self.length):
                x, mean = Block(name=f"block{number}")(x, None)
                each.append(mean)
            means = jnp.stack(each)
        return nn.Dense(3, name="head")(x.mean((1, 2)) + means.sum(0))


def unequal(counted, unrolled):
    """By convention, how far the count of a loop is from that of the loop written out."""
    pairs = zip(counted.flops.to_json().items(), unrolled.flops.to_json().values(), strict=True)
    return {name: one - other for (name, one), other in pairs if one != other}


def test_scanned_layers_count_as_often_as_they_run():
    looped = profile.count(Repeated(5, True), (2, 6, 6, 4), measure_xla=True)
    unrolled = profile.count(Repeated(5, False), (2, 6, 6, 4), measure_xla=True)
    assert looped.complete
    assert unequal(looped, unrolled) == {}
    assert unrolled.flops.xla == pytest.approx(unrolled.xla_measured, rel=1e-6)
    assert (looped.params, looped.filters) == (unrolled.params, unrolled.filters)
    rows = {row.path: row for row in looped.rows}
    assert rows["blocks/conv"].filters == 5 * 4
    assert rows["blocks/conv"].params == 5 * (9 * 4 * 4 + 4)
    assert rows["blocks/conv"].output_shape == (2, 6, 6, 4)
    assert rows["blocks/conv"].times == 5
    assert rows["blocks/conv"].flops.formula == 5 * (2 * 2 * 36 * 9 * 4 * 4)
    assert rows["head"].times == 1
    assert "blocks/conv (Conv) x5" in profile.summary(looped)


class Flat(nn.Module):
    """A kernel that is kept as a matrix."""

    @nn.compact
    def __call__(self, x, _):
        kernel = self.param("kernel", nn.initializers.ones, (36, 4)).reshape(3, 3, 4, 4)
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers), None


@pytest.mark.parametrize(("own", "filters"), [(True, 12), (False, 4)])
def test_filters_of_a_kernel_that_a_loop_rearranges(own, filters):
    class Looped(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"variable_axes": {"params": 0}} if own else {"variable_broadcast": "params"}
            return nn.scan(Flat, split_rngs={"params": own}, length=3, **axes)()(x, None)[0]

    counted = profile.count(Looped(), (6, 6, 4))
    assert (counted.filters, counted.params) == (filters, 36 * filters)


def test_xlas_own_count_has_a_loops_body_once_and_the_table_says_so():
    looped = profile.count(Repeated(5, True), (2, 6, 6, 4), measure_xla=True)
    once = profile.count(Repeated(1, False), (2, 6, 6, 4))
    outside = looped.flops.xla - looped.xla_loops_once
    assert looped.xla_measured < looped.flops.xla - outside / 2
    # Beside the body XLA counts the loop's own counter and what finds a slice's place.
    assert looped.xla_loops_once <= looped.xla_measured <= looped.xla_loops_once + 40
    assert looped.xla_loops_once == once.flops.xla + 4 * 2 * 4  # sums 5 means where the other has 1
    table = profile.summary(looped)
    assert f"XLA's own count: {looped.xla_measured:,}, each loop's body once" in table


class Weighed(nn.Module):
    """One matrix, applied by a step as often as the step says."""

    step: object

    @nn.compact
    def __call__(self, x):
        return self.step(x, self.param("kernel", nn.initializers.ones, (4, 4)))


def written_out(x, kernel):
    for _ in range(7):
        x = jnp.sin(x @ kernel)
    return x


def nested(x, kernel):
    def outer(x, _):
        return lax.fori_loop(0, 2, lambda _, x: jnp.sin(x @ kernel), x), None

    return jnp.sin(lax.scan(outer, x, None, length=3)[0] @ kernel)


def until(holds, step):
    """A `while` over a counter beside the data."""

    def loop(x, kernel):
        def body(state):
            return step(state[0]), jnp.sin(state[1] @ kernel)

        return lax.while_loop(lambda state: holds(state[0]), body, (1, x))[1]

    return loop


def bounded_outside(x, kernel):
    """The bound is an array that the loop closes over, the counter an array from outside."""
    last, first = jnp.arange(15)[-1], jnp.zeros((), jnp.int32)
    state = first, x
    return lax.while_loop(
        lambda s: s[0] < last, lambda s: (s[0] + 2, jnp.sin(s[1] @ kernel)), state
    )[1]


LOOPS = {
    "scan": lambda x, w: lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, None, length=7)[0],
    "scan over stacked weights": lambda x, w: lax.scan(
        lambda x, w: (jnp.sin(x @ w), None), x, jnp.broadcast_to(w, (7, 4, 4))
    )[0],
    "fori": lambda x, w: lax.fori_loop(0, 7, lambda _, x: jnp.sin(x @ w), x),
    "fori in a jit": jax.jit(lambda x, w: lax.fori_loop(3, 10, lambda _, x: jnp.sin(x @ w), x)),
    "map": lambda x, w: lax.map(lambda row: jnp.sin(row @ w), jnp.broadcast_to(x, (7, *x.shape))),
    "nested": nested,
    "counting up": until(lambda i: i < 8, lambda i: i + 1),
    "counting down": until(lambda i: i > -13, lambda i: i - 2),
    "doubling": until(lambda i: i <= 64, lambda i: i * 2),
    "not equal": until(lambda i: i != 15, lambda i: i + 2),
    "two tests": until(lambda i: (i < 100) & (i * i < 50), lambda i: i + 1),
    "bound from outside": bounded_outside,
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_counts_as_the_same_steps_written_out(name):
    looped = profile.count(Weighed(LOOPS[name]), (6, 4), softmax=False)
    unrolled = profile.count(Weighed(written_out), (6, 4), softmax=False)
    assert looped.complete
    assert looped.flops.formula == 7 * 2 * 6 * 4 * 4
    # What is left is the loop's own counter, at most a few scalars a trip.
    assert all(0 <= count <= 7 * 4 for count in unequal(looped, unrolled).values())
    (row,) = [row for row in looped.rows if row.params]
    assert (row.params, row.times) == (16, 6 if name == "nested" else 7)


@pytest.mark.parametrize(
    "loop",
    [
        until(lambda i: i > 0, lambda i: i + 1),  # for ever
        lambda x, w: lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x),
        lambda x, w: lax.fori_loop(0, jnp.int32(x[0, 0]), lambda _, x: x @ w, x),
        lambda x, w: lax.fori_loop(0, jnp.int32(w[0, 0]), lambda _, x: x @ w, x),
        lambda x, w: lax.scan(
            lambda x, i: (lax.fori_loop(0, i, lambda _, x: x @ w, x), None), x, jnp.arange(3)
        )[0],
    ],
)
def test_a_loop_whose_trips_are_not_known_is_named_not_counted_once(loop):
    counted = profile.count(Weighed(loop), (6, 4))
    assert [operation.operation for operation in counted.uncounted] == ["while"]
    assert counted.flops.formula == 0
    assert not counted.rows[0].complete


class Experts(nn.Module):
    """One of three layers, by what the image is."""

    known: bool = False

    @nn.compact
    def __call__(self, x):
        which = jnp.int32(1) if self.known else jnp.int32(x[0, 0])
        layers = [nn.Dense(3, name="small"), nn.Dense(3, name="middle"), Wide(name="wide")]
        branches = [lambda module, x, layer=layer: layer(x) for layer in layers]
        if self.is_initializing():
            for layer in layers:
                layer(x)
        return nn.relu(nn.switch(which, branches, self, x))


class Wide(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="down")(nn.Dense(20, name="up")(x))


def test_of_a_branch_the_dearest_is_counted_and_it_is_said():
    counted = profile.count(Experts(), (2, 4), measure_xla=True)
    rows = {row.path: row for row in counted.rows}
    assert counted.complete
    assert counted.flops.formula == 2 * 2 * (4 * 20 + 20 * 3)
    assert rows["wide/up"].branches == rows["wide/down"].branches == 3
    assert rows["small"].skipped
    assert rows["middle"].skipped
    assert rows["small"].params == 15
    # XLA takes the dearest too. It counts what makes a branch's number of a float.
    assert counted.flops.xla == pytest.approx(counted.xla_measured, abs=5)
    table = profile.summary(counted)
    assert "The dearest of several branches: wide/up, wide/down" in table
    assert "In a cheaper branch, not counted: middle, small" in table


def test_a_branch_that_is_known_is_the_one_that_counts():
    counted = profile.count(Experts(known=True), (2, 4))
    assert counted.flops.formula == 2 * 2 * 4 * 3
    assert all(row.branches == 1 for row in counted.rows)


def test_what_cannot_be_known_in_any_branch_marks_the_total():
    def step(x, kernel):
        return lax.cond(x[0, 0] > 0, lambda x: x @ kernel, call_back, x)

    counted = profile.count(Weighed(step), (6, 4))
    assert counted.flops.formula == 2 * 6 * 4 * 4
    assert [operation.operation for operation in counted.uncounted] == ["pure_callback"]
    assert not counted.complete


def test_no_constant_in_a_loop_is_taken_for_what_it_is_at_first():
    """Zeros that a loop begins with are none later: adding to them counts."""

    def summed(x, kernel):
        return lax.scan(lambda s, _: (s + x @ kernel, None), jnp.zeros_like(x), None, length=7)[0]

    counted = profile.count(Weighed(summed), (6, 4))
    assert counted.flops.xla == 7 * (2 * 6 * 4 * 4 + 6 * 4)


DEVICES = 4


def spread(function, specs, out):
    """`function` on devices that need not be there to be counted."""
    mesh = AbstractMesh((DEVICES,), ("d",), axis_types=(AxisType.Auto,))
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out)


def convolved(x, kernel, bias):
    numbers = ("NHWC", "HWIO", "NHWC")
    return nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, numbers) + bias)


WHOLE, FIRST, LAST = P(), P("d"), P(None, None, None, "d")
SPREADS = {
    "images": (convolved, (FIRST, WHOLE, WHOLE), FIRST),
    "filters": (convolved, (WHOLE, LAST, FIRST), LAST),
    "a loop inside": (
        lambda x, w, b: lax.fori_loop(0, 1, lambda _, y: y + convolved(x, w, b), 0 * x),
        (FIRST, WHOLE, WHOLE),
        FIRST,
    ),
}


class Spread(nn.Module):
    """A convolution that devices share, between a stem and a head."""

    body: object

    @nn.compact
    def __call__(self, x):
        width = 4 * DEVICES
        x = nn.Conv(width, (1, 1), name="stem")(x)
        kernel = self.param("kernel", nn.initializers.normal(), (3, 3, width, width))
        x = self.body(x, kernel, self.param("bias", nn.initializers.normal(), (width,)))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


@pytest.mark.parametrize("name", SPREADS)
def test_what_devices_share_counts_as_on_one(name):
    function, specs, out = SPREADS[name]
    shape = (2 * DEVICES, 6, 6, 4)
    shared = profile.count(Spread(spread(function, specs, out)), shape, measure_xla=True)
    alone = profile.count(Spread(function), shape)
    assert shared.complete
    # Of each device JAX casts the 0 that a ReLU compares with.
    assert unequal(shared, alone).items() <= {("xla", DEVICES * n) for n in (1, 2)}
    assert (shared.params, shared.filters) == (alone.params, alone.filters)
    (row,) = [row for row in shared.rows if row.params == alone.rows[1].params]
    assert row.times == DEVICES
    # XLA has one device's share, and takes one off for each array that is cut or put together.
    assert 0 <= shared.xla_loops_once - shared.xla_measured <= 2 * len(specs)


def test_what_every_device_does_counts_for_each_and_sums_over_them_too():
    def body(x, kernel):
        return lax.psum((x @ kernel).sum(0), "d")

    shared = profile.count(
        Weighed(spread(body, (FIRST, WHOLE), WHOLE)), (6 * DEVICES, 4), softmax=False
    )
    products, sums = 2 * 6 * 4 * 4, 5 * 4
    assert shared.flops.to_json() == {
        "formula": DEVICES * products,
        "study": DEVICES * (products + sums),
        "xla": DEVICES * (products + sums + 4),
    }
    same = profile.count(Weighed(spread(jnp.matmul, (WHOLE, WHOLE), WHOLE)), (6, 4))
    assert same.flops.formula == DEVICES * products


def test_a_loop_that_ends_by_what_other_devices_say_is_not_counted():
    def body(x, kernel):
        most = lax.psum(1, "d") + lax.axis_index("d")
        return lax.fori_loop(0, most, lambda _, x: x @ kernel, x)

    counted = profile.count(Weighed(spread(body, (FIRST, WHOLE), FIRST)), (8, 4))
    assert [operation.operation for operation in counted.uncounted] == ["while"]
