"""What must be cut together, for operations whose answer can be written down by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest

from rice_jax import models, prune
from rice_jax.errors import UserError

SHAPE = (2, 8, 8, 3)


class Net(nn.Module):
    """A stem of four filters, then `body`, then a mean and a head of two classes."""

    body: object

    @nn.compact
    def __call__(self, x):
        x = self.body(nn.relu(nn.Conv(4, (3, 3), name="stem")(x)))
        return nn.Dense(2, name="head")(x.mean((1, 2)) if x.ndim == 4 else x)


def groups(graph):
    """Each group as its layers and its size."""
    return {tuple(graph.layers(g)): size for g, size in enumerate(graph.sizes().tolist())}


def along(graph, path, axis):
    return graph.axes[graph.trace.variables[path]][axis].tolist()


def of_equal_numbers(x, groups, times=1, make=jnp.ones):
    """A convolution whose kernel the code makes of one number, as wide as the channels are."""
    channels = x.shape[-1]
    kernel = make((2, 2, channels // groups, channels * times))
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", feature_group_count=groups, dimension_numbers=numbers
    )


@pytest.mark.parametrize("name", models.NETS)
def test_each_layer_of_the_eight_nets_is_a_group_of_its_own(name):
    graph = prune.dependencies(prunable.NETS[name](), prunable.SHAPE)
    widths = {(path,): len(f.channels) for path, f in graph.filters.items() if path != "head"}
    assert groups(graph) == widths
    assert set(graph.filters["head"].channels) == {-1}
    assert along(graph, "params/conv1/kernel", 2) == [-1, -1, -1]  # the image's colours


def test_a_residual_ties_all_that_is_added_together():
    graph = prune.dependencies(prunable.Residual(), prunable.SHAPE)
    assert groups(graph) == {
        ("stem", "a_out", "b_out"): 6,
        ("a_in",): 5,
        ("b_in",): 5,
        # Depthwise: a filter for each channel that comes in.
        ("down", "depthwise"): 4,
        # Two groups of four: the same place of both goes at once, in what the gate scales too.
        ("grouped", "shortcut", "excite"): 4,
        ("squeeze",): 4,
    }
    stem = along(graph, "params/stem/kernel", 3)
    assert along(graph, "batch_stats/stem_norm/mean", 0) == stem
    assert along(graph, "params/a_out_norm/scale", 0) == stem
    assert along(graph, "params/down/kernel", 2) == stem


def test_concatenation_shifts_and_flatten_repeats():
    graph = prune.dependencies(prunable.Inceptions(), (1, 8, 8, 3))
    parts = [along(graph, f"params/first/{name}/kernel", 3) for name in ("one", "three", "pooled")]
    joined = [channel for part in parts for channel in part]
    assert along(graph, "params/second/three/kernel", 2) == joined
    second = [
        channel
        for name in ("one", "three", "pooled")
        for channel in along(graph, f"params/second/{name}/kernel", 3)
    ]
    # 8 x 8 pooled by 4, padded to 4 x 4, every other pixel: 2 x 2, flattened row by row.
    assert along(graph, "params/dense/kernel", 0) == (joined + second) * 4


@pytest.mark.parametrize(
    "body",
    [
        lambda x: jnp.where(x > 0.5, x, x * 0.1),
        lambda x: x - jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape),
        lambda x: jnp.clip(nn.silu(x), 0, 6).astype(jnp.bfloat16),
        lambda x: jnp.flip(x, (1, 3)),
        lambda x: x.reshape(-1, 4, 16, 4)[:, ::2].transpose(3, 0, 1, 2).max((2, 3)).T,
        lambda x: jnp.squeeze(x[:, :1], 1).mean(1),
        lambda x: nn.avg_pool(x, (3, 3), padding="SAME") + jnp.ones(4),
        lambda x: x * jnp.arange(8.0)[:, None, None],
        lambda x: jnp.concatenate([x, x], axis=1),
        lambda x: jnp.tile(x, (1, 2, 1, 1)),
        lambda x: jnp.tile(x, (1, 1, 1, 3)),
        lambda x: x * np.full((1, 4), 0.5, np.float32) + np.zeros(x.shape[-1], np.float32),
        lambda x: x * jnp.tile(jnp.arange(8.0)[:, None, None], (1, 8, 4)),
        lambda x: of_equal_numbers(x, 4, make=lambda shape: np.ones(shape, np.float32)),
        lambda x: of_equal_numbers(x, 4, make=lambda shape: jnp.tile(0.5, shape)),
        lambda x: jax.nn.gelu(x),
        lambda x: jnp.einsum("nhwc,nhwc->nc", x, x),
        lambda x: x[..., jnp.array([3, 1, 2, 0])],
        lambda x: jnp.roll(x, 1, axis=-1),
        lambda x: jax.lax.dynamic_slice_in_dim(jnp.concatenate([x, x], -1), 2, 4, axis=3),
    ],
)
def test_operations_that_keep_channels_apart_are_seen_through(body):
    assert groups(prune.dependencies(Net(body), SHAPE)) == {("stem",): 4}


@pytest.mark.parametrize(
    ("body", "ties"),
    [
        # Channels that have the same place along the axis that is read as channels.
        (lambda x: x.reshape(-1, 8, 8, 2, 2).mean(-1), [[0, 1], [2, 3]]),
        (lambda x: x.reshape(-1, 8, 8, 2, 2).mean(-2), [[0, 2], [1, 3]]),
        (lambda x: x.reshape(-1, 8, 8, 2, 2).swapaxes(3, 4).reshape(x.shape), [[0, 2], [1, 3]]),
        (lambda x: x[..., :2] * x[..., 2:], [[0, 2], [1, 3]]),
        (lambda x: nn.glu(x), [[0, 2], [1, 3]]),
        (lambda x: x[..., ::2] + x[..., 1::2], [[0, 1], [2, 3]]),
        (lambda x: x + x[..., ::-1], [[0, 3], [1, 2]]),
        (lambda x: x + jnp.roll(x, 2, -1), [[0, 2], [1, 3]]),
        (lambda x: x[..., jnp.array([0, 2])] + x[..., jnp.array([3, 1])], [[0, 3], [1, 2]]),
        (lambda x: sum(jnp.split(x, [1, 2, 3], -1)), [[0, 1, 2, 3]]),
        (lambda x: x[..., :3], [[0], [1], [2], [3]]),
    ],
)
def test_channels_picked_by_their_place_are_tied_as_they_meet(body, ties):
    graph = prune.dependencies(Net(body), SHAPE)
    stem = graph.filters["stem"].channels
    assert sorted(np.flatnonzero(stem == c).tolist() for c in set(stem.tolist())) == ties


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        (lambda x: jnp.sort(x, axis=-1), "sort"),
        (lambda x: jnp.cumsum(x, axis=-1), "cumsum"),
        (lambda x: x / x.sum(-1, keepdims=True), "reduce_sum"),
        (
            lambda x: jax.lax.dynamic_slice_in_dim(x, x.argmax().astype(int), 2, axis=3),
            "argmax",
        ),
        (
            lambda x: jax.lax.dynamic_slice_in_dim(x, jnp.int32(x[0, 0, 0, 0]), 2, axis=3),
            "dynamic_slice",
        ),
        (lambda x: (x[..., None] * x[..., None, :]).reshape(*x.shape[:3], 16), "reshape"),
        (lambda x: nn.max_pool(x.transpose(0, 3, 1, 2), (2, 2)), "reduce_window_max"),
        (lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0),) * 3 + ((0, -1, 0),)), "pad"),
        (lambda x: x[..., jnp.int32(x[0, 0, 0, :2])], "gather"),
    ],
)
def test_operations_that_mix_channels_are_an_error_or_leave_their_filters_whole(body, operation):
    together = operation in ("reduce_sum", "argmax")
    with pytest.raises(UserError, match=f"{operation} in the outermost") as refused:
        prune.dependencies(Net(body), SHAPE)
    assert ("made of all channels together" in str(refused.value)) == together
    assert ("cannot see through" in str(refused.value)) != together
    graph = prune.dependencies(Net(body), SHAPE, on_unknown="keep")
    assert graph.channels == 0
    assert graph.kept_whole
    assert not graph.select({}).any()
    with pytest.raises(UserError, match="passes an operation that was left whole"):
        graph.select({"stem": [0]})


def test_units_along_several_axes_are_an_error_or_left_whole():
    class Attentive(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(6, name="inner")(x))
            return nn.MultiHeadAttention(num_heads=2, name="attention")(
                nn.Dense(4, name="outer")(x)
            )

    body = Attentive()
    with pytest.raises(UserError, match=r"dot_general in body/attention/query .* several axes at"):
        prune.dependencies(Net(body), SHAPE)
    graph = prune.dependencies(Net(body), SHAPE, on_unknown="keep")
    heads = [f"body/attention/{name}" for name in ("query", "key", "value")]
    assert graph.kept_whole == [
        f"{path}: dot_general in {path} makes several axes at once (heads by their width), "
        "which stay as they are"
        for path in heads
    ]
    cut = [("stem",), ("body/inner",), ("body/outer",), ("body/attention/out",)]
    assert groups(graph) == dict(zip(cut, (4, 6, 4, 4), strict=True))


def test_channels_that_are_averaged_in_groups_go_by_whole_groups():
    def averaged(x):
        return nn.Conv(4, (1, 1), name="next")(x.reshape(*x.shape[:-1], -1, 2).mean(-1))

    graph = prune.dependencies(Net(averaged), SHAPE)
    assert groups(graph) == {("stem",): 2, ("next",): 4}
    assert along(graph, "params/stem/kernel", 3) == [0, 0, 1, 1]
    assert along(graph, "params/next/kernel", 2) == [0, 1]


@pytest.mark.parametrize("times", [1, 3])
def test_channels_go_on_through_a_depthwise_kernel_of_equal_numbers(times):
    graph = prune.dependencies(Net(lambda x: of_equal_numbers(x, 4, times)), SHAPE)
    rows = along(graph, "params/head/kernel", 0)
    assert rows == np.repeat(along(graph, "params/stem/kernel", 3), times).tolist()
    assert graph.channels == 4


@pytest.mark.parametrize("times", [1, 2])
def test_groups_of_a_kernel_of_equal_numbers_stay_equally_wide(times):
    graph = prune.dependencies(Net(lambda x: of_equal_numbers(x, 2, times)), SHAPE)
    assert along(graph, "params/stem/kernel", 3) == [0, 1, 0, 1]


def test_a_rule_from_outside_sees_through_an_operation():
    """Sorting rows leaves channels where they are; our own rules know nothing of it."""

    def sort(p, equation):
        labels = list(p.of(equation.inputs[0]))
        p.fix(labels[equation.params["dimension"]])
        return [tuple(labels)] * len(equation.outputs)

    by_rows = Net(lambda x: jnp.sort(x, axis=1))
    with pytest.raises(UserError, match="cannot see through sort"):
        prune.dependencies(by_rows, SHAPE)
    assert groups(prune.dependencies(by_rows, SHAPE, rules={"sort": sort})) == {("stem",): 4}
    by_channels = Net(lambda x: jnp.sort(x, axis=-1))
    assert groups(prune.dependencies(by_channels, SHAPE, rules={"sort": sort})) == {}

    variables = by_rows.init(jax.random.key(0), jnp.zeros(SHAPE))
    batches = [(np.zeros(SHAPE, np.float32), np.zeros(2, int))]
    filters = {"stem": [2]}
    cut = prune.prune(by_rows, variables, batches, filters=filters, rules={"sort": sort})
    assert cut.removed == filters


def test_a_rule_from_outside_stands_before_our_own():
    def held(p, equation):
        for labels in p.of(equation.inputs[0]):
            p.fix(labels)
        return [p.of(equation.inputs[0])]

    net = Net(lambda x: jnp.tanh(x))
    graph = prune.dependencies(net, SHAPE, rules={"tanh": held})
    assert graph.channels == 0
    assert graph.kept_whole == ["stem: tanh in the outermost module ties it to what stays"]


def test_what_the_input_or_a_constant_is_added_to_stays():
    shortcut = prune.dependencies(Net(lambda x: x + jnp.arange(4.0)), SHAPE)
    assert groups(shortcut) == {}

    class Skip(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.Conv(3, (3, 3), name="inner")(nn.relu(nn.Conv(4, (3, 3), name="stem")(x)))
            return nn.Dense(2, name="head")((x + y).mean((1, 2)))

    assert groups(prune.dependencies(Skip(), SHAPE)) == {("stem",): 4}


def test_padding_with_channels_fixes_those_that_they_meet():
    def widened(x):
        y = nn.Conv(6, (3, 3), name="wide")(x)
        return y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)))

    graph = prune.dependencies(Net(widened), SHAPE)
    stem = along(graph, "params/stem/kernel", 3)
    assert along(graph, "params/wide/kernel", 3) == [-1, *stem, -1]
    assert graph.channels == 4


def test_a_module_called_twice_is_cut_once_for_both_calls():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv = nn.Conv(4, (3, 3), name="again")
            x = nn.Conv(4, (1, 1), name="stem")(x)
            return nn.Dense(2, name="head")(nn.relu(conv(nn.relu(conv(x)))).mean((1, 2)))

    graph = prune.dependencies(Twice(), SHAPE)
    assert groups(graph) == {("stem", "again"): 4}
    kernel = along(graph, "params/again/kernel", 2)
    assert kernel == along(graph, "params/again/kernel", 3)


def test_the_number_of_images_is_of_no_matter():
    one, many = (prune.dependencies(prunable.Residual(), (n, 32, 32, 3)) for n in (1, 7))
    np.testing.assert_array_equal(one.group, many.group)
