"""An encoder and a decoder with a map handed across at each size: Ronneberger et al. 2015."""

import flax.linen as nn
import jax.numpy as jnp


class DoubleConv(nn.Module):
    """Two 3 x 3 convolutions without padding."""

    width: int

    def setup(self):
        self.conv1 = nn.Conv(self.width, (3, 3), padding="VALID")
        self.conv2 = nn.Conv(self.width, (3, 3), padding="VALID")

    def __call__(self, x):
        return nn.relu(self.conv2(nn.relu(self.conv1(x))))


class UNet(nn.Module):
    """arXiv:1505.04597: 572 x 572 pixels in, two classes of the inner 388 x 388 out."""

    width: int = 64
    depth: int = 4
    classes: int = 2

    def setup(self):
        widths = [self.width * 2**level for level in range(self.depth + 1)]
        self.down = [DoubleConv(width) for width in widths]
        self.up = [nn.ConvTranspose(width, (2, 2), (2, 2)) for width in widths[-2::-1]]
        self.merge = [DoubleConv(width) for width in widths[-2::-1]]
        self.head = nn.Conv(self.classes, (1, 1))

    def __call__(self, x, train=False):
        handed = []
        for level in self.down[:-1]:
            x = level(x)
            handed.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = nn.relu(up(x))
            other = handed.pop()
            edge = (other.shape[1] - x.shape[1]) // 2
            other = other[:, edge : edge + x.shape[1], edge : edge + x.shape[2], :]
            x = merge(jnp.concatenate([other, x], axis=-1))
        return self.head(x)
