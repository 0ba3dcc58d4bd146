"""Weights of the nets out of Keras's .h5 and .keras, without Keras and without trust in them."""

import collections
import dataclasses
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from absl import logging
from flax import nnx, traverse_util

from rice_jax.errors import UserError
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.trace import Layer, Trace, trace
from rice_jax.models import h5_reader

_SECONDS = 120
"""Wall time for one reading; the reader itself bounds its processor time."""
_FEW = 8
_USUAL = (1, 224, 224, 3)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Parameters with weights of a file filled in."""

    params: Any
    """The nested dict, arrays of the file where it has them."""
    filled: tuple[str, ...]
    """Paths of the layers that the file filled."""
    kept: tuple[str, ...]
    """Paths of the layers left as they were: those after the convolutions of a 'notop' file."""
    by_order: Mapping[str, str]
    """Of the layers that others have the shapes of: their paths, and the file's names of what was
    taken. Nothing but the file's order tells them apart."""


@dataclasses.dataclass(frozen=True)
class _FileLayer:
    group: str
    name: str
    kernel: tuple[str, tuple[int, ...]]
    bias: tuple[str, tuple[int, ...]] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"kernel": self.kernel[1]} | ({"bias": self.bias[1]} if self.bias else {})


def load_h5(
    path: str | os.PathLike[str],
    module: nn.Module,
    params: Any,
    input_shape: InputShape = _USUAL,
) -> Any:
    """`fill_from_h5(...).params` of the same, with a warning if layers were left unfilled.

    Which were taken for which by their order alone is printed.
    """
    loaded = fill_from_h5(path, module, params, input_shape)
    if loaded.by_order:
        pairs = [f"{place} is {name}" for place, name in loaded.by_order.items()]
        more = f" and {len(pairs) - _FEW} more" if len(pairs) > _FEW else ""
        print(f"{path}: of equal shape, in the file's order: {', '.join(pairs[:_FEW])}{more}")
    if loaded.kept:
        logging.warning(
            "%s holds convolutions only: %s stay as they are", path, ", ".join(loaded.kept)
        )
    return loaded.params


def fill_from_h5(
    path: str | os.PathLike[str],
    module: nn.Module,
    params: Any,
    input_shape: InputShape = _USUAL,
) -> Loaded:
    """Fill `params` with the weights of a Keras .h5 or .keras.

    Reads what Keras writes with `model.save('x.keras')`, `model.save('x.h5')`,
    `model.save_weights('x.weights.h5')` and, before Keras 3, `save_weights('x.h5')`. Layers are
    matched in order of computation, as Keras lists them, and by the shapes of their kernels and
    biases; names do not matter. A model of a class of its own is listed in the order in which it
    made its layers. A file of convolutions alone ('notop') fills the convolutions, and may have
    more of them than the net.

    Args:
        path: the file.
        module: one of the nets.
        params: its parameters, a nested dict, or `jax.ShapeDtypeStruct`s; not changed.
        input_shape: (N, H, W, 3) of images that it takes: a net may take one size alone.

    Returns:
        The filled parameters (float32), and which layers were filled.

    Raises:
        UserError: no such file, a damaged one, one that refers to data elsewhere, weights of
            another net (names the first layer that does not fit), an order that the file does not
            tell, numbers that are not finite; a net of which Keras keeps layers otherwise.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"there is no weights file {path}")
    flat = traverse_util.flatten_dict(params, sep="/")
    layers = _file_layers(path)
    pairs = _match(path, layers, trace(module, input_shape, train=False), flat)
    arrays = _read(path, pairs)
    filled = tuple(place for place, _ in pairs)
    alike = collections.Counter(str(layer.shapes) for _, layer in pairs)
    owners = dict.fromkeys(key.rpartition("/")[0] for key in flat)
    return Loaded(
        params=traverse_util.unflatten_dict({**flat, **arrays}, sep="/"),
        filled=filled,
        kept=tuple(place for place in owners if place not in filled),
        by_order={place: layer.name for place, layer in pairs if alike[str(layer.shapes)] > 1},
    )


def _file_layers(path: str) -> list[_FileLayer]:
    """The file's layers that have a kernel, convolutions first, each kind in the file's order."""
    layers: list[_FileLayer] = []
    for group, name, weight, shape in json.loads(_run_reader("list", path)):
        last = layers[-1] if layers else None
        if len(shape) >= 2:
            layers.append(_FileLayer(group, name, (weight, tuple(shape))))
        elif len(shape) == 1 and last and last.name == name and last.bias is None:
            layers[-1] = dataclasses.replace(last, bias=(weight, tuple(shape)))
        else:
            raise UserError(
                f"{path} holds another net: weight {weight!r} of shape {tuple(shape)} is neither "
                "the kernel nor the bias of a convolution or dense layer"
            )
    if not layers:
        raise UserError(f"{path} holds no weights of layers; save them with Keras's model.save()")
    return sorted(layers, key=lambda layer: _is_dense(layer.kernel[1]))


def _is_dense(kernel: Sequence[int]) -> bool:
    return len(kernel) == 2


def _match(
    path: str, layers: list[_FileLayer], traced: Trace, flat: Mapping[str, Any]
) -> list[tuple[str, _FileLayer]]:
    """(our layer's path, the file's layer) for each layer that the file fills."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        place: {
            name: tuple(flat[f"{place}/{name}"].shape)
            for name in ("kernel", "bias")
            if name in layer.params
        }
        for place, layer in traced.layers.items()
        if "kernel" in layer.params
    }
    _require_known(path, flat, traced, shapes)
    places = sorted(shapes, key=lambda place: _is_dense(shapes[place]["kernel"]))
    if not any(_is_dense(layer.kernel[1]) for layer in layers):
        places = [place for place in places if not _is_dense(shapes[place]["kernel"])]
        layers = layers[: max(len(places), 1)]
    # Keras lists a functional model by depth, and one built of layers with layers inside in
    # order of creation; weights of a layer that is frozen in part come in no order but by name.
    ours = (_by_depth(places, traced), _by_depth(_from_the_end(places, traced), traced), places)
    theirs = (layers, _by_name(layers))
    fits: list[list[tuple[str, _FileLayer]]] = []
    misfits: list[str] = []
    for mine, other in itertools.product(ours, theirs):
        misfit = _misfit(mine, other, shapes)
        pairs = list(zip(mine, other, strict=False))
        if misfit:
            misfits.append(misfit)
        elif not any(dict(pairs) == dict(fit) for fit in fits):
            fits.append(pairs)
    if not fits:
        raise UserError(f"{path} holds another net: {misfits[0]}; give weights of this net")
    if len(fits) > 1 or _unordered([layer for _, layer in fits[0]]):
        raise UserError(
            f"{path} does not tell which of its layers of equal shape comes first; save the whole "
            "model with Keras's model.save('x.h5'), with no model or custom layer inside it, or "
            "give a Flax checkpoint"
        )
    return fits[0]


def _require_known(
    path: str, flat: Mapping[str, Any], traced: Trace, shapes: Mapping[str, Any]
) -> None:
    """UserError for a net with layers that are not kept by Keras as they are here, or not at all.

    The kernel of a transposed convolution is mirrored there, and its channels are exchanged.
    """
    others = [
        owner or name for name in flat if (owner := name.rpartition("/")[0]) not in shapes
    ] + [place for place in shapes if _is_transposed(traced.layers[place])]
    if others:
        raise UserError(
            f"{path} cannot fill {others[0]}: of Keras's files convolutions and dense layers are "
            "taken alone; give a Flax checkpoint"
        )


def _is_transposed(layer: Layer) -> bool:
    return issubclass(layer.module, nn.ConvTranspose | nnx.ConvTranspose)


def _unordered(layers: Sequence[_FileLayer]) -> bool:
    """Whether two layers of equal shapes could as well come in the other order.

    A weights file of Keras 3 names groups by class and numbers each class for itself: conv2d_1
    comes after conv2d, but whether sequential comes before them is not in the file. Of a model
    within a model the layers that learn are listed first, so that names alone may tell an order:
    those that differ by their numbers.
    """
    for one, other in itertools.combinations(layers, 2):
        within = one.group == other.group and one.shapes == other.shapes
        if within and _without_numbers(one.name) != _without_numbers(other.name):
            return True
    numbered = [layer for layer in layers if re.search(r"/vars/\d+$", layer.kernel[0])]
    for one, other in itertools.combinations(numbered, 2):
        names = zip(one.name.split("/"), other.name.split("/"), strict=False)
        first, second = next((pair for pair in names if pair[0] != pair[1]), ("", ""))
        if one.shapes == other.shapes and _without_numbers(first) != _without_numbers(second):
            return True
    return False


def _without_numbers(name: str) -> str:
    return re.sub(r"_?\d+", "", name)


def _misfit(
    places: Sequence[str], layers: Sequence[_FileLayer], shapes: Mapping[str, Mapping[str, Any]]
) -> str:
    """What is wrong with the first layer that does not fit; '' where all fit."""
    for place, layer in itertools.zip_longest(places, layers):
        if place is None:
            return f"its layer {layer.name!r} with {_text(layer.shapes)} is one too many"
        if layer is None:
            return f"it has no layer for {place} with {_text(shapes[place])}"
        if layer.shapes != dict(shapes[place]):
            return (
                f"its layer {layer.name!r} has {_text(layer.shapes)} "
                f"where {place} takes {_text(shapes[place])}"
            )
    return ""


def _text(shapes: Mapping[str, Any]) -> str:
    return " and ".join(f"{name} {shape}" for name, shape in shapes.items())


def _by_name(layers: Sequence[_FileLayer]) -> list[_FileLayer]:
    """Sorted by the numbers in their names, within each group that the file lists as one layer."""
    ordered: list[_FileLayer] = []
    for _, group in itertools.groupby(layers, key=lambda layer: layer.group):
        ordered += sorted(group, key=lambda layer: h5_reader.natural(layer.kernel[0]))
    return ordered


def _from_the_end(places: Sequence[str], traced: Trace) -> list[str]:
    """The layers as Keras comes upon them on its way back from the output.

    It goes to the first input of each operation before the others: of layers at one depth that is
    the order in which it lists them.
    """
    met: dict[str, int] = {}
    seen: set[int] = set()
    stack = list(reversed(traced.outputs))
    while stack:
        equation = traced.producer(stack.pop())
        if equation is None or id(equation) in seen:
            continue
        seen.add(id(equation))
        met.setdefault(equation.layer, len(met))
        stack.extend(reversed(equation.inputs))
    return sorted(places, key=lambda place: met.get(place, len(met)))


def _by_depth(places: Sequence[str], traced: Trace) -> list[str]:
    """Keras's order of a functional model's layers: those farthest from the output first.

    The distance is the number of layers with weights on the longest way to the output. Layers
    at the same distance stay in the order of `places`.
    """
    distance: dict[str, int] = {}
    behind: dict[int, int] = {}  # by identity of the equation
    for equation in reversed(traced.equations):
        consumers = (consumer for value in equation.outputs for consumer in traced.consumers(value))
        farthest = max((behind[id(consumer)] for consumer in consumers), default=0)
        if equation.name in ("conv_general_dilated", "dot_general"):
            farthest += 1
            distance[equation.layer] = farthest
        behind[id(equation)] = farthest
    return sorted(places, key=lambda place: -distance.get(place, 0))


def _read(path: str, pairs: Sequence[tuple[str, _FileLayer]]) -> dict[str, Any]:
    wanted = {
        f"{place}/{name}": weight
        for place, layer in pairs
        for name, weight in (("kernel", layer.kernel), ("bias", layer.bias))
        if weight is not None
    }
    content = _run_reader("read", path, json.dumps(list(wanted.values())).encode())
    values = np.frombuffer(content, "<f4")
    sizes = [math.prod(shape) for _, shape in wanted.values()]
    if len(values) != sum(sizes):
        raise UserError(f"{path} is damaged: it ends before its weights do")
    arrays = {}
    parts = np.split(values, np.cumsum(sizes)[:-1])
    for (place, (name, shape)), part in zip(wanted.items(), parts, strict=True):
        if not np.isfinite(part).all():
            raise UserError(f"{path} is damaged: {name!r} holds numbers that are not finite")
        arrays[place] = jax.device_put(part.reshape(shape))
    return arrays


def _run_reader(task: str, path: str, request: bytes = b"") -> bytes:
    # No plugins, which are code; one thread, so that the bound on memory can be tight.
    environment = {**os.environ, "HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(Path(h5_reader.__file__)), task, os.path.abspath(path)]
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, timeout=_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"cannot read {path} as Keras weights: no end after {_SECONDS} s"
        ) from error
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == h5_reader.OF_NO_USE and lines:
        raise UserError(f"{path}: {lines[-1]}")
    why = lines[-1] if done.returncode == 1 and lines else "it makes the HDF5 library fail"
    raise UserError(f"cannot read {path} as Keras weights: {why}; is it damaged?")
