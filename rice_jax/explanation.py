"""Pictures of what a net sees in an image."""

import sys
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from rice_jax import data, inspection, records, train
from rice_jax.errors import UserError
from rice_jax.prediction import Prediction, content
from rice_jax.report import fates, figures, numbers, saving
from rice_jax.run import Run

_TOLD = "explained.json"
"""Says of which image the pictures in a folder are; by it they are known for ours."""
_SALIENCY = "saliency.png"


def into(folder: str, run: Run) -> Callable[[train.Trained, Prediction], None]:
    """What saves pictures in `folder` and says so, as `prediction.answer` takes it.

    Raises:
        UserError: the folder cannot be written, told before an image is looked at.
    """
    Run(folder).require_place()

    def explain(trained: train.Trained, prediction: Prediction) -> None:
        count = draw(trained, prediction, run, folder)
        first = f"{_SALIENCY} and the" if Run(folder).has(_SALIENCY) else "The"
        layers = numbers.counted(count, "layer")
        print(f"{first} feature maps of {layers} are in {folder}", file=sys.stderr)

    return explain


def draw(trained: train.Trained, prediction: Prediction, run: Run, folder: str) -> int:
    """Save pictures of what the net sees in an image in `folder`; the number of layers with maps.

    saliency.png has what speaks for the class that was told, LAYER.png the feature maps. Dead
    filters are marked where `run`, from which the net was loaded, was inspected. Pictures of an
    image before are written over. Where the net has no maps that can be weighed by a class, it is
    said why on standard error, and there is no saliency.png.

    Raises:
        UserError: the net has no convolution; or the folder has files of these names that are no
            such pictures, or cannot be written.
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
    files = figures.feature_maps_files(maps, taken=[PurePath(_SALIENCY).stem])
    names = {path: PurePath(file).name for path, file in files.items()}
    _refuse_strangers(target, [_SALIENCY, *names.values()])
    chosen = int(np.argmax(prediction.probabilities))
    places = _spoken(trained.module, variables, inputs, chosen, needed=not maps)
    told = {"image": prediction.image, "probabilities": dict(said)}
    # First, so that whenever a kill comes the next image's pictures may go here too.
    contents = {_TOLD: target.as_json(_TOLD, told)}
    if places is not None:
        figure = figures.saliency(image, places, said, title, synthetic=synthetic)
        contents[_SALIENCY] = figures.png(figure)
    drawn = saving.feature_maps(maps, names, marked, title=title, image=image, synthetic=synthetic)
    contents |= saving.compressed(drawn)
    target.create()
    target.write_together(contents)
    if places is None:
        target.remove(_SALIENCY)
    return len(maps)


def _spoken(
    module: Any, variables: Any, inputs: np.ndarray, chosen: int, *, needed: bool
) -> np.ndarray | None:
    """What speaks for a class; where nothing can be told, why not, unless that is `needed`."""
    try:
        return np.asarray(inspection.saliency(module, variables, inputs, np.array([chosen])))[0]
    except UserError as error:
        if needed:
            raise
        print(f"There is no {_SALIENCY}: {error}", file=sys.stderr)
        return None


def _refuse_strangers(target: Run, names: Sequence[str]) -> None:
    """UserError for a folder with files of these names that show no image explained."""
    for name in () if target.has(_TOLD) else names:
        if target.has(name):
            raise UserError(
                f"--explain={target} has a {name} that shows no image explained: give another "
                "folder"
            )


def _ranked(classes: Sequence[str], probabilities: np.ndarray) -> list[tuple[str, float]]:
    """Classes with their probabilities, the likeliest first."""
    order = np.argsort(-probabilities, kind="stable")
    return [(classes[index], float(probabilities[index])) for index in order]
