"""A generator out of transposed convolutions: Radford et al. 2015."""

import flax.linen as nn


class Generator(nn.Module):
    """arXiv:1511.06434 at the widths of PyTorch's tutorial: (N, 100) to (N, 64, 64, 3)."""

    width: int = 64
    channels: int = 3

    @nn.compact
    def __call__(self, z, train=False):
        width = 8 * self.width
        x = nn.Dense(4 * 4 * width, use_bias=False, name="project")(z)
        x = x.reshape(-1, 4, 4, width)
        for level in range(3):
            x = nn.relu(nn.BatchNorm(use_running_average=not train, name=f"bn{level}")(x))
            width //= 2
            x = nn.ConvTranspose(width, (4, 4), (2, 2), use_bias=False, name=f"up{level}")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn3")(x))
        x = nn.ConvTranspose(self.channels, (4, 4), (2, 2), use_bias=False, name="image")(x)
        return nn.tanh(x)
