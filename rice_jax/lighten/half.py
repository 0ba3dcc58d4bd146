"""A pruning that is not done: what its steps have left so far, so that it goes on from there."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import ml_collections

from rice_jax import config as configuration
from rice_jax import files, records, stages, train
from rice_jax.errors import UserError
from rice_jax.lighten import child, smaller
from rice_jax.lighten.remainder import Remainder
from rice_jax.records import CutTold, HalfPruned, PruneRequest, StepDone
from rice_jax.run import Run
from rice_jax.train.origin import changes


def begun(
    out: Run,
    request: PruneRequest,
    config: ml_collections.ConfigDict,
    parent: Run,
    whole: train.Trained,
) -> HalfPruned:
    """What is to be told of a pruning of this net, with the steps that `out` holds of it.

    What else is there of half a pruning is removed.

    Raises:
        UserError: the steps that it holds are of another pruning.
    """
    new = HalfPruned(request=request, config=configuration.to_json(config), weights=whole.digest)
    if not out.has(HalfPruned.FILE):
        return new
    told = _told(out) or new
    if told.steps:
        require_same(out, told.request, request)
        require_same_training(out, told.config, new.config)
        child.require_its_weights(out, told.weights, parent, whole)
    numbers = range(1, len(told.steps) + 1)
    done = [*itertools.takewhile(lambda number: child.begun(folder(out, number)), numbers)]
    for name in ("checkpoints", "pruned_maps"):  # of layers that now may go otherwise
        (out.path / name).rmtree(missing_ok=True)
    steps = out.path / "steps"
    for each in steps.iterdir() if steps.exists() else ():
        if each.is_dir() and each.name not in map(str, done):
            each.rmtree()
    if not done:
        return new
    print(f"{out} is pruned in part: going on from step {len(done)} of {request.steps}", flush=True)
    return dataclasses.replace(told, request=request, steps=told.steps[: len(done)])


def require_same(out: Run, before: PruneRequest, now: PruneRequest) -> None:
    """UserError where `out` holds a pruning, whole or in part, that was asked for otherwise."""
    for field in dataclasses.fields(now):
        then, wanted = (getattr(each, field.name) for each in (before, now))
        same = field.name == "parent" and files.same_place(then, wanted)
        if then != wanted and not same:
            raise UserError(
                f"{out} was pruned with {field.name}={then}, not {wanted}: give another --out, or "
                f"remove that folder{child.if_moved(field.name, str(then))}"
            )


def require_same_training(out: Run, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """UserError where configurations in JSON train otherwise."""
    for path, then, wanted in changes(before, now):
        raise UserError(
            f"{out} was pruned with config.{path}={then!r}, not {wanted!r}: give the same, or "
            "another --out"
        )


def folder(out: Run, number: int) -> Run:
    """Where a step trains, counted from 1."""
    return Run(out.path / "steps" / str(number))


def with_step(half: HalfPruned, net: Remainder, cut: CutTold) -> HalfPruned:
    """The same with one step more, whose net is ready to be trained."""
    done = StepDone(kept=net.kept, origin=net.origin, cut=cut)
    return dataclasses.replace(half, steps=[*half.steps, done])


def trained(half: HalfPruned, config: ml_collections.ConfigDict, out: Run) -> Remainder:
    """The net of the last step, trained to its end."""
    number, last = len(half.steps), half.steps[-1]
    print(f"=== step {number} of {half.request.steps} ===", flush=True)
    run = folder(out, number)
    dropped = half.account.get("dropped_layers", ())
    saved = with_net_of(run, config, dropped, half.request.finetune_epochs)
    stages.run_stages(saved, str(run), ["train"])
    return Remainder(saved, train.load(run).params, last.kept, last.origin)


def with_net_of(
    run: Run, config: ml_collections.ConfigDict, dropped: Any, epochs: int
) -> ml_collections.ConfigDict:
    """A configuration that was given for the whole net, of the net in `run`."""
    given = configuration.from_json(configuration.to_json(config))
    with given.unlocked():
        given.train.frozen = smaller.frozen_without(given, dropped)
        given.model = configuration.from_json(configuration.read(run).config).model
        if epochs:
            configuration.set_epochs(given, epochs)
    return given


def _told(out: Run) -> HalfPruned | None:
    """What is told there; None where that cannot be read, and so nothing goes on."""
    try:
        return records.read(out, HalfPruned)
    except UserError:
        return None
