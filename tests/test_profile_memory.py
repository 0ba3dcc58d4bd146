"""What a net holds in memory at its peak, worked out by hand on small nets."""

import flax.linen as nn
import jax.numpy as jnp
import pytest
from counted_nets import Small, counted
from jax import lax

from rice_jax import profile


def test_memory_at_the_peak_by_hand():
    """The first convolution's image and maps are there at once; its bias and ReLU work in place."""
    _, result = counted(Small())
    assert result.memory == profile.Memory(4 * result.params, 4 * (192 + 256), "conv1")
    assert result.memory.peak == 4 * (result.params + 192 + 256)
    assert result.to_json()["totals"]["memory"]["peak"] == result.memory.peak


class Kept(nn.Module):
    """A block whose input is needed again at its end."""

    again: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (1, 1), use_bias=False, name="stem")(x)
        y = nn.Conv(8, (1, 1), use_bias=False, name="up")(x)
        y = nn.Conv(8, (1, 1), use_bias=False, name="mid")(nn.relu(y))
        y = nn.Conv(3, (1, 1), use_bias=False, name="down")(y)
        return x + y if self.again else y


@pytest.mark.parametrize(("again", "channels"), [(False, 8 + 8), (True, 3 + 8 + 8)])
def test_what_is_read_later_stays(again, channels):
    _, result = counted(Kept(again))
    assert result.memory.activations == 4 * 64 * channels
    assert result.memory.at == "mid"


def test_arrays_that_are_renamed_together_stay_each_its_own():
    """The image and a kernel, then two maps: what one needs is not what the other does."""

    class Together(nn.Module):
        rename: bool

        @nn.compact
        def __call__(self, x):
            renamed = lax.optimization_barrier if self.rename else lambda pair: pair
            kernel = self.param("kernel", nn.initializers.ones, (3, 3))
            x, kernel = renamed((x, kernel))
            x = x @ kernel
            wide = nn.Conv(16, (1, 1), use_bias=False, name="wide")(x)
            thin = nn.Conv(4, (1, 1), use_bias=False, name="thin")(x)
            thin, wide = renamed((thin, wide))
            return nn.Conv(8, (1, 1), use_bias=False, name="last")(thin).sum() + wide.sum()

    (rows, result), (plain, wanted) = (counted(Together(rename)) for rename in (True, False))
    assert rows == plain
    assert rows[""].training_flops == 2 * rows[""].flops.formula  # none by the image
    assert result.memory == wanted.memory == profile.Memory(404, 4 * 64 * (16 + 4 + 8), "last")


@pytest.mark.parametrize(
    ("step", "channels"),
    [
        (lambda x: x.reshape(1, 64, 3).swapaxes(1, 2) * 2, 3),  # a view, then in place
        (lambda x: jnp.sin(x) + jnp.cos(x), 3 + 3),  # one in place, one beside
        (lambda x: jnp.concatenate([x, x], -1) * 2, 3 + 6),
        (lambda x: x.astype(jnp.bfloat16) * 2, 3 + 1.5),
        (lambda x: lax.scan(lambda s, _: (jnp.sin(s), s), x, None, length=4), 3 + 3 + 4 * 3),
    ],
)
def test_views_take_no_memory_and_copies_do(step, channels):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return step(x)

    _, result = counted(Net())
    assert result.memory.weights == 0
    assert result.memory.activations == 4 * 64 * channels
