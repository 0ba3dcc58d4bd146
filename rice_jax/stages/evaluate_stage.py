"""The evaluate stage: a net on the test images, clean and augmented, or on a folder's."""

from rice_jax import cluster, data, evaluate, records
from rice_jax import config as configuration
from rice_jax.errors import UserError
from rice_jax.report import numbers
from rice_jax.stages.job import Job


def stage(job: Job) -> None:
    """Evaluate the run's best epoch and write evaluation.json."""
    trained, config = job.trained, job.config
    folder = data.folder(config.eval.path, trained.classes) if config.eval.path else None
    source = job.trained_on.splits["test"] if folder is None else folder
    results = {
        kind: evaluate.evaluate(
            trained.module,
            trained.params,
            source,
            classes=trained.classes,
            image_size=config.data.image_size,
            batch_size=config.eval.batch_size,
            augment_seed=seed,
            workers=config.data.workers,
        )
        for kind, seed in job.kinds.items()
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
            f"macro F1 {result.macro_avg.f1:.4f} on {numbers.counted(result.images, 'image')}",
            flush=True,
        )
    if evaluation.clean and (as_well := evaluation.clean.as_well()):
        name, share = as_well
        print(f"to answer {name!r} to every clean image would be right for {share:.4f}", flush=True)
    lost = evaluation.lost_augmented()
    if lost and job.run.has(records.HISTORY) and not configuration.read(job.run).augmented:
        print(
            f"augmented images cost it {100 * lost:.1f} points, and its training had none such: "
            "with --config.train.augment=true, in another folder, a net learns from them",
            flush=True,
        )


def _learned(job: Job, source: data.Source) -> int | None:
    """How many of another folder's images are training images of the run; None if not known."""
    folder = job.config.eval.path
    if not folder or cluster.joined():  # one process without them would keep the others waiting
        return None
    if configuration.read(job.run).weights and not job.run.has(records.HISTORY):
        return None  # it took its weights as they are: what they learned from is not told
    # What a net that it was made out of had learned from, a limit of its own does not tell.
    limit = 0 if job.made_of_another else job.config.train.images
    try:
        training = job.trained_on.splits["train"]
        return data.count_learned(source, training, folder, limit=limit)
    except UserError:  # they need not be at hand, nor whole
        return None
