"""What must be cut together, found in the computation itself."""

import dataclasses
import operator
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rice_jax.errors import UserError
from rice_jax.graph.arrays import Chosen, InputShape
from rice_jax.graph.fronts import takes_net
from rice_jax.graph.input_shape import traced_alone
from rice_jax.graph.origins import Origins
from rice_jax.graph.trace import Equation, Trace, Value
from rice_jax.prune.propagation import ANY, FIXED, UNSEEN, Contraction, Labels, Propagation
from rice_jax.prune.rules import Rule, propagate

OnUnknown = Literal["error", "keep"]

BROADCAST = -2
"""Along an axis of repeated numbers, in the place of a channel."""


@dataclasses.dataclass(frozen=True, eq=False)
class Filters:
    """The filters (or units) of one layer: slices of its weight along one axis."""

    variable: str
    """Path of the weight with its collection: 'params/conv1/kernel'."""
    axis: int
    channels: np.ndarray
    """Which channel each filter makes; -1 where that can't be cut."""
    output: np.ndarray
    """bool, one a filter: whether it alone makes one of what the net returns, as a logit."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dependencies:
    """The channels of a net that can be cut, numbered from 0, and everything each one touches.

    A channel is whatever must go at once: a filter with its bias and its batch statistics, the
    kernel rows that read its map, and the filters that a residual addition ties to it.
    """

    trace: Trace
    origins: Origins
    """Where the trace's values come from."""
    group: np.ndarray
    """For each channel the number of its group: channels that touch the same axes."""
    axes: Mapping[Value, Labels]
    """For each value of the trace and each of its axes, the channel at each index; -1 where that
    can't be cut, `BROADCAST` where it takes the size of what it is combined with."""
    contractions: Sequence[Contraction]
    """Where channels are summed over: what a removed channel would have added is missed there."""
    filters: Mapping[str, Filters]
    """By layer path, in the order in which the layers run."""
    by_place: Chosen
    """Channels (bool, one each) that an operation picks or parts by their place: a slice, a split,
    a gather, a reshape of their axis into several. Their places have to stay. In a layer of
    `wide_layers` that is the layer's matter: it is narrow all over."""
    reshaped: Chosen
    """Channels (bool, one each) whose axis a reshape makes one with others."""
    kept_whole: Sequence[str]
    """Layers with filters that can't be cut, and what holds them: 'conv1: sort in the outermost
    module is not seen through'. Layers that make the net's output are left out."""

    @property
    def channels(self) -> int:
        """How many channels can be cut."""
        return len(self.group)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max(initial=-1)) + 1

    def sizes(self, removed: Chosen | None = None) -> np.ndarray:
        """Channels left in each group after `removed` (bool, one a channel)."""
        left = self.group if removed is None else self.group[~removed]
        return np.bincount(left, minlength=self.groups)

    def variables(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """Each variable's path, axis and channels along it, where there are any."""
        for path, value in self.trace.variables.items():
            for axis, channels in enumerate(self.axes[value]):
                if np.any(channels >= 0):
                    yield path, axis, channels

    def read(self, contraction: Contraction) -> np.ndarray:
        """The channel at each index of the axis that is summed over, or -1."""
        value, axis = contraction.place
        return self.axes[value][axis]

    def select(self, filters: Mapping[str, Sequence[int]]) -> Chosen:
        """The channels (bool, one each) that filters given by layer path and index belong to."""
        if not isinstance(filters, Mapping):
            raise UserError(f"filters are given by layer, {{'conv1': [0, 3]}}, not {filters!r}")
        chosen = np.zeros(self.channels, bool)
        for path, indices in filters.items():
            channels = self._layer(path).channels
            indices = _whole_numbers(path, indices)
            outside = [index for index in indices if not 0 <= index < len(channels)]
            if outside:
                raise UserError(
                    f"{path} has filters 0 to {len(channels) - 1}, none is {outside[0]}"
                )
            bound = [index for index in indices if channels[index] < 0]
            if bound:
                raise UserError(
                    f"filter {bound[0]} of {path} cannot be removed: it ends in the net's output, "
                    "is tied to its input, or passes an operation that was left whole"
                )
            chosen[channels[indices]] = True
        return chosen

    def by_layer(self, chosen: Chosen) -> dict[str, list[int]]:
        """Indices of the filters that make the `chosen` channels, for the layers with any."""
        found = {
            path: np.flatnonzero(among(filters.channels, chosen)).tolist()
            for path, filters in self.filters.items()
        }
        return {path: indices for path, indices in found.items() if indices}

    def layers(self, group: int) -> list[str]:
        """Paths of the layers that make the channels of a group."""
        inside = self.group == group
        return list(self.by_layer(inside))

    def without(self, kept: Chosen, reasons: Sequence[str]) -> "Dependencies":
        """The same with fewer channels that can be cut.

        Args:
            kept: the channels (bool, one each) that are to be left as they are.
            reasons: what `kept_whole` is to say of them.
        """
        numbers = np.full(self.channels + 2, -1)  # indices -1 and -2 are the last two
        numbers[BROADCAST] = BROADCAST
        numbers[: self.channels][~kept] = np.arange(np.sum(~kept))
        _, group = np.unique(self.group[~kept], return_inverse=True)
        return dataclasses.replace(
            self,
            group=group,
            axes={
                value: tuple(numbers[line] for line in lines) for value, lines in self.axes.items()
            },
            filters={
                path: dataclasses.replace(filters, channels=numbers[filters.channels])
                for path, filters in self.filters.items()
            },
            by_place=self.by_place[~kept],
            reshaped=self.reshaped[~kept],
            kept_whole=[*self.kept_whole, *reasons],
        )

    def _layer(self, path: str) -> Filters:
        if path not in self.filters:
            known = ", ".join(self.filters)
            raise UserError(f"there is no layer {path!r} with filters; there are {known}")
        return self.filters[path]


@takes_net
def dependencies(
    module: Any,
    input_shape: InputShape,
    *,
    on_unknown: OnUnknown = "error",
    batched: bool | None = None,
    rules: Mapping[str, Rule] = MappingProxyType({}),
    **kwargs: Any,
) -> Dependencies:
    """Find the channels of a module that can be cut, and what each of them touches.

    Args:
        module: any net called with one array: a Linen module, an NNX module, or a function of
            params and an array, which its params come after.
        input_shape: (N, H, W, C) or, of an image, (H, W, C). N is of no matter.
        on_unknown: 'error' refuses an operation that can't be seen through where it meets
            filters; 'keep' leaves those filters whole.
        batched: whether `input_shape` has its batch dimension, where three numbers are not an
            image or others not a whole shape.
        rules: more rules, or others, by JAX's name of a primitive: `rule(p, equation)` gives for
            each output one array of labels an axis, made of its operands' `p.of(value)`. Equal
            labels are one channel; `p.link(first, second)` makes two axes one, `p.fix(labels)`
            keeps them from being cut, `p.refuse(equation, labels)` says that nothing is known.
        **kwargs: what else the module's call needs, such as train=False, and the `dtype` of the
            input, `rngs`, and `output`, which of several outputs are the logits.

    Raises:
        UserError: for an operation without a rule, naming it and its layer; for a shape that the
            net does not run on, or that was read wrongly (say `batched`).
    """
    if on_unknown not in get_args(OnUnknown):
        raise UserError(f"on_unknown={on_unknown!r}: there are {', '.join(get_args(OnUnknown))}")
    traced = traced_alone(module, input_shape, batched, any_key=True, **kwargs)
    labelled = propagate(traced, rules)
    if on_unknown == "error":
        _refuse_unclear(labelled)
    parts = _parts(labelled)
    channel = _channels(labelled, parts)
    axes = {value: _numbers(labels, parts, channel) for value, labels in labelled.labels.items()}
    groups = _groups(axes, traced, int(channel.max(initial=-1)) + 1)
    free = _parts(labelled, fixed=False)
    filters = _filters(labelled, axes, free)
    return Dependencies(
        traced,
        labelled.origins,
        groups,
        axes,
        labelled.contractions,
        filters,
        _met(_by_place(labelled, wide_layers(traced, axes)), parts, channel),
        _met(labelled.reshaped, parts, channel),
        _kept_whole(labelled, filters, free),
    )


def wide_layers(traced: Trace, axes: Mapping[Value, Labels]) -> set[str]:
    """Paths of the layers whose own variables hold channels that can be cut."""
    return {
        traced.owners[value]
        for value in traced.variables.values()
        if any((line >= 0).any() for line in axes[value])
    }


def among(channels: np.ndarray, chosen: Chosen) -> np.ndarray:
    """For each index of an axis whether its channel is `chosen` (bool, one a channel)."""
    return np.append(chosen, [False, False])[channels]  # where -1 and BROADCAST look


def along(line: Any, axis: int, rank: int) -> Any:
    """A line of numbers laid along one axis of an array of `rank` axes."""
    return line.reshape([-1 if other == axis else 1 for other in range(rank)])


def layer_told(path: str) -> str:
    """A layer as messages call it."""
    return path or "the outermost module"


def told(equation: Equation) -> str:
    """An operation as messages call it."""
    return f"{equation.name} in {layer_told(equation.layer)}"


def _whole_numbers(path: str, indices: Any) -> list[int]:
    """Indices of filters; UserError where they are none."""
    try:
        given = [index for index in indices if not isinstance(index, bool | np.bool_)]
        numbers = [operator.index(index) for index in given]
        if len(numbers) == len(indices):
            return numbers
    except TypeError:
        pass
    raise UserError(f"filters of {path}: give a list of their numbers, from 0, not {indices!r}")


def _parts(labelled: Propagation, *, fixed: bool = True) -> np.ndarray:
    """For each label the number of its connected part; without what ties it to FIXED if not."""
    first, second = (np.concatenate(ends) for ends in zip(*labelled.links, strict=True))
    if not fixed:
        free = (first != FIXED) & (second != FIXED)
        first, second = first[free], second[free]
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(labelled.count,) * 2)
    return connected_components(graph, directed=False)[1]


def _candidates(labelled: Propagation) -> np.ndarray:
    """Labels of all filters, in the order in which their layers run."""
    owners = [
        labelled.labels[labelled.trace.variables[path]][axis]
        for path, axes in labelled.filters.items()
        for axis in axes
    ]
    return np.concatenate([np.empty(0, int), *owners])


def _refuse_unclear(labelled: Propagation) -> None:
    """UserError for an operation without a rule that meets filters that nothing else holds."""
    parts = _parts(labelled)
    free = np.zeros(len(parts), bool)
    free[parts[_candidates(labelled)]] = True
    free[parts[FIXED]] = False
    for equation, labels, why in labelled.unclear:
        if free[parts[labels]].any():
            shape = equation.inputs[0].shape
            what = f"pruning cannot see through {told(equation)} on {shape}"
            if why != UNSEEN:
                what = f"pruning: {told(equation)} on {shape} {why}"
            raise UserError(
                f"{what}: leave its filters whole with on_unknown='keep' (--on_unknown=keep)"
            )


def _channels(labelled: Propagation, parts: np.ndarray) -> np.ndarray:
    """For each part its channel, or -1."""
    candidates = parts[_candidates(labelled)]
    free = np.zeros(len(parts), bool)
    free[candidates] = True
    free[parts[FIXED]] = False
    for _, labels, _ in labelled.unclear:
        free[parts[labels]] = False
    channel = np.full(len(parts), -1)
    ordered = candidates[np.sort(np.unique(candidates, return_index=True)[1])]
    ordered = ordered[free[ordered]]
    channel[ordered] = np.arange(len(ordered))
    return channel


def _by_place(labelled: Propagation, wide: set[str]) -> list[np.ndarray]:
    return [labels for layer, labels in labelled.by_place if layer not in wide]


def _met(labels: Sequence[np.ndarray], parts: np.ndarray, channel: np.ndarray) -> np.ndarray:
    """The channels (bool, one each) of some labels."""
    met = channel[parts[np.concatenate([np.empty(0, int), *labels])]]
    return np.isin(np.arange(channel.max(initial=-1) + 1), met)


def _returned(labelled: Propagation, parts: np.ndarray) -> np.ndarray:
    """The parts (bool, one each) that are among what the net returns."""
    met = [labels for equation, labels in labelled.held if equation is None]
    returned = np.zeros(len(parts), bool)
    returned[parts[np.concatenate([np.empty(0, int), *met])]] = True
    return returned


def _kept_whole(
    labelled: Propagation, filters: Mapping[str, Filters], parts: np.ndarray
) -> list[str]:
    """Each layer with filters that can't be cut, and the first operation that holds them."""
    returned = _returned(labelled, parts)
    reason: dict[int, str] = {}
    held = [(e, labels, "ties it to what stays") for e, labels in labelled.held]
    for equation, labels, why in (*labelled.unclear, *held):
        if equation is None:
            continue
        for part in np.unique(parts[labels]).tolist():
            reason.setdefault(part, f"{told(equation)} {why}")
    found: dict[str, None] = {}
    for path, each in filters.items():
        own = parts[labelled.labels[labelled.trace.variables[each.variable]][each.axis]]
        stuck = own[(each.channels < 0) & ~returned[own]].tolist()
        found |= {f"{layer_told(path)}: {reason[part]}": None for part in stuck}
    return list(found)


def _numbers(labels: Labels, parts: np.ndarray, channel: np.ndarray) -> Labels:
    return tuple(np.where(line == ANY, BROADCAST, channel[parts[line]]) for line in labels)


def _groups(axes: Mapping[Value, Labels], traced: Trace, channels: int) -> np.ndarray:
    """Number the channels by the axes they touch, and by how many entries of each."""
    touched: list[list[tuple[int, int]]] = [[] for _ in range(channels)]
    lines = [line for value in traced.variables.values() for line in axes[value]]
    for number, line in enumerate(lines):
        for channel, count in zip(*np.unique(line[line >= 0], return_counts=True), strict=True):
            touched[channel].append((number, int(count)))
    numbers: dict[tuple[tuple[int, int], ...], int] = {}
    return np.array([numbers.setdefault(tuple(each), len(numbers)) for each in touched], int)


def _filters(
    labelled: Propagation, axes: Mapping[Value, Labels], parts: np.ndarray
) -> dict[str, Filters]:
    """By the path of the module that owns the weight; by the weight's own where it owns two."""
    alone = _returned(labelled, parts)
    alone &= np.bincount(parts[_candidates(labelled)], minlength=len(parts)) == 1
    found: dict[str, Filters] = {}
    for path, held in labelled.filters.items():
        weight = labelled.trace.variables[path]
        owner = labelled.trace.owners[weight]
        name = owner if owner not in found else path.partition("/")[2]
        if held:
            axis = held[-1]
            output = alone[parts[labelled.labels[weight][axis]]]
            found[name] = Filters(path, axis, axes[weight][axis], output)
    return found
