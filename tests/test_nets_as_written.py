"""Nets as people write them, each counted, looked into and pruned; the masked net is the oracle."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from masked import check_pruned, initialised

from rice_jax import inspection, profile, prune
from rice_jax.errors import UserError

IMAGES = prunable.images(0, (3, 8, 8, 3))
LABELS = np.arange(3)


def mean(x):
    return x.mean(tuple(range(1, x.ndim - 1)))


def sequential(*widths):
    layers = [layer for width in widths for layer in (nn.Conv(width, (3, 3)), nn.relu)]
    return nn.Sequential([*layers, mean, nn.Dense(4)])


class Fields(nn.Module):
    """Layers given from outside, one of them by a name that a wrapper could want too."""

    net: nn.Module
    blocks: Any
    head: nn.Module

    def __call__(self, x):
        x = nn.relu(self.net(x))
        for name in sorted(self.blocks):
            for layer in self.blocks[name]:
                x = nn.relu(layer(x))
        return self.head(mean(x))


class SetUp(nn.Module):
    """Layers in lists and dictionaries, made in setup."""

    def setup(self):
        self.convs = [nn.Conv(5, (3, 3)), nn.Conv(4, (1, 1))]
        self.ends = {"net": nn.Conv(6, (3, 3)), "head": nn.Dense(3)}

    def __call__(self, x):
        for conv in (*self.convs, self.ends["net"]):
            x = nn.relu(conv(x))
        return self.ends["head"](mean(x))


class Boxed(nn.Module):
    """Parameters in Flax's boxes."""

    make: Any

    @nn.compact
    def __call__(self, x):
        init = self.make(nn.initializers.lecun_normal(), (None, None, None, "model"))
        x = nn.relu(nn.Conv(6, (3, 3), kernel_init=init, name="one")(x))
        bias = self.make(nn.initializers.normal(), ("model",))
        x = nn.relu(nn.Conv(5, (3, 3), kernel_init=init, bias_init=bias, name="two")(x))
        return nn.Dense(3, name="head")(mean(x))


class Conditioned(nn.Module):
    """A second array, embedded and added to the map."""

    @nn.compact
    def __call__(self, x, t, scale=None):
        x = nn.Conv(6, (3, 3), name="one")(x) + nn.Dense(6, name="embed")(t)[:, None, None]
        x = nn.relu(nn.Conv(5, (3, 3), name="two")(nn.relu(x)))
        return nn.Dense(3, name="head")(mean(x)) * (1 if scale is None else scale)


class Noisy(nn.Module):
    """Draws from a stream of its own, and drops out."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="one")(x))
        x = x * (1 + 0.1 * jax.random.normal(self.make_rng("noise"), (len(x), 1, 1, 1)))
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3, name="head")(mean(x)))


RNGS = {"noise": jax.random.key(1), "dropout": jax.random.key(2)}
LAYERS = {"a": [nn.Conv(5, (3, 3)), nn.Conv(4, (1, 1))], "b": (nn.Conv(6, (3, 3)),)}
NETS = {
    "sequential": (sequential(6, 5), {}),
    "sequential of sequentials": (nn.Sequential([sequential(6, 5), nn.Dense(3)]), {}),
    "fields": (Fields(nn.Conv(7, (3, 3)), LAYERS, nn.Dense(3)), {}),
    "fields in fields": (nn.Sequential([Fields(nn.Conv(7, (3, 3)), LAYERS, nn.Dense(3))]), {}),
    "setup": (SetUp(), {}),
    "partitioned": (Boxed(nn.with_partitioning), {}),
    "logically partitioned": (Boxed(nn.with_logical_partitioning), {}),
    "an array": (Conditioned(), {"t": np.ones((1, 4), np.float32)}),
    "two arrays": (Conditioned(), {"t": jnp.ones((1, 4)), "scale": jnp.arange(3.0)}),
    "sharded": (
        nn.Sequential(
            [
                nn.Conv(6, (3, 3)),
                lambda x: jax.lax.with_sharding_constraint(
                    nn.relu(x), jax.sharding.SingleDeviceSharding(jax.devices()[0])
                ),
                mean,
                nn.Dense(3),
            ]
        ),
        {},
    ),
}
each_net = pytest.mark.parametrize(("module", "call"), NETS.values(), ids=NETS)


@each_net
def test_it_is_counted_to_the_last_parameter(module, call):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), IMAGES, **call))
    counted = profile.count(module, np.array([8, 8, 3]), **call)
    assert counted.params == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert counted.uncounted == ()


@each_net
@pytest.mark.one_in(6)
def test_its_maps_and_proofs_are_those_of_the_module(module, call):
    variables = initialised(module, call, IMAGES)
    maps = inspection.feature_maps(module, variables, IMAGES, **call)
    assert maps
    census = inspection.census(module, variables, [IMAGES], **call)
    assert {path: layer.filters for path, layer in census.layers.items()} == {
        path: array.shape[-1] for path, array in maps.items()
    }
    bounds, _ = inspection.map_bounds(module, variables, (8, 8, 3), **call)
    for path, (low, high) in bounds.items():
        assert np.all((low <= maps[path]) & (maps[path] <= high))


@each_net
@pytest.mark.one_in(6)
def test_pruned_twice_it_is_the_masked_net(module, call):
    variables = initialised(module, call, IMAGES)
    once = check_pruned(module, variables, IMAGES, 1, **call)
    twice = check_pruned(once.module, once.variables, IMAGES, 2, **call)
    boxes = [
        jax.tree.structure(each, is_leaf=lambda _: False) for each in (variables, twice.variables)
    ]
    assert boxes[0] == boxes[1]


class Heads(nn.Module):
    """Two heads, given back as `make` puts them together."""

    make: Any

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="one")(x))
        aux = nn.Dense(2, name="aux")(mean(x))
        x = nn.relu(nn.Conv(5, (3, 3), name="two")(x))
        return self.make(nn.Dense(3, name="head")(mean(x)), aux)


@flax.struct.dataclass
class Struct:
    logits: Any
    aux: Any


@dataclasses.dataclass
class Plain:
    logits: Any
    aux: Any
    loss: Any = None


OUTPUTS = [
    (lambda logits, aux: {"logits": logits, "aux": aux}, "logits"),
    (
        lambda logits, aux: {"heads": {"logits": logits}, "aux": [aux]},
        lambda out: out["heads"]["logits"],
    ),
    (lambda logits, aux: (aux, logits), 1),
    (lambda logits, aux: [logits, aux], 0),
    (Struct, "logits"),
    (Plain, "logits"),
    (Plain, lambda out: out.logits + 0 * out.aux.sum()),
]


@pytest.mark.parametrize(("make", "output"), OUTPUTS)
@pytest.mark.one_in(4)
def test_an_output_is_named_by_key_attribute_index_or_function(make, output):
    module = Heads(make)
    variables = initialised(Heads(lambda logits, aux: (logits, aux)), {}, IMAGES)
    pruned = check_pruned(module, variables, IMAGES, 3, output=output)
    assert pruned.certificate.images == 3
    counted = profile.count(module, (8, 8, 3), output=output)
    assert counted.rows[-1].type == "softmax"
    assert counted.rows[-1].flops.study == 5 * 3
    lone = prune.prune(module, variables, [(IMAGES, LABELS)], budgets={"filters": 9}, output=output)
    assert lone.after["filters"] == 9


def test_an_output_of_several_has_to_be_named():
    module = Heads(lambda logits, aux: {"logits": logits, "aux": aux})
    variables = initialised(module, {}, IMAGES)
    both = r"the net gives logits \(1, 3\), aux \(1, 2\): say which are the logits with output="
    with pytest.raises(UserError, match=both):
        prune.prune(module, variables, [IMAGES], filters={"one": [0]})
    with pytest.raises(UserError, match="no output is 'probs': the net gives logits"):
        prune.prune(module, variables, [IMAGES], filters={"one": [0]}, output="probs")
    with pytest.raises(UserError, match="say which are the logits"):
        prune.certify((module, variables), (module, variables), [IMAGES])
    equal = prune.certify((module, variables), (module, variables), [IMAGES], output="aux")
    assert equal.max_abs_logit_difference == 0


def test_every_stream_has_a_key_when_counting_and_needs_one_to_compute():
    variables = initialised(Noisy(), {}, IMAGES)
    given = profile.count(Noisy(), (8, 8, 3), rngs=RNGS)
    assert given.flops == profile.count(Noisy(), (8, 8, 3)).flops
    assert given.params == sum(leaf.size for leaf in jax.tree.leaves(variables))
    maps = inspection.feature_maps(Noisy(), variables, IMAGES, rngs=RNGS)
    assert maps["one"].shape == (3, 8, 8, 6)
    check_pruned(Noisy(), variables, IMAGES, 1, rngs=RNGS)
    with pytest.raises(UserError, match=r"stream 'noise': give it a key, rngs=\{'noise'"):
        inspection.feature_maps(Noisy(), variables, IMAGES)
    with pytest.raises(UserError, match="stream 'noise': give it a key"):
        prune.certify((Noisy(), variables), (Noisy(), variables), [IMAGES])


class Learns(nn.Module):
    """Draws, and has a norm where one is asked for."""

    norm: str

    def learns(self, x, learns):
        x = nn.Conv(6, (3, 3), name="one")(x)
        x = nn.BatchNorm(use_running_average=not learns, name="norm")(x) if self.norm else x
        return nn.Dropout(0.5, deterministic=not learns)(nn.Dense(3, name="head")(mean(x)))


def learning(switch, value):
    """A class whose call has such a switch: a parameter of that name, which is on by default."""
    code = f"def call(self, x, {switch}={value}): return self.learns(x, {switch} == {value})"
    exec(code, space := {})
    return type("Switched", (Learns,), {"__call__": nn.compact(space["call"])})


class Hard(Learns):
    @nn.compact
    def __call__(self, x):
        return self.learns(x, True)


SWITCHES = [
    *((learning(name, True), f", {name}=False") for name in ("train", "training", "is_training")),
    (learning("deterministic", False), ", deterministic=True"),
    (learning("use_running_average", False), ", use_running_average=True"),
    (learning("learns", True), ""),
    (Hard, ""),
]


@pytest.mark.parametrize(("made", "how"), SWITCHES, ids=[how[2:] for _, how in SWITCHES])
@pytest.mark.parametrize("norm", ["norm", ""])
@pytest.mark.one_in(3)
def test_a_net_that_is_called_as_if_it_learned_is_told_how_not_to(made, how, norm):
    module = made(norm)
    variables = module.init(jax.random.key(0), IMAGES)
    said = "updates norm/mean as it is called" if norm else "draws random numbers from the stream"
    calls = [
        lambda: inspection.feature_maps(module, variables, IMAGES),
        lambda: prune.prune(module, variables, [IMAGES], filters={"one": [0]}),
        lambda: profile.latency(module, variables, IMAGES.shape[1:]),
    ]
    for call in calls + [lambda: profile.count(module, IMAGES.shape[1:])] * bool(norm):
        with pytest.raises(UserError, match=said) as caught:
            call()
        assert str(caught.value).endswith(how or ("that" if norm else "none"))
        assert "\n" not in str(caught.value)
    if how:
        still = {how[2:].partition("=")[0]: how.endswith("True")}
        assert inspection.feature_maps(module, variables, IMAGES, **still)["one"].shape[-1] == 6


class Line(nn.Module):
    """Convolutions along as many axes as `size` has numbers."""

    size: tuple
    flat: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, self.size, name="one")(x))
        x = nn.relu(nn.Conv(5, self.size, strides=2, name="two")(x))
        return nn.Dense(3, name="head")(x.reshape(len(x), -1) if self.flat else mean(x))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("size", "shape"), [((5,), (2, 16, 4)), ((3, 3, 3), (2, 4, 6, 4, 3))])
@pytest.mark.one_in(6)
def test_nets_along_one_axis_or_three(size, shape, flat):
    module = Line(size, flat)
    x = np.random.default_rng(0).random(shape, np.float32)
    variables = initialised(module, {}, x)
    sizes = sum(leaf.size for leaf in jax.tree.leaves(variables))
    places = int(np.prod(shape[:-1]))
    taps, halves = int(np.prod(size)), int(np.prod([(n + 1) // 2 for n in shape[1:-1]]))
    head = 2 * shape[0] * 3 * 5 * (halves if flat else 1)
    formula = 2 * places * taps * shape[-1] * 6 + 2 * shape[0] * halves * taps * 6 * 5 + head
    for given, batched in ((shape, True), (shape[1:], False)):
        counted = profile.count(module, given, batched=batched)
        assert counted.params == sizes
        assert counted.flops.formula * (1 if batched else shape[0]) == formula
    assert inspection.feature_maps(module, variables, x)["one"].shape == (*shape[:-1], 6)
    assert set(inspection.proven_dead(module, variables, shape, batched=True)) == {"one", "two"}
    half = counted.flops.formula // 2
    pruned = prune.prune(module, variables, [(x, [0, 1])], budgets={"formula": half})
    assert half * 0.6 < pruned.after["formula"] <= half
    check_pruned(module, variables, x, 0)


@pytest.mark.parametrize(
    ("size", "shape"), [((5,), (1, 16, 4)), ((5,), (16, 4)), ((3, 3, 3), (4, 6, 4, 3))]
)
@pytest.mark.parametrize("flat", [False, True])
def test_a_shape_that_would_be_read_wrongly_is_refused(size, shape, flat):
    module = Line(size, flat)
    for ask in (profile.count, prune.dependencies):
        with pytest.raises(UserError, match=r"say batched=True if the first number is the batch"):
            ask(module, shape)


def test_whole_shapes_of_other_nets_need_no_word():
    assert profile.count(Line((3, 3, 3)), (1, 4, 6, 4, 3)).params > 0
    image, batch = (
        profile.count(sequential(4), s) for s in ((8, 8, 3), np.zeros((1, 8, 8, 3)).shape)
    )
    assert image == batch


class Words(nn.Module):
    """Whole numbers in, embedded, convolved along the line."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3,), name="one")(nn.Embed(11, 4, name="embed")(x)))
        return nn.Dense(3, name="head")(x.mean(1))


def test_whole_numbers_go_in():
    words = np.random.default_rng(0).integers(0, 11, (3, 7))
    variables = initialised(Words(), {}, words)
    counted = profile.count(Words(), (3, 7), batched=True, dtype=np.int32)
    assert counted.flops.formula == 3 * (2 * 7 * 3 * 4 * 6 + 2 * 6 * 3)
    assert inspection.feature_maps(Words(), variables, words)["one"].shape == (3, 7, 6)
    check_pruned(Words(), variables, words.astype(np.int32), 0)


@pytest.mark.parametrize(
    "use",
    [
        lambda module, variables: inspection.feature_maps(module, variables, IMAGES),
        lambda module, variables: inspection.census(module, variables, [IMAGES]),
        lambda module, variables: inspection.proven_dead(module, variables, (8, 8, 3)),
        lambda module, variables: prune.prune(module, variables, IMAGES, drop="dead"),
    ],
)
def test_variables_that_are_not_the_nets_are_told_in_one_line(use):
    module = sequential(4)
    variables = initialised(module, {}, IMAGES)
    with pytest.raises(UserError, match=r"give all that init returned, .*not its 'params' alone"):
        use(module, variables["params"])
    with pytest.raises(UserError, match=r"layers_0/bias is \(5,\), the net asks for \(4,\)"):
        use(module, initialised(sequential(5), {}, IMAGES))
    with pytest.raises(UserError, match="<lambda> is no net"):
        use(lambda x: x, variables)
