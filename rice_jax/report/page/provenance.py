"""The page's second line: where the weights are from, and what the sample of photographs is."""

from rice_jax import data, nets, zoo
from rice_jax.data.split import SPLITS
from rice_jax.records import WeightsTold
from rice_jax.report import markdown, numbers
from rice_jax.report.record import Record


def origin(record: Record) -> str:
    """A line; empty for a net that began as its code says, on images of the user's own."""
    on_sample = (record.config.config.get("data") or {}).get("path") == data.SAMPLE
    weights = record.config.weights
    parts = []
    made_from = record.lighten or record.prune
    if made_from is not None:
        of = f"The weights are what is left of those of {markdown.code(made_from.request.parent)}"
        if anew := record.prune and record.prune.started_anew:
            of += f", but for {', '.join(map(markdown.code, anew))}, which began at random"
        parts.append(f"{of}, trained on here." if record.history else f"{of}.")
    elif weights or on_sample or _drawn_by_he(record):
        parts.append(_weights(weights, record))
    if on_sample:
        parts += [_sample(record), "" if made_from else _all_images(record)]
    return " ".join(part for part in parts if part)


def _weights(weights: WeightsTold | None, record: Record) -> str:
    trained_here = bool(record.history)
    if weights is None:
        drawn = ", its kernels drawn by He's rule" if _drawn_by_he(record) else ""
        return f"The net started from random weights{drawn}." if trained_here else ""
    source = weights.source
    name = markdown.code(source.removeprefix(zoo.PREFIX))
    what = f"the zoo's {name}" if source.startswith(zoo.PREFIX) else name
    begun = f"The weights are those of {what}"
    if weights.recipe and weights.data:
        begun += (
            f" (recipe {markdown.escape(weights.recipe)}, epoch {weights.epochs}, "
            f"{numbers.count(weights.images)} images of {markdown.escape(weights.data)})"
        )
    return f"{begun}, trained on here." if trained_here else f"{begun}, as they are."


def _drawn_by_he(record: Record) -> bool:
    return nets.initializer(record.model, record.recipe) == nets.HE


def _sample(record: Record) -> str:
    images = record.data.images if record.data else {}
    if not images.keys() >= set(SPLITS):
        return ""
    train, validation, test = (images[part] for part in SPLITS)
    return (
        "The images are the sample that comes with the package: "
        f"{numbers.count(train + validation + test)} photographs of the Kaggle 'Rice Image "
        "Dataset' (Murat Koklu, CC0) that no net of the zoo has learned from, "
        f"{train} for training, {validation} for validation, {test} for the test."
    )


def _all_images(record: Record) -> str:
    config = _config(record)
    name = record.model if config.endswith(".py") else config.removeprefix(zoo.PREFIX)
    images = "--config.data.path=rice-image-dataset.zip"
    # In another folder: that of the sample's run, which has another recipe, would refuse them.
    command = f"rice-jax train --config={config} {images} --workdir=runs/{name}_all"
    return f"To train on all 75,000: {markdown.code(data.DOWNLOAD)}, then {markdown.code(command)}."


def _config(record: Record) -> str:
    """What --config makes the net again: by its name the zoo's own, where it is of other widths."""
    source = record.config.weights.source if record.config.weights else ""
    name = source.removeprefix(zoo.PREFIX)
    if source.startswith(zoo.PREFIX) and name in zoo.names() and name != record.model:
        return source if zoo.card(name).model["name"] == record.model else record.model
    return record.model if record.model in nets.NETS else "YOUR_NET.py"
