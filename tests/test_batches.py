"""Batches in every form that people give, and what looks at them once lets go of them."""

import json
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest

from rice_jax import inspection
from rice_jax.errors import UserError
from rice_jax.prune import certify, prune

SHAPE = (5, 5, 3)
NUMBER = 24
IMAGES = prunable.images(0, (3, *SHAPE))
LABELS = np.arange(3)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3), name="conv")(x)).mean((1, 2)))


NET = Net()
VARIABLES = NET.init(jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
ONCE = {
    "census": lambda batches: inspection.census(NET, VARIABLES, batches),
    "certify": lambda batches: certify((NET, VARIABLES), (NET, VARIABLES), batches),
}


@pytest.mark.parametrize("name", ONCE)
def test_batches_are_not_kept(name):
    alive, most = weakref.WeakSet(), []

    def batches():
        for seed in range(NUMBER):
            batch = np.random.default_rng(seed).random((2, *SHAPE), np.float32).view(Watched)
            alive.add(batch)
            most.append(len(alive))
            yield batch

    found = ONCE[name](batches())
    assert found.images == 2 * NUMBER
    assert max(most) < NUMBER / 2


class Watched(np.ndarray):
    """An array that can stand in a weak set."""

    __hash__ = object.__hash__


def generator():
    yield IMAGES, LABELS
    yield IMAGES[:2] + 1, LABELS[:2]


@pytest.mark.parametrize(
    ("batches", "images"),
    [
        (IMAGES, 3),
        ([IMAGES], 3),
        ([jnp.asarray(IMAGES), IMAGES[:1]], 4),
        ([(IMAGES, None)], 3),
        ((IMAGES, LABELS), 3),
        (iter([IMAGES]), 3),
        (generator(), 5),
        (map(lambda n: IMAGES[:n], (1, 2)), 3),  # noqa: C417
        ([IMAGES[:0], IMAGES, (IMAGES[:0], LABELS[:0])], 3),
    ],
    ids=range(9),
)
def test_batches_come_in_any_form_and_without_labels_where_none_are_needed(batches, images):
    pruned = prune(NET, VARIABLES, batches, drop="dead", budgets={"filters": 3}, criterion="l1")
    assert pruned.certificate.images == images
    assert pruned.after["filters"] == 3


NOTHING = (IMAGES[:0], LABELS[:0])
"""A batch of no image, as the last of a split may be."""


def test_a_batch_of_no_image_changes_nothing():
    found = [inspection.census(NET, VARIABLES, each) for each in ([IMAGES], [IMAGES, IMAGES[:0]])]
    (one, other) = (each.layers["conv"] for each in found)
    assert found[0].images == found[1].images == 3
    assert (one.zeros.tolist(), one.values) == (other.zeros.tolist(), other.values)
    for criterion in ("taylor", "apoz"):
        removed = [
            prune(NET, VARIABLES, each, budgets={"filters": 3}, criterion=criterion).removed
            for each in ([(IMAGES, LABELS)], [NOTHING, (IMAGES, LABELS), NOTHING])
        ]
        assert removed[0] == removed[1]
    with pytest.raises(UserError, match="no images"):
        inspection.census(NET, VARIABLES, [IMAGES[:0]])
    with pytest.raises(UserError, match="no images"):
        certify((NET, VARIABLES), (NET, VARIABLES), [NOTHING])


@pytest.mark.parametrize("form", [np.asarray, jnp.asarray, lambda a: [a], lambda a: iter([a])])
def test_a_criterion_may_look_at_images_of_its_own_in_any_form(form):
    asked = {"budgets": {"filters": 3}, "criterion": "apoz"}
    dark = np.zeros_like(IMAGES)
    expected = prune(NET, VARIABLES, dark, **asked)
    found = prune(NET, VARIABLES, IMAGES, judged_on=form(dark), **asked)
    assert found.removed == expected.removed
    with pytest.raises(UserError, match="no images to judge"):
        prune(NET, VARIABLES, IMAGES, judged_on=[], **asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"budgets": {"filters": "3"}}, "a budget of 3 is no number: give a positive one"),
        ({"budgets": {"params": None}}, "a budget of None is no number"),
        ({"budgets": {"study": float("nan")}}, "a budget of nan is no number"),
        ({"budgets": {"study": float("inf")}}, "a budget of inf is no number"),
        ({"budgets": {"study": -0.5}}, "a budget of -1 leaves nothing"),
        ({"budgets": {"study": 0.5}}, "a budget of 0.5 leaves nothing: .* not what share"),
        ({"budgets": {"params": np.float32(0.25)}}, "a budget of 0.25 leaves nothing: .* share"),
        ({"budgets": {"study": 0}}, "a budget of 0 leaves nothing: give a positive number"),
        ({"budgets": 1000}, "budgets are given by what they bound, {'formula': N}, not 1000"),
        ({"budgets": ["filters"]}, "budgets are given by what they bound"),
        ({"filters": ["conv1"]}, r"filters are given by layer, .*, not \['conv1'\]"),
        ({"filters": "conv1"}, "filters are given by layer"),
        ({"drop": "proven", "pixels": 1.0}, r"pixels=1.0: .* value of a pixel, \(0.0, 1.0\)"),
        ({"drop": "proven", "pixels": (0, 0.5, 1)}, "pixels=.*: give the least and the largest"),
        ({"drop": "proven", "pixels": None}, "pixels=None: give the least and the largest"),
        ({"drop": "dead", "only": "conv1"}, r"only='conv1': give a list .*, \['conv1'\]"),
        ({"drop": "dead", "skip": "conv1"}, "skip='conv1': give a list"),
        ({"budgets": {"filters": 3}, "round_to": 1.5}, "round_to=1.5: .* multiples of 1 or more"),
        ({"budgets": {"filters": 3}, "round_to": None}, "round_to=None"),
        ({"drop": "dead", "on_unknown": "Keep"}, "on_unknown='Keep': there are error, keep"),
    ],
)
def test_what_no_pruning_can_be_by_is_told_in_one_line(asked, message):
    with pytest.raises(UserError, match=message):
        prune(NET, VARIABLES, IMAGES, criterion="l1", **asked)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([IMAGES], "needs labels: give batches of pairs"),
        ([(IMAGES, LABELS), (IMAGES[:, :4], LABELS)], "of one shape; a batch is images, or a pair"),
        ([(IMAGES, LABELS[:2])], "a batch has 3 images and 2 labels"),
        ([{"image": IMAGES}], "a batch holds dict: a batch is images, or a pair"),
        (5, "batches are int: a batch is images"),
        ([(IMAGES, 3)], "a batch has 3 images and no line of labels"),
        ([], "no images"),
        ([(IMAGES[:0], LABELS[:0])], "no images"),
    ],
    ids=range(8),
)
def test_batches_that_do_not_fit_are_told_in_one_line(batches, message):
    with pytest.raises(UserError, match=message):
        prune(NET, VARIABLES, batches, budgets={"filters": 3})


@pytest.mark.parametrize("number", [int, float, np.int64, np.float32, np.asarray, jnp.asarray])
def test_a_budget_of_any_kind_of_number_is_told_as_json(number):
    found = prune(NET, VARIABLES, IMAGES, budgets={"filters": number(3)}, criterion="l1")
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["budgets"] == {"filters": {"asked": 3, "met": 3, "under": 0}}


FIRST = {
    "nothing": (lambda x: x, False),
    "a mean taken off": (lambda x: x - 0.5, False),
    "a cast": (lambda x: jnp.asarray(x, jnp.float32)[..., ::-1], False),
    "a division": (lambda x: x / 255, True),
    "a cast and a division": (lambda x: x.astype(jnp.float32) / 255.0, True),
    "a product": (lambda x: jnp.transpose(x, (0, 2, 1, 3)) * jnp.float32(1 / 255), True),
    "a table": (lambda x: jax.nn.one_hot(x[..., 0], 256), True),
}
"""What a net does with pixels first, and whether those may be whole numbers then."""


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("kind", [np.uint8, np.int32])
@pytest.mark.one_in(3)
def test_pixels_that_are_whole_numbers_are_for_nets_that_scale_them(first, kind):
    scale, taken = FIRST[first]

    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Net()(scale(x))

    net, pixels = Scaled(), (255 * IMAGES).astype(kind)
    variables = net.init(jax.random.key(0), pixels)
    for call in (
        lambda: inspection.census(net, variables, [(pixels, LABELS)]),
        lambda: inspection.feature_maps(net, variables, pixels),
        lambda: prune(net, variables, [pixels], budgets={"filters": 3}, criterion="l1"),
    ):
        if taken:
            call()
        else:
            with pytest.raises(UserError, match=f"images are {np.dtype(kind)}, a net takes floats"):
                call()
