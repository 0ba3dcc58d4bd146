"""What each kind of net is given with, and what a function's named scopes are taken for."""

import contextlib
import io
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets_in_both
import numpy as np
import prunable
import pytest
from flax import nnx
from markdown_it import MarkdownIt

from rice_jax import inspection, profile
from rice_jax.errors import UserError
from rice_jax.graph.fronts import front
from rice_jax.graph.trace import trace
from rice_jax.prune import certify, dependencies, prune

SHAPE = nets_in_both.SHAPE
IMAGE = SHAPE[1:]
IMAGES = np.zeros(SHAPE, np.float32)


def convolve(x, params, stride=1):
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, params["kernel"], (stride, stride), "SAME", dimension_numbers=dimensions
    )
    return x + params["bias"].reshape(1, 1, 1, -1)


def plain(params, x):
    """`nets_in_both.PlainLinen` as a function."""
    with jax.named_scope("conv1"):
        x = convolve(x, params["conv1"])
    x = nnx.max_pool(nnx.relu(x), (2, 2), (2, 2))
    with jax.named_scope("conv2"):
        x = convolve(x, params["conv2"], 2)
    x = nnx.relu(x).reshape(len(x), -1)
    with jax.named_scope("head"):
        return x @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)


def test_a_function_with_named_scopes_is_the_net_that_it_is_in_linen():
    linen, _, variables = nets_in_both.built("plain")
    params = variables["params"]
    one, other = profile.count(linen, IMAGE), profile.count(plain, params, IMAGE)
    assert one.flops == other.flops
    assert one.params == other.params
    assert [(r.path, r.params, r.filters, r.flops, r.output_shape) for r in one.rows] == [
        (r.path, r.params, r.filters, r.flops, r.output_shape) for r in other.rows
    ]
    x = nets_in_both.images()
    maps = inspection.feature_maps(plain, params, x)
    for path, array in inspection.feature_maps(linen, variables, x).items():
        np.testing.assert_allclose(maps[path], array, atol=1e-6)


def test_a_function_is_pruned_in_the_structure_of_its_params():
    _, _, variables = nets_in_both.built("plain")
    layers = ("conv1", "conv2", "head")
    params = [
        tuple(variables["params"][name][own] for own in ("kernel", "bias")) for name in layers
    ]

    def listed(params, x):
        named = {
            name: dict(zip(("kernel", "bias"), pair, strict=True))
            for name, pair in zip(layers, params, strict=True)
        }
        return plain(named, x)

    x = nets_in_both.images()
    cut = prune(listed, params, [x], filters={"conv1": [1, 2], "conv2": [0]})
    assert cut.module is listed
    assert cut.removed == {"conv1": [1, 2], "conv2": [0]}
    assert [kernel.shape for kernel, _ in cut.variables] == [(3, 3, 3, 2), (3, 3, 2, 5), (20, 3)]
    silent = [[np.array(array) for array in pair] for pair in params]
    for pair, gone in zip(silent, ([1, 2], [0]), strict=False):
        for array in pair:
            array[..., gone] = 0
    certificate = certify((listed, silent), (listed, cut.variables), [x])
    assert certificate.max_abs_logit_difference < 1e-5


def test_scopes_nest_and_run_on_through_calls_and_loops():
    def net(params, x):
        with jax.named_scope("block"):
            with jax.named_scope("first"):
                x = jax.jit(lambda x: x @ params["w"])(x)
            x = jax.lax.scan(lambda x, _: (jnp.sin(x), None), x, None, length=3)[0]
        return jax.vmap(lambda x: x * 2)(x)

    params = {"w": jnp.zeros((4, 4))}
    rows = {row.path: row for row in profile.count(net, params, (2, 4), softmax=False).rows}
    assert rows["block/first"].params == 16
    assert rows["block/sin"].times == 3
    assert rows["block/first"].flops.formula == 2 * 2 * 4 * 4


class Splitting(nnx.Module):
    """Picks channels by their place: its maps keep their size between layers."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 6, (3, 3), strides=4, rngs=rngs)
        self.left = nnx.Conv(3, 4, (1, 1), rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        one, two = jnp.split(nnx.relu(self.stem(x)), 2, axis=-1)
        return self.head(nnx.relu(self.left(one) + two.sum(-1, keepdims=True)).mean((1, 2)))


def test_channels_picked_by_their_place_keep_it_in_an_nnx_net_too():
    module, x = Splitting(nnx.Rngs(0)), nets_in_both.images()
    cut = prune(module, [x], filters={"stem": [0]}, on_unknown="keep")
    again = prune(cut.module, [x], filters={"stem": [0], "left": [3]}, on_unknown="keep")
    assert again.module.stem.out_features == 4
    assert again.module.left.in_features == 1
    whole = Splitting(nnx.Rngs(0))
    for array in (whole.stem.kernel, whole.stem.bias):
        array[...] = array[...].at[..., :2].set(0)
    whole.head.kernel[...] = whole.head.kernel[...].at[3].set(0)
    wanted, got = prunable.compiled(lambda x: (whole(x), again.module(x)), x)(x)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert isinstance(again.module.stem, nnx.Conv)
    assert type(module.stem) is nnx.Conv


class Rough(nnx.Module):
    """Shared and remade layers, a drawn number, and a call that may fail."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.again = self.conv
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.fails = False

    @nnx.remat
    def features(self, x):
        return self.again(nnx.relu(self.conv(x)))

    def __call__(self, x):
        if self.fails:
            raise RuntimeError("as it was told")
        return self.drop(self.features(x)).mean((1, 2))


class Heads(nnx.Module):
    """Two heads of a width that is written in the code, so that what they give keeps its places."""

    def __init__(self, rngs):
        self.value = nnx.Linear(24, 16, rngs=rngs)
        self.out = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        x = x.reshape(len(x), 8, 24)
        heads = self.value(x).reshape(len(x), -1, 2, 8)
        mixed = jnp.einsum("npq,nqhd->nphd", nnx.softmax(x @ x.mT), heads)
        return self.out(mixed.reshape(len(x), -1, 16)).mean(1)


@pytest.mark.parametrize("share", [0.9, 0.75])
def test_a_budget_is_met_where_channels_that_go_leave_their_places(share):
    module, x = Heads(nnx.Rngs(0)), nets_in_both.images()
    most = int(profile.count(module, IMAGE).flops.formula * share)
    cut = prune(module, [x], budgets={"formula": most}, criterion="l1")
    mixing = (2 * 8 * 8 * 24) + (2 * 8 * 8 * 16)  # all of its places are left
    left = len(cut.kept["value"])
    assert cut.after["formula"] == mixing + 2 * 8 * left * (24 + 3) <= most
    gone = jnp.array(cut.removed["value"])
    for array in (module.value.kernel, module.value.bias):
        array[...] = array[...].at[..., gone].set(0)
    wanted, got = prunable.compiled(lambda x: (module(x), cut.module(x)), x)(x)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_budget_below_what_the_places_left_cost_says_what_was_reached():
    module, x = Heads(nnx.Rngs(0)), nets_in_both.images()
    least = (2 * 8 * 8 * 24) + (2 * 8 * 8 * 16) + 2 * 8 * 2 * (24 + 3)
    with pytest.raises(UserError, match=f"counts {least:,}; ask for that or more"):
        prune(module, [x], budgets={"formula": least - 1}, criterion="l1")
    prune(module, [x], budgets={"formula": least}, criterion="l1")


def asks_for_rngs(x, *, rngs):
    return x.mean((1, 2)) * (2 if rngs is None else 3)


class Asking(nnx.Module):
    """Asks for what it may draw from, and takes that there is nothing."""

    def __call__(self, x, *, rngs):
        return asks_for_rngs(x, rngs=rngs)


@pytest.mark.parametrize(
    "net",
    [(Asking(),), (lambda params, x, *, rngs: asks_for_rngs(x, rngs=rngs), {"a": jnp.ones(1)})],
)
@pytest.mark.parametrize("rngs", [None, 0], ids=["none", "some"])
def test_a_call_that_asks_for_rngs_gets_what_is_given_also_none(net, rngs):
    traced = trace(front(*net), SHAPE, rngs=rngs)
    (result,) = traced.evaluate(front(*net).variables, jnp.ones(SHAPE), traced.outputs)
    np.testing.assert_array_equal(result, 2 if rngs is None else 3)
    assert profile.count(*net, IMAGE, rngs=rngs).complete


@jax.jit
def jitted(definition, state, x):
    return nnx.merge(definition, state)(x)


@nnx.jit
def nnx_jitted(layer, x):
    return layer(x)


@nnx.remat
def remade(layer, x):
    return layer(x)


@nnx.scan(in_axes=(None, nnx.Carry, 0), out_axes=nnx.Carry)
def scanned(layer, x, _):
    return layer(x)


KEEPERS = {
    "jit of its parts": lambda layer, x: jitted(*nnx.split(layer), x),
    "jit": nnx_jitted,
    "remat": remade,
    "scan": lambda layer, x: scanned(layer, x, jnp.zeros(2)),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_a_layer_that_jax_keeps_as_it_was_traced_has_its_row_each_time(name):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)

        def __call__(self, x):
            return KEEPERS[name](self.conv, KEEPERS[name](self.conv, x))

    module = Net(nnx.Rngs(0))
    for _ in range(2):
        (row,) = profile.count(module, IMAGE).rows
        assert (row.path, row.type, row.params) == ("conv", "Conv", 84)
        assert row.flops.formula == (4 if name == "scan" else 2) * 2 * 81 * math.prod(IMAGE[:2])
    assert trace(module, SHAPE).layers["conv"].calls > 1


def test_an_nnx_module_and_its_classes_are_left_as_they_were():
    module = Rough(nnx.Rngs(0))
    before, call = nnx.graphdef(module), nnx.Conv.__call__
    traced = trace(module, SHAPE)
    layers = [e.layer for e in traced.equations if e.name == "conv_general_dilated"]
    assert len(layers) == 2
    assert set(layers) <= {"conv", "again"}
    assert len(set(layers)) == 1
    assert int(module.drop.rngs.count[...]) == 0
    module.fails = True
    with pytest.raises(RuntimeError, match="as it was told"):
        trace(module, SHAPE)
    module.fails = False
    assert nnx.graphdef(module) == before
    assert type(module.conv) is nnx.Conv
    assert nnx.Conv.__call__ is call
    assert not hasattr(module.conv, "_pytree__rice_jax_path")


class Bridged(nnx.Module):
    """A Linen module, whose variables are its attributes, and layers of NNX's."""

    def __init__(self, rngs):
        part = nn.Sequential([nn.Conv(4, (3, 3)), nn.BatchNorm(use_running_average=True), nn.relu])
        self.part = nnx.bridge.ToNNX(part, rngs=rngs).lazy_init(IMAGES[:1])
        self.conv = nnx.Conv(4, 6, (3, 3), rngs=rngs)
        self.head = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(self.part(x))).mean((1, 2)))


def test_an_nnx_net_may_have_a_linen_module_in_it():
    net = Bridged(nnx.Rngs(0))
    net.conv.kernel[...] = net.conv.kernel[...].at[..., 2].set(0)
    counted = profile.count(net, IMAGE)
    sizes = {row.path: row.params for row in counted.rows if row.params}
    of_linen = {"part/layers_0": 27 * 4 + 4, "part/layers_1": 2 * 4}
    assert sizes == of_linen | {"conv": 36 * 6 + 6, "head": 6 * 5 + 5}
    pixels = IMAGE[0] * IMAGE[1]
    assert counted.flops.formula == 2 * (pixels * (27 * 4 + 36 * 6) + 6 * 5)
    assert list(inspection.feature_maps(net, IMAGES)) == ["part", "conv"]
    cut = prune(net, [IMAGES], drop="proven")
    assert cut.removed == {"conv": [2]}
    np.testing.assert_allclose(cut.module(IMAGES + 1), net(IMAGES + 1), atol=1e-5)


def test_a_net_of_shapes_alone_is_counted():
    module = nnx.eval_shape(lambda: Rough(nnx.Rngs(0)))
    assert profile.count(module, IMAGE).params == 3 * 3 * 3 * 3 + 3


LINEN, NNX, VARIABLES = nets_in_both.built("plain")
IS_LINEN = "PlainLinen is a Linen module: its variables come after it"
IS_NNX = "PlainNNX is an NNX module, which holds its variables itself"
IS_FUNCTION = "plain is taken for a function of params and images: its params come after it"
MISTAKES = {
    "maps without variables": (lambda: inspection.feature_maps(LINEN, IMAGES), IS_LINEN),
    "census without variables": (lambda: inspection.census(LINEN, [IMAGES]), IS_LINEN),
    "proof without variables": (lambda: inspection.proven_dead(LINEN, IMAGE), IS_LINEN),
    "prune without variables": (lambda: prune(LINEN, [IMAGES], drop="dead"), IS_LINEN),
    "maps with variables": (lambda: inspection.feature_maps(NNX, VARIABLES, IMAGES), IS_NNX),
    "proof with variables": (lambda: inspection.proven_dead(NNX, VARIABLES, IMAGE), IS_NNX),
    "prune with a state": (
        lambda: prune(NNX, nnx.state(NNX), [IMAGES], drop="dead"),
        IS_NNX,
    ),
    "variables by name": (
        lambda: inspection.census(NNX, variables=VARIABLES, batches=[IMAGES]),
        IS_NNX,
    ),
    "count with variables": (lambda: profile.count(LINEN, VARIABLES, IMAGE), "needs no variables"),
    "certify with variables": (lambda: certify((NNX, VARIABLES), NNX, [IMAGES]), IS_NNX),
    "maps without params": (lambda: inspection.feature_maps(plain, IMAGES), IS_FUNCTION),
    "proof without params": (lambda: inspection.proven_dead(plain, IMAGE), IS_FUNCTION),
    "count without params": (lambda: profile.count(plain, IMAGE), IS_FUNCTION),
    "trace without params": (lambda: trace(plain, SHAPE), IS_FUNCTION),
    "a class": (lambda: dependencies(type(NNX), IMAGE), "give an instance of it, PlainNNX()"),
    "no net": (lambda: profile.count("resnet", IMAGE), "str is no net"),
    "no net with variables": (lambda: inspection.feature_maps(3, {}, IMAGES), "int is no net"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_net_given_otherwise_is_told_in_a_line(name):
    mistake, message = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        mistake()
    text = str(caught.value)
    assert message.replace("()", "(...)") in text
    assert "\n" not in text


@pytest.mark.parametrize("params", [{}, (), [], {"conv": {}}], ids=str)
def test_a_function_may_have_no_params(params):
    def darkest(params, x):
        with jax.named_scope("least"):
            return x.min((1, 2))

    counted = profile.count(darkest, params, IMAGE)
    assert counted.params == counted.flops.formula == 0
    assert counted.flops.xla == IMAGES[0].size - IMAGES.shape[-1]
    assert inspection.feature_maps(darkest, params, IMAGES) == {}
    assert dependencies(darkest, params, IMAGE).channels == 0
    assert certify((darkest, params), (darkest, params), [IMAGES]).images == len(IMAGES)


@pytest.mark.parametrize("net", [(LINEN, VARIABLES), (NNX,)], ids=["linen", "nnx"])
def test_with_its_variables_there_what_is_missing_is_named(net):
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'classes'"):
        inspection.saliency(*net, IMAGES)


DOCS = MarkdownIt().parse((Path(__file__).parents[1] / "docs" / "any_net.md").read_text())
SNIPPETS = [token.content for token in DOCS if token.type == "fence"]
PRINTED = ["(8, 32, 32, 16)", "(3, 3, 3, 14) (14, 3) (8, 3)"]


@pytest.mark.parametrize(("snippet", "printed"), list(zip(SNIPPETS, PRINTED, strict=True)))
def test_the_snippets_of_the_docs_run(snippet, printed):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(snippet, "any_net.md", "exec"), {"__name__": "snippet"})
    assert printed in said.getvalue()
