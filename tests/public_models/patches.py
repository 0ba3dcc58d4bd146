"""Nets on patches: Dosovitskiy et al. 2020, Touvron et al. 2020, Tolstikhin et al. 2021."""

import flax.linen as nn
import jax.numpy as jnp


class MLP(nn.Module):
    """Out to `hidden` units and back."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        y = nn.gelu(nn.Dense(self.hidden)(x), approximate=False)
        return nn.Dense(x.shape[-1])(y)


class EncoderBlock(nn.Module):
    """Attention, then a dense block, each on a normed copy of what passes by."""

    heads: int
    hidden: int

    def setup(self):
        self.norm1, self.norm2 = nn.LayerNorm(epsilon=1e-6), nn.LayerNorm(epsilon=1e-6)
        self.attention = nn.MultiHeadDotProductAttention(num_heads=self.heads)
        self.mlp = MLP(self.hidden)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """arXiv:2010.11929, at the size S of arXiv:2012.12877."""

    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    classes: int = 1000

    def setup(self):
        patch = (self.patch, self.patch)
        self.embed = nn.Conv(self.width, patch, patch, padding="VALID")
        self.blocks = [EncoderBlock(self.heads, 4 * self.width) for _ in range(self.depth)]
        self.norm = nn.LayerNorm(epsilon=1e-6)
        self.head = nn.Dense(self.classes)
        self.cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width))

    @nn.compact
    def __call__(self, x, train=False):
        x = self.embed(x).reshape(x.shape[0], -1, self.width)
        x = jnp.concatenate([jnp.tile(self.cls, (x.shape[0], 1, 1)), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class MixerBlock(nn.Module):
    """A dense block over the patches, then one over the channels."""

    tokens: int
    channels: int

    @nn.compact
    def __call__(self, x):
        y = jnp.swapaxes(nn.LayerNorm(epsilon=1e-6)(x), 1, 2)
        x = x + jnp.swapaxes(MLP(self.tokens, name="token_mixing")(y), 1, 2)
        y = nn.LayerNorm(epsilon=1e-6)(x)
        return x + MLP(self.channels, name="channel_mixing")(y)


class Mixer(nn.Module):
    """arXiv:2105.01601, S/16."""

    patch: int = 16
    width: int = 512
    depth: int = 8
    tokens: int = 256
    channels: int = 2048
    classes: int = 1000

    @nn.compact
    def __call__(self, x, train=False):
        patch = (self.patch, self.patch)
        x = nn.Conv(self.width, patch, patch, name="stem")(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for _ in range(self.depth):
            x = MixerBlock(self.tokens, self.channels)(x)
        x = nn.LayerNorm(epsilon=1e-6, name="norm")(x)
        return nn.Dense(self.classes, name="head")(x.mean(axis=1))
