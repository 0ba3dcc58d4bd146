"""Pictures of what a net sees in an image."""

import sys
from collections.abc import Callable, Sequence
from pathlib import PurePath

import numpy as np

from rice_jax import data, inspection, records, train
from rice_jax.prediction import Prediction, content
from rice_jax.report import fates, figures, numbers
from rice_jax.run import Run


def into(folder: str, run: Run) -> Callable[[train.Trained, Prediction], None]:
    """What saves pictures in `folder` and says so, as `prediction.answer` takes it."""

    def explain(trained: train.Trained, prediction: Prediction) -> None:
        count = draw(trained, prediction, run, folder)
        print(
            f"saliency.png and the feature maps of {count} layers are in {folder}",
            file=sys.stderr,
        )

    return explain


def draw(trained: train.Trained, prediction: Prediction, run: Run, folder: str) -> int:
    """Save pictures of what the net sees in an image in `folder`; the number of layers with maps.

    saliency.png has what speaks for the class that was told, LAYER.png the feature maps. Dead
    filters are marked where `run`, from which the net was loaded, was inspected.
    """
    assert prediction.probabilities is not None
    side = trained.config.data.image_size
    image = data.decode(content(prediction.image), side)
    inputs = image[None].astype(np.float32) / 255
    variables = {"params": trained.params}
    maps = inspection.feature_maps(trained.module, variables, inputs)
    marked = fates.marked(records.read_if_there(run, records.DeadFiltersFile))
    about = records.read(run, records.ConfigFile).data
    synthetic = bool(about and about.synthetic)
    said = _ranked(trained.classes, prediction.probabilities)
    title = f"{PurePath(prediction.image).name}: {said[0][0]}, {numbers.percent(said[0][1], 1)}"
    title += f", says {trained.config.model.name}"
    target = Run(folder)
    target.create()
    chosen = np.array([int(np.argmax(prediction.probabilities))])
    places = inspection.saliency(trained.module, variables, inputs, chosen)[0]
    figure = figures.saliency(image, np.asarray(places), said, title, synthetic=synthetic)
    target.write_bytes("saliency.png", figures.png(figure))
    for path, values in maps.items():
        figure = figures.feature_maps(
            path,
            np.asarray(values[0]),
            title=title,
            image=image,
            synthetic=synthetic,
            **marked.get(path, {}),
        )
        name = PurePath(figures.feature_maps_file(path)).name
        target.write_bytes(name, figures.png(figure))
    return len(maps)


def _ranked(classes: Sequence[str], probabilities: np.ndarray) -> list[tuple[str, float]]:
    """Classes with their probabilities, the likeliest first."""
    order = np.argsort(-probabilities, kind="stable")
    return [(classes[index], float(probabilities[index])) for index in order]
