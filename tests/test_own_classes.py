"""How many classes a net of one's own tells apart, by whatever name it has for that."""

import flax.linen as nn
import jax
import pytest
from flax import nnx

from rice_jax import nets, own_net, train
from rice_jax.errors import UserError
from rice_jax.models import build

IMAGES = jax.numpy.ones((2, 4, 4, 3))


def linen(field, **default):
    """A class whose head has as many outputs as its field says."""

    def call(self, x):
        return nn.Dense(getattr(self, field), name="head")(x.mean((1, 2)))

    members = {"__annotations__": {field: int}, "__call__": nn.compact(call), **default}
    return type("Named", (nn.Module,), members)


def in_nnx(field):
    def made(self, rngs, **fields):
        self.head = nnx.Linear(3, fields[field], rngs=rngs)

    def call(self, x):
        return self.head(x.mean((1, 2)))

    made_as = {"made": made}
    exec(f"def init(self, {field}=7, *, rngs): made(self, rngs, {field}={field})", made_as)
    return type("NamedNNX", (nnx.Module,), {"__init__": made_as["init"], "__call__": call})


@pytest.mark.parametrize("make", [linen, in_nnx])
@pytest.mark.parametrize("field", nets.CLASSES)
def test_the_images_decide_how_many_whatever_the_net_calls_it(make, field):
    config = own_net.configuration(make(field), "named")
    config.model.classes = 4
    net = train.build(config)
    variables = net.init(jax.random.key(0), IMAGES)
    assert net.apply(variables, IMAGES).shape == (2, 4)


@pytest.mark.parametrize("make", [linen, in_nnx])
def test_a_head_of_another_size_is_refused_whatever_the_net_calls_it(make):
    """It computes one class more than it is told."""
    right = make("num_classes")

    def call(self, x):
        return jax.numpy.pad(right.__call__(self, x), ((0, 0), (0, 1)))

    one_more = nn.compact(call) if make is linen else call
    wrong = type("Wrong", (right,), {"__call__": one_more})
    own_net.configuration(wrong, "wrong")
    with pytest.raises(UserError, match=r"\(2, 5\) of 2 images, no logits \(2, 4\)"):
        build("wrong", classes=4).init(jax.random.key(0), IMAGES)


def test_of_two_such_fields_the_usual_one_counts():
    """The other is a number of its own, that a configuration may set."""

    class Two(nn.Module):
        num_outputs: int = 2
        num_classes: int = 3

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(self.num_outputs, name="first")(x.mean((1, 2)))
            return nn.Dense(self.num_classes, name="head")(x)

    config = own_net.configuration(Two, "two")
    assert (config.model.classes, config.model.num_outputs) == (3, 2)
    config.model.update(classes=4, num_outputs=6)
    params = train.build(config).init(jax.random.key(0), IMAGES)["params"]
    kernels = [params[layer]["kernel"].shape for layer in ("first", "head")]
    assert kernels == [(3, 6), (6, 4)]


def test_a_net_that_tells_no_number_is_told_which_names_there_are():
    class Fixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x.mean((1, 2)))

    with pytest.raises(UserError, match=r"no field classes.*give it one .*num_classes, n_classes"):
        own_net.configuration(Fixed)
