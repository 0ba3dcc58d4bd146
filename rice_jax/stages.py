"""The stages of the main job: each reads the run's folder and writes its own files there."""

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import ml_collections
import numpy as np

from rice_jax import (
    cluster,
    data,
    evaluate,
    first_run,
    identity,
    inspection,
    lock,
    own_images,
    profile_stage,
    records,
    specimens,
    train,
)
from rice_jax import config as configuration
from rice_jax.bar import Bar
from rice_jax.errors import UserError
from rice_jax.report import fates, figures, saving, writing
from rice_jax.run import Run
from rice_jax.train.display import Display
from rice_jax.train.prepared import load_images

_TOLD = (
    *(records.EvaluationFile.FILE, records.ProfileFile.FILE, records.DeadFiltersFile.FILE),
    *(records.FeatureMapsFile.FILE, records.SummaryFile.FILE),
)
"""What the stages wrote of the net that the folder had."""
_MADE_OF_ANOTHER = (records.PruneFile, records.LightenFile, records.StepFile)
_EXAMPLES_SIDE = 512
"""Pixels of an image of the training that is shown: some hundred of them are drawn."""
_EXAMPLES = 24
"""Classes of which images are drawn."""


@dataclasses.dataclass
class Job:
    """A run's folder, its configuration, and what several stages need of both."""

    run: Run
    config: ml_collections.ConfigDict
    given: Collection[str] = ()
    """Fields of it that the user has set, as 'train.epochs'."""
    restart: bool = False
    """Whether the training begins anew, and what the folder has of the one before goes."""

    @functools.cached_property
    def _images(self) -> data.Dataset:
        dataset = load_images(self.config)
        cluster.require_same("images", dataset.fingerprint)
        if len(dataset.classes) > records.MOST_CLASSES:
            raise UserError(
                f"{dataset.name} has {len(dataset.classes):,} classes: up to "
                f"{records.MOST_CLASSES:,} are told of in a run's files"
            )
        return dataset

    @property
    def dataset(self) -> data.Dataset:
        """The images, prepared on first use; the number of classes follows from them."""
        self.config.model.classes = len(self._images.classes)
        return self._images

    @functools.cached_property
    def trained_on(self) -> data.Dataset:
        """The images that the run was trained on; UserError where they are others now."""
        return identity.require_own(self.run, self._images)

    @functools.cached_property
    def trained(self) -> train.Trained:
        """The best epoch of the run; of one without, the weights that its configuration names."""
        if not _trained_here(self.run) and self.config.model.weights not in ("", train.RANDOM):
            _take_weights(self)
        return train.load(self.run)


def run_stages(
    config: ml_collections.ConfigDict,
    workdir: str | None,
    stages: Sequence[str],
    given: Collection[str] = (),
    *,
    restart: bool = False,
) -> None:
    """Do the `stages` in their own order and write the report.

    Args:
        config: the run's; what it leaves open is settled by `first_run` and `own_images`.
        workdir: the run's folder, by default runs/NAME.
        stages: keys of `STAGES`.
        given: fields of the configuration that the user has set, as 'train.epochs'.
        restart: train anew; what the folder holds of a run goes when everything else is sound.

    Raises:
        UserError: a mistake of the user's.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        raise UserError(f"--stages={','.join(stages)}: there are {', '.join(STAGES)}")
    configuration.check(config)
    if restart and "train" not in stages:
        raise UserError("--restart trains anew: leave it out, or have train among the --stages")
    chosen = [name for name in STAGES if name in stages]
    identity.require_one_command(config, stages=chosen, restart=restart)
    train.require_sound(config)
    job = Job(Run(workdir or f"runs/{config.model.name}"), config, given, restart)
    cluster.on_first(lambda: _refuse_strangers(job))
    with lock.hold(job.run):  # from before the first write to after the last
        _settle(job, stages)
        try:
            for name in chosen:
                print(f"== {name} ==", flush=True)
                cluster.on_first(functools.partial(_watch, job.run, name))
                STAGES[name](job)
            cluster.on_first(lambda: _report(job.run))
        except BaseException:  # the page would say for ever that it is under way
            if cluster.leads():
                _watch(job.run, "")
            raise
    print(f"\nThe run is in {job.run}: read report.md or report.html there")


def _refuse_strangers(job: Job) -> None:
    """UserError where a run that begins would write over what is another's."""
    run = job.run
    if not (run.has(records.ConfigFile.FILE) or _trained_here(run)):
        identity.refuse_strangers(run, but=("checkpoints",))


def _settle(job: Job, stages: Sequence[str]) -> None:
    """Decide what the configuration leaves open; UserError where the folder has another run."""
    config, run = job.config, job.run
    goes_on = _irreplaceable(run)
    if job.restart and goes_on:
        raise UserError(
            f"{run} begins with what was left of another run, which its checkpoints alone hold: "
            "make it of that one again, in another folder"
        )
    if job.restart:
        identity.refuse_own_weights(run, config)
    saved = None if job.restart or not run.has("config.json") else configuration.read(run)
    given = {*job.given, *identity.unchanged(saved, config)}
    said = first_run.settle(config, given)
    if said and "train" in stages and not goes_on:  # it names no weights that are there alone
        print(said, flush=True)
    if saved:
        config.model.classes = saved.config["model"]["classes"]
        images = saved.data.images.get("train", 0) if saved.data else 0
        own_images.settle(config, images, given)
        if images:  # what they decide is decided, also where it is the usual
            job.given = given
        wanted = records.ConfigFile(config=configuration.to_json(config))
        identity.refuse_another(run, saved, wanted)


def _irreplaceable(run: Run) -> bool:
    """Whether what a run began with is in its checkpoints alone: `prune` or `lighten` made it."""
    if any(run.has(record.FILE) for record in _MADE_OF_ANOTHER):
        return True
    try:
        named = configuration.read(run).config["model"]["weights"]
        return named in ("", train.RANDOM) and train.newest(run).progress.given
    except UserError:  # no run yet, or a damaged one
        return False


def _watch(run: Run, stage: str) -> None:
    """Write report.html anew while a stage is under way."""
    if run.has("config.json"):
        # A file that was damaged before is told at the end, when nothing is lost by it.
        with contextlib.suppress(Exception):
            writing.watch(run, stage)


def _report(run: Run) -> None:
    with Bar("drawing the report"):
        writing.write(run)


def _trained_here(run: Run) -> bool:
    folder = run.checkpoints
    return folder.exists() and any(child.name.isdigit() for child in folder.iterdir())


def _take_weights(job: Job) -> None:
    """Make the weights that the configuration names the run's own, before any training."""
    dataset = job.dataset
    about = train.about(job.config)
    known = about.classes if about else None
    if known and known != dataset.classes:
        raise UserError(
            f"config.model.weights={job.config.model.weights!r} is a net for {', '.join(known)}; "
            f"the images are of {', '.join(dataset.classes)}"
        )
    params = train.given_params(job.config, train.build(job.config))
    if missing := train.at_random(params):
        raise UserError(
            f"config.model.weights={job.config.model.weights!r} has nothing for "
            f"{', '.join(missing)}: train the net (--stages=train) before anything is told of it"
        )
    cluster.on_first(lambda: identity.record(job.run, job.config, dataset))
    train.begin(job.config, job.run, dataset, params)
    print(f"The weights are those of {job.config.model.weights}, as they are.", flush=True)


def _train(job: Job) -> None:
    dataset = job.dataset
    if job.restart or not _trained_here(job.run):
        said = own_images.settle(job.config, len(dataset.splits["train"]), job.given)
        for line in filter(None, [said, *own_images.advice(job.config, dataset, job.given)]):
            print(line, flush=True)
    train.check(job.config, dataset, job.run)
    watch = functools.partial(_watch, job.run, "train")
    train.train(job.config, job.run, dataset, watch, given=_begun(job, dataset))


def _begun(job: Job, dataset: data.Dataset) -> Any:
    """Write what a training's folder holds from the start; the weights given, where it is new."""
    new = job.restart or not _trained_here(job.run)
    # Weights that do not fit are told while the old ones are there, or nothing is.
    given = train.given_params(job.config, train.build(job.config)) if new else None
    train.refuse_idle_initializer(job.config, given, job.given)

    def begin() -> None:
        if job.restart:
            train.forget(job.run)
            for name in _TOLD:
                job.run.remove(name)
        identity.record(job.run, job.config, dataset, anew=job.restart)
        shown = _examples(job, dataset)
        some = f": {len(shown)} of {len(dataset.classes):,} classes"
        title = "Images by class" + (some if len(shown) < len(dataset.classes) else "")
        figure = figures.classes(shown, dataset.classes, title=title, synthetic=dataset.synthetic)
        job.run.write_bytes("classes.png", figures.png(figure))
        _watch(job.run, "train")

    cluster.on_first(begin)
    return given


def _evaluate(job: Job) -> None:
    trained, config = job.trained, job.config
    classes = _classes(job)
    folder = data.folder(config.eval.path, classes) if config.eval.path else None
    source = job.trained_on.splits["test"] if folder is None else folder
    results = {
        kind: evaluate.evaluate(
            trained.module,
            trained.params,
            source,
            classes=classes,
            image_size=config.data.image_size,
            batch_size=config.eval.batch_size,
            augment_seed=seed,
            workers=config.data.workers,
        )
        for kind, seed in _kinds(config).items()
    }
    evaluation = records.EvaluationFile(
        **results,
        path=records.tested_on(config.eval.path),
        fingerprint=None if folder is None else folder.fingerprint,
        in_training=_learned(job, source),
    )
    cluster.on_first(lambda: records.write(job.run, evaluation))
    for kind, result in results.items():
        print(
            f"{kind}: accuracy {result.accuracy:.4f}, loss {result.loss:.4f}, "
            f"macro F1 {result.macro_avg.f1:.4f} on {result.images} images",
            flush=True,
        )


def _learned(job: Job, source: data.Source) -> int | None:
    """How many of another folder's images are training images of the run; None if not known."""
    folder = job.config.eval.path
    if not folder or cluster.joined():  # one process without them would keep the others waiting
        return None
    try:
        return data.count_learned(source, job.trained_on.splits["train"], folder)
    except UserError:  # they need not be at hand, nor whole
        return None


def _profile(job: Job) -> None:
    cluster.on_first(lambda: profile_stage.count_and_time(job.run, job.config))


def _inspect(job: Job) -> None:
    trained, source = job.trained, job.trained_on.splits["test"]
    kinds = _kinds(job.config)
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
            shown = specimens.of_test_images(see, trained, job.trained_on, _kinds(job.config))
            records.write(job.run, shown)
        with Bar("proving filters dead"):
            proven = proof.result()
    content = inspection.to_json(clean, augmented, proven)
    found = records.made(records.DeadFiltersFile, content)
    records.write(job.run, found)
    for layer in found.layers:
        print(
            f"{layer.path}: {layer.filters} filters, {len(layer.dead_clean)} dead, "
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
    saving.save_feature_maps(
        job.run, maps, files, marked, title=title, image=image, synthetic=dataset.synthetic
    )


STAGES = {"train": _train, "evaluate": _evaluate, "profile": _profile, "inspect": _inspect}


def _kinds(config: ml_collections.ConfigDict) -> dict[str, int | None]:
    """What a net is tested on, each with the seed of its augmentation."""
    return {"clean": None, "augmented": config.seed}


def _classes(job: Job) -> tuple[str, ...]:
    saved = configuration.read(job.run).data
    return saved.classes if saved else job.dataset.classes


def _examples(job: Job, dataset: data.Dataset, each: int = 4) -> dict[str, list[np.ndarray]]:
    """The first images of each class in the training split; of many classes some of them."""
    step = -(-len(dataset.classes) // _EXAMPLES)
    examples: dict[str, list[np.ndarray]] = {name: [] for name in dataset.classes[::step]}
    source, side = dataset.splits["train"], min(_EXAMPLES_SIDE, job.config.data.image_size)
    for index in range(len(source)):
        record = source[index]
        images = examples.get(dataset.classes[record["label"]])
        if images is not None and len(images) < each:
            images.append(data.decode(record["image"], side))
        if all(len(images) == each for images in examples.values()):
            break
    return examples
