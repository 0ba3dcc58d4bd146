"""Where depth stops paying: how well each layer's features tell the classes apart."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax import ops
from rice_jax.errors import UserError
from rice_jax.graph.fronts import PureNet, takes_variables
from rice_jax.graph.trace import Trace, Value, trace

_RIDGE = 1e-3
"""Penalty, relative to the number of images; features have unit variance."""

Batches = Iterable[tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear classifier on one layer's maps, averaged over height and width."""

    path: str
    features: int
    accuracy: float
    """On the images that it was not fitted on."""


@takes_variables
def probe(
    module: Any, variables: Any, fitted_on: Batches, tested_on: Batches, **kwargs: Any
) -> list[Probe]:
    """Fit a linear probe (Alain and Bengio 2016, arXiv:1610.01644) to each layer with maps.

    Ridge regression on one-hot labels, in closed form: a layer's output (after the ReLU that
    follows it) is averaged over its pixels and standardised.

    Args:
        module: a net called with images (N, H, W, C).
        variables: its variables; an NNX module is followed by none.
        fitted_on: pairs of images and labels.
        tested_on: the same, of other images.
        **kwargs: what else the module's call needs, such as train=False.

    Returns:
        A probe for each layer, in order of execution.

    Raises:
        UserError: for a net without maps, or a split without images.
    """
    features, labels, paths = _features(module, variables, fitted_on, kwargs)
    others, wanted, _ = _features(module, variables, tested_on, kwargs)
    classes = int(max(labels.max(), wanted.max())) + 1
    return [
        Probe(path, x.shape[1], float(np.mean(_ridge(x, labels, classes)(y) == wanted)))
        for path, x, y in zip(paths, features, others, strict=True)
    ]


def dead_tail(probes: Sequence[Probe], blocks: Sequence[str], margin: float) -> list[str]:
    """The blocks after the first whose probe is within `margin` of the best block's."""
    accuracy = {found.path: found.accuracy for found in probes}
    best = max((accuracy[path] for path in blocks), default=0.0)
    for number, path in enumerate(blocks):
        if accuracy[path] >= best - margin:
            return list(blocks[number + 1 :])
    return []


def _features(
    module: PureNet, variables: Any, batches: Batches, kwargs: Any
) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Of each layer (images, channels) in float64; the labels; the layers' paths."""
    pooled: list[list[np.ndarray]] = []
    labels: list[np.ndarray] = []
    run: Callable[..., Any] | None = None
    paths: list[str] = []
    for images, label in batches:
        if run is None:
            traced = trace(module, (1, *images.shape[1:]), **kwargs)
            layers = _maps(traced)
            paths, values = list(layers), list(layers.values())
            run = _averages(traced, values)
        pooled.append(jax.device_get(run(variables, images)))
        labels.append(np.asarray(label))
    if not labels:
        raise UserError("no images to probe layers on: give a split that has some")
    if not paths:
        raise UserError("the net has no layers with maps (N, H, W, C) to probe")
    joined = [np.concatenate(each).astype(np.float64) for each in zip(*pooled, strict=True)]
    return joined, np.concatenate(labels), paths


def _averages(traced: Trace, values: Sequence[Value]) -> Callable[..., Any]:
    def average(variables: Any, image: jax.Array) -> list[jax.Array]:
        with ops.inference():
            maps = traced.evaluate(variables, image[None], values, run=ops.replayed)
        return [jnp.mean(each, axis=(0, 1, 2)) for each in maps]

    return jax.jit(jax.vmap(average, (None, 0)))


def _maps(traced: Trace) -> dict[str, Value]:
    """Outputs of the layers that give maps, after the ReLU that alone reads them."""
    found = {}
    for path, layer in traced.layers.items():
        value = layer.output
        if path and value is not None and len(value.shape) == 4:
            readers = traced.consumers(value)
            if len(readers) == 1 and readers[0].name == "relu":
                value = readers[0].outputs[0]
            found[path] = value
    return found


def _ridge(x: np.ndarray, labels: np.ndarray, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from features to classes, fitted to features x (images, channels)."""
    mean, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1
    standard = (x - mean) / scale
    wanted = np.eye(classes)[labels]
    gram = standard.T @ standard + _RIDGE * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, standard.T @ (wanted - wanted.mean(0)))
    bias = wanted.mean(0)
    return lambda y: np.argmax((y - mean) / scale @ weights + bias, axis=1)
