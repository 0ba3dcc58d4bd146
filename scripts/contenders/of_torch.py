"""A net in PyTorch, channels last, on the GPU where there is one."""

import argparse
import contextlib
from typing import Any

import numpy as np
import serving
import torch
from torch import nn

from rice_jax import models


def make(given: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> serving.Contender:
    """The net with the widths that rice_jax has, its input as uint8 in memory like the others'."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _build(models.get(given.net).widths, given.image_size)
    model = model.to(device, memory_format=torch.channels_last)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)  # a view: channels last already
    classes = torch.from_numpy(labels).long()
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7)

    def logits() -> torch.Tensor:
        x = pixels.to(device, non_blocking=True).to(torch.float32).div_(255)
        bfloat16 = given.dtype == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext():
            return model(x).float()

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def train(steps: int) -> None:
        model.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss_of(logits(), classes.to(device)).backward()
            optimizer.step()
        wait()

    def infer(batches: int) -> None:
        model.eval()
        with torch.inference_mode():
            for _ in range(batches):
                logits()
                if given.batch == 1:  # one image is awaited
                    wait()
        wait()

    return serving.Contender(train, infer)


def _build(widths: Any, image_size: int) -> nn.Module:
    model = _googlenet(**widths) if "stem" in widths else _plain(**widths)
    model(torch.zeros(1, 3, image_size, image_size))  # gives lazy layers their sizes
    return model


def _conv(filters: int, size: int = 3, strides: int = 1) -> nn.Module:
    conv = nn.LazyConv2d(filters, size, strides, padding=size // 2)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def _plain(
    *, stages: Any, dense: int, strides: int, pooling: str, dropout: float, **_: Any
) -> nn.Module:
    layers: list[nn.Module] = []
    for stage in stages:
        layers += [_conv(filters, strides=strides) for filters in stage]
        layers.append(nn.MaxPool2d(2))
    layers += [] if pooling == "flatten" else [nn.AdaptiveAvgPool2d(1)]
    layers += [nn.Flatten(), nn.LazyLinear(dense), nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.LazyLinear(5))


def _googlenet(*, stem: Any, inceptions: Any, dropout: float, **_: Any) -> nn.Module:
    layers = [_conv(stem[0], 7, 2), nn.MaxPool2d(3, 2, 1), _conv(stem[1], 1), _conv(stem[2])]
    for stage in inceptions:
        layers += [nn.MaxPool2d(3, 2, 1), *(_Inception(*widths) for widths in stage)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.LazyLinear(5)]
    return nn.Sequential(*layers)


class _Inception(nn.Module):
    def __init__(self, one: int, to3: int, three: int, to5: int, five: int, pooled: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _conv(one, 1),
                nn.Sequential(_conv(to3, 1), _conv(three)),
                nn.Sequential(_conv(to5, 1), _conv(five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv(pooled, 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


if __name__ == "__main__":
    serving.serve(make)
