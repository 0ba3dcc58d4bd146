"""What a search will take, told before it begins."""

import time

import ml_collections

from rice_jax import data, train
from rice_jax.lighten.candidate import Workshop
from rice_jax.records import Forecast, SearchRequest
from rice_jax.train import schedule

_PROGRAMS = 3
"""Of a candidate, besides that of training: the judge's and those of the two measurements."""


def forecast(
    request: SearchRequest, workshop: Workshop, measured: Forecast | None = None
) -> Forecast:
    """Measure a few training steps of the whole net, and reckon with them.

    Where they were `measured` before, by an earlier forecast, that is reckoned with.

    A candidate is taken to cost the share of its round, that of the last round where it is trained
    longer. Of four passes in a taught step, the three of the net that learns shrink with it, the
    teacher's stays.
    """
    config = workshop.recipe(workshop.whole, request.epochs)
    if measured and measured.compiling_seconds is not None:
        speed, compiling = measured.images_per_second, measured.compiling_seconds
    else:
        speed, compiling = _measured(config, workshop)
    splits = workshop.dataset.splits
    learnt = schedule.images(config.train, len(splits["train"]))
    looked_at = schedule.validation_images(config.train, len(splits["validation"]))
    taught = bool(config.train.teacher and config.train.distill.weight)
    total, needed = 0, 0.0
    counts = [*request.candidates(), request.longest()]
    for number, count in enumerate(counts):
        epochs = request.epochs if number < request.rounds else request.final_epochs
        share = request.share ** min(number + 1, request.rounds)
        passes = (1 + 3 * share) / 4 if taught else share
        evaluated = (epochs + 1) * looked_at * share / 3
        total += count * epochs * learnt
        needed += count * ((epochs * learnt * passes + evaluated) / speed + compiling)
    return Forecast(sum(counts), total, needed / 60, speed, compiling)


def _measured(config: ml_collections.ConfigDict, workshop: Workshop) -> tuple[float, float]:
    """Images a second of the whole net's training, and seconds that a candidate compiles for."""
    eyes, source = workshop.eyes(config), workshop.dataset.splits["train"]
    whole, limit = config.data.image_size, config.train.images
    read = {"image_size": eyes, "whole_size": whole, "limit": limit}
    next(data.batches(source, 1, **read, workers=config.data.workers))  # prepares them
    started, seconds = time.monotonic(), 2.0
    speed = train.images_per_second(config, workshop.dataset, seconds=seconds, image_size=eyes)
    return speed, max(time.monotonic() - started - seconds, 0.0) * (1 + _PROGRAMS / 4)
