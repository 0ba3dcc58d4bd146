"""Numbers that modules read from shapes stay what they were, or the layers are left whole."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import prunable
import pytest

from rice_jax import prune
from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.prune import surgery

SHAPE = (2, 6, 6, 3)


class Reads(nn.Module):
    """A stem of eight filters, then `body`, which reads how many there are."""

    body: object

    @nn.compact
    def __call__(self, x):
        x = self.body(nn.relu(nn.Conv(8, (3, 3), name="stem")(x)))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


READS = {
    "root": (lambda x: x / jnp.sqrt(x.shape[-1]), "sqrt", "8", "7"),
    "mean of channels": (lambda x: x / x.shape[-1], "div", "8", "7"),
    "a quarter": (lambda x: x * (x.shape[-1] // 4), "mul", "2", "1"),
    "power": (lambda x: x ** (x.shape[-1] // 2), "integer_pow", "y=4", "y=3"),
    "array": (
        lambda x: x * jnp.asarray(np.full((1, 1), 1 / x.shape[-1])),
        "outermost",
        "0.125",
        "0.14",
    ),
    "equal numbers": (
        lambda x: x * np.full(x.shape[-1], 1 / x.shape[-1], np.float32),
        "outermost",
        r"an array (8,)",
        r"an array (7,)",
    ),
    "in a layer": (
        lambda x: nn.Dense(4, name="late")(x / np.float32(x.shape[-1] ** 0.5)),
        "div in the outermost module",
        "2.82843",
        "2.64575",
    ),
}


def reading(name):
    module = Reads(READS[name][0])
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    return module, variables, prune.dependencies(module, SHAPE)


@pytest.mark.parametrize("name", READS)
@pytest.mark.one_in(4)
def test_a_number_that_came_from_a_shape_stays_what_it_was(name):
    """The layer is left whole and named by a budget, and refused where it is asked for."""
    module, variables, graph = reading(name)
    operation, before, after = READS[name][1:]
    with pytest.raises(UserError, match="computes something else than the whole one") as refusal:
        surgery.remove(module, variables, graph, graph.select({"stem": [2]}))
    said = str(refusal.value)
    assert operation in said
    assert before in said
    assert after in said

    images = [(prunable.images(0, SHAPE), np.zeros(2, int))]
    variables["params"]["stem"]["kernel"][..., 3] = 0  # never anything but its bias,
    variables["params"]["stem"]["bias"][3] = -1.0  # which a ReLU takes
    result = prune.prune(module, variables, images, drop="proven")
    assert "stem" not in result.removed
    (line,) = result.kept_whole
    assert line.startswith("stem: ")
    assert operation in line
    assert result.certificate.max_abs_logit_difference == 0
    with pytest.raises(UserError, match="filter 2 of stem cannot be removed"):
        prune.prune(module, variables, images, filters={"stem": [2]})


THRESHOLDS = {
    "a seventh": lambda x: x * (x.shape[-1] // 7),
    "enough": lambda x: x * (1.0 if x.shape[-1] >= 5 else 0.5),
    "three at most": lambda x: x * min(x.shape[-1], 3),
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_number_that_changes_when_more_is_gone_stays_what_it_was(name):
    """One channel less leaves it as it is."""
    module = Reads(THRESHOLDS[name])
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    images = [prunable.images(0, SHAPE)]
    variables["params"]["stem"]["kernel"][..., :6] = 0
    variables["params"]["stem"]["bias"][:6] = -1.0
    result = prune.prune(module, variables, images, drop="dead")
    assert [line.partition(":")[0] for line in result.kept_whole] == ["stem"]
    assert result.certificate.max_abs_logit_difference == 0


class Bright(nn.Module):
    """Does something else where the image is bright, by a number that came from a shape."""

    @nn.compact
    def __call__(self, images):
        bytes_ = jnp.issubdtype(images.dtype, jnp.integer)
        x = images.astype(jnp.float32) / 255 if bytes_ else images
        bright = (x.mean((1, 2, 3)) > 0.3)[:, None, None, None]
        x = nn.relu(nn.Conv(8, (3, 3), name="stem")(x))
        return nn.Dense(3, name="head")((x * (1 + bright * x.shape[-1])).mean((1, 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32])
@pytest.mark.one_in(2)
def test_what_only_bright_images_show_is_seen_in_any_kind_of_number(dtype):
    images = prunable.images(0, SHAPE)
    images = images if dtype is np.float32 else (255 * images).astype(dtype)
    variables = prunable.random_variables(variable_shapes(Bright(), SHAPE), 0)
    variables["params"]["stem"]["kernel"][..., :2] = 0
    variables["params"]["stem"]["bias"][:2] = -1.0
    result = prune.prune(Bright(), variables, [images], drop="dead")
    assert "stem" not in result.removed
    assert result.certificate.max_abs_logit_difference == 0


class Told(nn.Module):
    """Logits, and what is no number with a size: a mask and counts."""

    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(8, (3, 3), name="stem")(x))
        y = y + 0.0 if y.shape[-1] % 2 else y  # what a trace differs by, and no logit
        logits = nn.Dense(3, name="head")(y.mean((1, 2)))
        return {"logits": logits, "bright": x.mean(-1) > 0.5, "of": jnp.int32(x.shape[-1])}


def test_outputs_of_any_kind_are_held_against_each_other():
    variables = prunable.random_variables(variable_shapes(Told(), SHAPE), 0)
    images = [prunable.images(0, SHAPE)]
    result = prune.prune(Told(), variables, images, filters={"stem": [1]}, output="logits")
    assert result.removed == {"stem": [1]}


class Widths(nn.Module):
    """Widths as NumPy's whole numbers, and as a tuple of one."""

    @nn.compact
    def __call__(self, x):
        for index, width in enumerate(np.linspace(6, 8, 2).astype(int)):
            x = nn.relu(nn.Conv(width, (3, 3), name=f"conv{index}")(x))
        x = nn.relu(nn.DenseGeneral((6,), name="dense")(x.mean((1, 2))))
        return nn.Dense(3, name="head")(x)


def test_widths_of_any_kind_of_whole_number_are_narrowed():
    variables = prunable.random_variables(variable_shapes(Widths(), SHAPE), 0)
    graph = prune.dependencies(Widths(), SHAPE)
    assert not prune.hold_shapes(Widths(), variables, graph).kept_whole
    filters = {"conv0": [0], "conv1": [1, 7], "dense": [3]}
    images = [prunable.images(0, SHAPE)]
    result = prune.prune(Widths(), variables, images, filters=filters)
    assert result.removed == filters
    assert result.after["params"] == (9 * 3 + 1) * 5 + (9 * 5 + 1) * 6 + (6 + 1) * 5 + (5 + 1) * 3


class Handmade(nn.Module):
    """Makes its own weight, of a width that no field tells."""

    @nn.compact
    def __call__(self, x):
        return nn.relu(x @ self.param("weight", nn.initializers.normal(), (x.shape[-1], 4)))


def test_a_layer_that_cannot_be_narrowed_does_not_hide_a_number_of_another():
    module = Reads(lambda x: Handmade(name="hand")(x / jnp.sqrt(x.shape[-1])))
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    graph = prune.hold_shapes(module, variables, prune.dependencies(module, SHAPE))
    assert [line.partition(":")[0] for line in graph.kept_whole] == ["stem"]
    assert {path for g in range(graph.groups) for path in graph.layers(g)} == {"hand"}


class Excited(nn.Module):
    """A squeeze of a quarter of the channels, whatever they are, and a shortcut of as many."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="stem")(x))
        gate = nn.relu(nn.Dense(x.shape[-1] // 4, name="squeeze")(x.mean((1, 2))))
        x = x * nn.sigmoid(nn.Dense(x.shape[-1], name="excite")(gate))[:, None, None]
        x = nn.relu(nn.Conv(2 * x.shape[-1], (1, 1), name="twice")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def test_a_layers_width_that_came_from_a_shape_stays_what_it_was():
    module = Excited()
    shapes = variable_shapes(module, SHAPE)
    variables, x = prunable.random_variables(shapes, 0), prunable.images(0, SHAPE)
    removed = {"stem": [0, 3, 5], "excite": [0, 3, 5]}
    images = [(x, np.zeros(2, int))]
    result = prune.prune(module, variables, images, filters={"stem": [0, 3, 5]})
    assert result.removed == removed
    assert [len(result.kept[path]) for path in ("squeeze", "twice")] == [2, 16]
    whole = prunable.Silencer(module, {"stem": ("stem", 8)}, SHAPE)
    got = result.module.apply(result.variables, x)
    np.testing.assert_allclose(got, whole(variables, x, {"stem": [0, 3, 5]}), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x + 0.0 if x.shape[-1] % 2 else x,
        lambda x: x * (x.shape[-1] / x.shape[-1]),
        lambda x: x.reshape(x.shape[0], -1, x.shape[-1])[:, None],
        lambda x: x - 0 * jnp.sqrt(x.shape[-1] + 0.0),
    ],
)
def test_a_shape_that_is_read_without_an_effect_hinders_nothing(body):
    module = Reads(body)
    variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
    images = [(prunable.images(0, SHAPE), np.zeros(2, int))]
    result = prune.prune(module, variables, images, filters={"stem": [1]})
    assert result.removed == {"stem": [1]}
    assert not result.kept_whole


def test_groups_that_the_code_does_not_narrow_keep_their_places():
    """Groups of two whose number is written in the code, and four groups of whatever size."""
    x = prunable.images(0, SHAPE)
    for body in (
        lambda x: x.reshape(-1, 6, 6, 4, 2).mean(-1),
        lambda x: x.reshape(*x.shape[:-1], 4, -1).mean(-1),
    ):
        module = Reads(body)
        variables = prunable.random_variables(variable_shapes(module, SHAPE), 0)
        result = prune.prune(module, variables, [x], filters={"stem": [2]})
        assert result.removed == {"stem": [2, 3]}
        assert not result.kept_whole
        whole = prunable.Silencer(module, {"stem": ("stem", 8)}, SHAPE)
        got = result.module.apply(result.variables, x)
        wanted = whole(variables, x, result.removed)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
