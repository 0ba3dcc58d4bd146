"""The inspect stage: dead filters, counted and proven, and what the layers make of an image."""

import functools
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import jax
import numpy as np

from rice_jax import cluster, data, inspection, records, specimens, train
from rice_jax.bar import Bar
from rice_jax.report import fates, figures, numbers, saving
from rice_jax.stages.job import Job
from rice_jax.train.display import Display


def stage(job: Job) -> None:
    """Look at every filter on the test images; write dead_filters.json and the feature maps."""
    trained, source = job.trained, job.trained_on.splits["test"]
    kinds = job.kinds
    found = inspection.censuses(
        trained.module,
        {"params": trained.params},
        {kind: _rows(job, source, kind) for kind in kinds},
        {
            kind: functools.partial(train.evaluation_inputs, augment_seed=seed)
            for kind, seed in kinds.items()
        },
    )
    cluster.on_first(lambda: _write_findings(job, found["clean"], found["augmented"]))


def _write_findings(job: Job, clean: inspection.Census, augmented: inspection.Census) -> None:
    trained, side = job.trained, job.config.data.image_size
    variables = {"params": trained.params}
    see = inspection.seer(trained.module, jax.ShapeDtypeStruct((1, side, side, 3), np.float32))
    with futures.ThreadPoolExecutor(1) as beside:  # XLA compiles while matplotlib draws
        proof = beside.submit(inspection.proven_dead, trained.module, variables, (1, side, side, 3))
        with Bar("drawing feature maps"):
            unproven = inspection.to_json(clean, augmented, {path: [] for path in clean.layers})
            marks = fates.marked(records.made(records.DeadFiltersFile, unproven))
            _draw_feature_maps(job, see, marks)
            shown = specimens.of_test_images(see, trained, job.trained_on, job.kinds)
            records.write(job.run, shown)
        with Bar("proving filters dead"):
            proven = proof.result()
    content = inspection.to_json(clean, augmented, proven)
    found = records.made(records.DeadFiltersFile, content)
    records.write(job.run, found)
    for layer in found.layers:
        print(
            f"{layer.path}: {numbers.counted(layer.filters, 'filter')}, "
            f"{len(layer.dead_clean)} dead, "
            f"{len(layer.dead_augmented)} dead on augmented images, "
            f"{len(layer.proven_dead)} proven dead for every image",
            flush=True,
        )
    for path in found.unseen:
        print(f"{path}: runs inside a loop, its filters were not looked at", flush=True)


def _rows(job: Job, source: data.Source, kind: str) -> Iterator[tuple[Any, Any]]:
    """Batches of a split, spread over every device, as the census takes them."""
    size, image_size = job.config.eval.batch_size, job.config.data.image_size
    feed = train.Feed(train.data_mesh(), size)
    batches = data.batches(
        source, size, image_size=image_size, shard=feed.shard, workers=job.config.data.workers
    )
    display = Display(epochs=1)
    display.begin(f"census, {kind}", len(source))
    try:
        for batch in batches:
            rows = feed(batch)
            yield rows["image"], rows["weight"]
            display.advance(int(batch["weight"].sum()))
    finally:
        display.end()


def _draw_feature_maps(job: Job, see: specimens.See, marked: dict[str, Any]) -> None:
    """A picture for each convolution: what it makes of the first image of the test split."""
    dataset, trained = job.trained_on, job.trained
    record = dataset.splits["test"][0]
    image = data.decode(record["image"], job.config.data.image_size)
    maps, _ = see({"params": trained.params}, image[None].astype(np.float32) / 255)
    title = f"{job.config.model.name}: {dataset.classes[record['label']]}"
    files = figures.feature_maps_files(maps)
    told = {"title": title, "image": image, "synthetic": dataset.synthetic}
    saving.save(job.run, saving.feature_maps(maps, files, marked, **told))
