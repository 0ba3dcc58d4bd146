"""The library's one call: a net in, a smaller net and the account of it out."""

import dataclasses
import functools
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from rice_jax import profile
from rice_jax.errors import UserError
from rice_jax.graph.batches import Batches
from rice_jax.graph.call import Output
from rice_jax.graph.fronts import takes_variables
from rice_jax.graph.maps import require_pixels, require_scaled
from rice_jax.prune import surgery
from rice_jax.prune.allocation import ALLOCATIONS, held
from rice_jax.prune.certificate import Certificate, certify
from rice_jax.prune.cost import Measure
from rice_jax.prune.dead import Dead, dead, measured_extremes, proven_extremes
from rice_jax.prune.dependencies import Dependencies, OnUnknown, dependencies, layer_told
from rice_jax.prune.importance import Evidence, importance
from rice_jax.prune.rules import Rule
from rice_jax.prune.shapes import hold_shapes, hold_widths
from rice_jax.prune.tally import of_profile
from rice_jax.prune.within import whole, within

Drop = Literal["dead", "proven"]


@dataclasses.dataclass(frozen=True)
class Pruned:
    """A smaller net and the account of it."""

    module: Any
    """Of the kind that the whole net is of: a new module, or the same function."""
    variables: Any
    """The smaller variables, or a function's params; None for an NNX module, which holds them."""
    removed: Mapping[str, Sequence[int]]
    """By layer path: the removed filters' indices in the net as it was."""
    kept: Mapping[str, Sequence[int]]
    """By layer path: the remaining filters' indices in the net as it was."""
    before: Mapping[str, int]
    """{formula, study, xla (FLOPs), params, filters, uncounted} of the net as it was: with any
    operation uncounted (their number) its FLOPs are too low."""
    after: Mapping[str, int]
    budgets: Mapping[str, Mapping[str, int]]
    """For each measure that had a budget {asked, met, under}."""
    spared: Mapping[str, Sequence[int]]
    """Filters that do nothing but stay, for a layer can't be empty."""
    refused: Mapping[str, Sequence[int]]
    """Filters that are constant, not zero, and stay: padding or no bias forbids to fold them."""
    tied: Mapping[str, Sequence[int]]
    """Filters and units that never change but stay, for what they would go with does: the partners
    of a sum, of a group or of a pixel shuffle, or a layer that is left whole."""
    unbounded: Sequence[str]
    """With drop='proven', operations behind which nothing is proven: 'sort in layer conv1'."""
    kept_whole: Sequence[str]
    """Layers with filters that can't be cut, and what holds them; the output's are left out."""
    certificate: Certificate

    def to_json(self) -> dict[str, Any]:
        """The account as plain JSON types."""
        account = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("module", "variables")
        }
        return account | {"certificate": self.certificate.to_json()}


@takes_variables
def prune(
    module: Any,
    variables: Any,
    batches: Iterable[Any],
    *,
    drop: Drop | None = None,
    filters: Mapping[str, Sequence[int]] | None = None,
    budgets: Mapping[Measure, int] | None = None,
    criterion: str = "taylor",
    allocation: str = "global",
    only: Collection[str] = (),
    skip: Collection[str] = (),
    round_to: int = 1,
    judged_on: Iterable[Any] | None = None,
    output: Output = None,
    seed: int = 0,
    on_unknown: OnUnknown = "error",
    rules: Mapping[str, Rule] = MappingProxyType({}),
    rebuild: surgery.Rebuild | None = None,
    optional: Collection[str] = (),
    pixels: tuple[float, float] = (0.0, 1.0),
    **kwargs: Any,
) -> Pruned:
    """Remove filters of any CNN in Flax for real; the net itself is left as it is.

    At least one of `drop`, `filters` and `budgets` says what goes; together they act in this
    order.

    Args:
        module: a Linen module, an NNX module or a function that is called with images (N, H, W, C)
            and gives logits (N, classes), alone or among other outputs; a pruned net too.
        variables: of a Linen module, {'params': ..., 'batch_stats': ...}, or params of a function;
            an NNX module is followed by none.
        batches: pairs of images, as the module takes them, and labels (N,), or images alone where
            no criterion asks for labels: what dead filters are found and the certificate is
            measured on. Read several times, from the start; a generator is read once and kept.
        drop: 'dead' for what is zero, or constant and foldable, on all these images; 'proven'
            for what is so on every image with values in `pixels`.
        filters: indices by layer path.
        budgets: the most that may be left of 'formula', 'study' or 'xla' FLOPs for one image,
            of 'params' or of convolutions' 'filters'.
        criterion: a key of `importance.CRITERIA`, for budgets.
        allocation: how budgets are shared out: 'global' ranks all channels together by what they
            are worth for what they cost, 'uniform' takes the same share of each group, 'isomorphic'
            the same share of all groups of one shape, ranked together.
        only: paths of layers that may lose filters, with all below them; empty for any.
        skip: paths of layers that lose none.
        round_to: layers that a budget takes filters from keep a multiple of so many.
        judged_on: what the criterion looks at, where that is not `batches`.
        output: which of several outputs are the logits: a key, an attribute, an index, or a
            function of what the module returns. The other outputs keep their shapes.
        seed: of the criterion 'random'.
        on_unknown: what to do where an operation can't be seen through, or without `rebuild` a
            layer that would be cut has no field for its width, 'error' or 'keep'.
        rules: more rules for the channels of operations, as `dependencies` takes them.
        rebuild: makes the smaller module out of the filters left by layer path; without it the
            module's own code runs with narrower layers.
        optional: layers that the rebuilt module leaves out where all their filters are dead.
        pixels: least and largest value of a pixel, for drop='proven'.
        **kwargs: what else the module's call needs, such as train=False; arrays that are the same
            for each image; `rngs`.

    Raises:
        UserError: nothing to do, several outputs of which none is named, labels that are missing,
            a budget that can't be met, an unknown layer in `only` or `skip`, a layer without a
            filter left, a filter that can't go, an operation without a rule, images too small for
            a convolution, pixels in whole numbers that the net does not scale, or a module that
            can't be narrowed.
    """
    asked = whole(budgets or {})
    _check_asked(allocation, round_to, something=bool(drop or filters or asked))
    batches = Batches(batches)
    shape, dtype = _input(batches)
    called = {"dtype": dtype, "output": output, **kwargs}
    graph = dependencies(module, shape, on_unknown=on_unknown, rules=rules, batched=True, **called)
    _check(graph, variables)
    if rebuild is None:
        graph = hold_widths(module, graph) if on_unknown == "keep" else graph
        graph = hold_shapes(module, variables, graph, **called)
    counted = profile.of_trace(graph.trace)
    before = of_profile(counted)
    kept = held(graph, only, skip)
    limits = within(graph, asked, before, held=kept, round_to=round_to, allocation=allocation)
    found = _dead(graph, variables, batches, drop, optional, pixels)
    scores = np.zeros(graph.channels)
    if asked:
        judging = batches if judged_on is None else Batches(judged_on)
        scores = importance(criterion, Evidence(graph, variables, judging, seed))
    removed = (found.removed & ~kept) | graph.select(filters or {})
    made = {"constants": found.constants, "rebuild": rebuild, "optional": optional, **called}
    remove = functools.partial(surgery.remove, module, variables, graph, **made)
    cut, after = limits.cut(scores, removed, remove)
    met = limits.met(after)
    exact = drop == "proven" and not filters and not asked and cut.departure is None
    pairs = (module, variables), (cut.net, cut.variables)
    certificate = certify(*pairs, batches, proven=exact, output=output, **kwargs)
    smaller, its_variables = cut.net.given(cut.variables)
    return Pruned(
        module=smaller,
        variables=its_variables,
        removed=cut.removed,
        kept=cut.kept,
        before=before,
        after=after,
        budgets=met,
        spared=graph.by_layer(found.spared),
        refused=graph.by_layer(found.refused),
        tied=found.tied,
        unbounded=found.unbounded,
        kept_whole=[*graph.kept_whole, *_unseen(counted, graph)],
        certificate=dataclasses.replace(certificate, departure=cut.departure),
    )


def _check_asked(allocation: str, round_to: int, *, something: bool) -> None:
    """UserError for what can't be done, or where nothing is asked for."""
    if allocation not in ALLOCATIONS or not isinstance(round_to, numbers.Integral) or round_to < 1:
        raise UserError(
            f"allocation={allocation!r}, round_to={round_to}: there are {', '.join(ALLOCATIONS)}, "
            "and multiples of 1 or more"
        )
    if not something:
        raise UserError("nothing says what to remove: give drop, filters or budgets")


def _input(batches: Batches) -> tuple[tuple[int, ...], Any]:
    """Shape, for one image, and dtype of what the module takes."""
    for images, _ in batches:
        return (1, *images.shape[1:]), images.dtype
    raise UserError("no images to judge filters on: give a split that has some")


def _unseen(counted: profile.Profile, graph: Dependencies) -> list[str]:
    """Convolutions whose kernels are no variables of their own where they run: why they stay."""
    return [
        f"{layer_told(row.path)}: its filters are not seen, as within nn.scan and nn.vmap"
        for row in counted.rows
        if row.filters and row.params and row.path not in graph.filters
    ]


def _check(graph: Dependencies, variables: Any) -> None:
    """UserError for images or variables that the net does not take, or logits of other rows."""
    logits = graph.trace.the_logits()
    if logits.shape[:1] != (1,):
        raise UserError(
            f"one image gives logits {logits.shape}: the first axis must be the image's; arrays "
            "given as keyword arguments are the same for all images, one row of them"
        )
    require_pixels(graph.trace)
    require_scaled(graph.trace)
    graph.trace.arrays(variables)


def _dead(
    graph: Dependencies,
    variables: Any,
    batches: Batches,
    drop: Drop | None,
    optional: Collection[str],
    pixels: tuple[float, float],
) -> Dead:
    if drop is None:
        nothing = np.zeros(graph.channels, bool)
        return Dead(nothing, [], nothing, nothing)
    if drop == "dead":
        measured = measured_extremes(graph, variables, (images for images, _ in batches))
        return dead(graph, measured, optional)
    if drop == "proven":
        proven, unbounded = proven_extremes(graph, variables, *_ends(pixels))
        return dataclasses.replace(dead(graph, proven, optional), unbounded=unbounded)
    raise UserError(f"drop={drop!r}: there are {', '.join(get_args(Drop))}")


def _ends(pixels: Any) -> tuple[Any, Any]:
    """Least and largest value of a pixel; UserError for what is no pair."""
    try:
        low, high = pixels
    except (TypeError, ValueError) as error:
        raise UserError(
            f"pixels={pixels!r}: give the least and the largest value of a pixel, (0.0, 1.0)"
        ) from error
    return low, high
