"""The classes of images, by a trained net."""

import csv
import dataclasses
import functools
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from json import dumps
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rice_jax import files, ops, train
from rice_jax.data.archive import within
from rice_jax.data.images import MAX_BYTES, SUFFIXES, decode_into, plain
from rice_jax.data.layout import tell_others
from rice_jax.data.loader import made_ahead, require_memory
from rice_jax.data.parallel import in_order, progress
from rice_jax.data.usable import tell_made
from rice_jax.errors import UserError, harmless, reason, tell
from rice_jax.graph import once
from rice_jax.run import Run
from rice_jax.train import state
from rice_jax.train.feed import AXIS, Lagged

NO_NUMBER = "the net's answer is no number"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a net says of an image, or why the image was refused."""

    image: str
    """Its path, as it was given."""
    probabilities: np.ndarray | None
    """float32 (classes,), in the order of `Trained.classes`; None where it was refused."""
    error: str = ""
    made_of: tuple[str, ...] = ()
    """What it was instead of 8-bit RGB, as `data.images.Plain` has it."""


def find_images(places: Iterable[str], lines: Iterable[str] = ()) -> list[str]:
    """Paths of images: files as given, of folders all images in them, for '-' those on `lines`.

    Raises:
        UserError: a folder without any image.
    """
    found: list[str] = []
    for place in places:
        if place == "-":
            paths = (line.removesuffix("\n").removesuffix("\r") for line in lines)
            found += find_images(path for path in paths if path.strip() not in ("", "-"))
        elif (folder := files.reached(place)).is_dir():
            inside = within(folder)
            tell_others(inside, place)
            pictures = [str(folder / name) for name in inside if name.lower().endswith(SUFFIXES)]
            if not pictures:
                raise UserError(f"{place} holds no image ({', '.join(SUFFIXES)})")
            found += pictures
        else:
            found.append(place)
    return found


def predict(
    trained: train.Trained, images: Sequence[str], *, batch_size: int = 32
) -> Iterator[Prediction]:
    """Classify image files, in order; read and decoded in threads while the net computes.

    Args:
        trained: a run's net, as `train.load` gives it.
        images: paths of files.
        batch_size: images at a time, spread over every device.

    Yields:
        A prediction for each path. A file that is no image gets one that says so.

    Raises:
        UserError: batches that the memory does not hold.
    """
    if not images:
        return
    size = min(batch_size, len(images))
    side = trained.config.data.image_size
    ahead = made_ahead(require_memory(size, side, "--batch_size"))
    results = Lagged()
    jit = once.jit if size == len(images) else jax.jit
    classify = classifier(trained.module, trained.params, train.data_mesh(size), jit=jit)
    batches = in_order(
        lambda start: _read(images[start : start + size], size, side),
        range(0, len(images), size),
        ahead=ahead,
    )
    unanswered: deque[list[Prediction]] = deque()
    for pixels, questions in batches:
        unanswered.append(questions)
        for answer in results.push(classify(pixels)):
            yield from _answered(unanswered.popleft(), answer)
    for answer in results.drain():
        yield from _answered(unanswered.popleft(), answer)


def content(path: str) -> bytes:
    """What an image's file holds; UserError where it cannot be read."""
    place = files.reached(path)
    try:
        files.require_content(place)
        with place.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise UserError(reason(error)) from error


def _read(paths: Sequence[str], size: int, side: int) -> tuple[np.ndarray, list[Prediction]]:
    """Pixels uint8 (size, side, side, 3), and predictions without their probabilities."""
    pixels = np.zeros((size, side, side, 3), np.uint8)
    questions = []
    for place, path in enumerate(paths):
        try:
            image = plain(content(path))
            decode_into(image.content, pixels[place])
            questions.append(Prediction(path, None, made_of=image.made_of))
        except UserError as error:
            questions.append(Prediction(path, None, str(error)))
    return pixels, questions


def _answered(questions: Sequence[Prediction], answer: np.ndarray) -> Iterator[Prediction]:
    for question, probabilities in zip(questions, answer, strict=False):
        if not question.error and not np.isfinite(probabilities).all():
            question = dataclasses.replace(question, error=NO_NUMBER)
        known = None if question.error else probabilities
        yield dataclasses.replace(question, probabilities=known)


def classifier(
    module: nn.Module, params: Any, mesh: Mesh, *, jit: Callable[..., Any] = jax.jit
) -> Callable[[np.ndarray], jax.Array]:
    """f(pixels uint8 (N, H, W, 3)) -> probabilities (N, classes), which may be under way yet.

    Where N does not divide, rows that mean nothing come last.

    Args:
        module: the net.
        params: its parameters.
        mesh: devices of this process, over which the images are spread: for a single image one of
            them, whose operations run on all cores of a CPU.
        jit: what compiles; `once.jit` where it will not run often.
    """

    def answer(params: Any, pixels: jax.Array) -> jax.Array:
        images = pixels.astype(jnp.float32) / 255
        with ops.inference(), ops.joined():
            logits: Any = module.apply({"params": params}, images, train=False)
        # Compiled in haste, jaxlib 0.10's exponential may make a number of what is none.
        known = jnp.isfinite(logits).all(axis=-1, keepdims=True)
        return jnp.where(known, nn.softmax(logits), jnp.nan)

    def apply(params: Any, pixels: jax.Array) -> jax.Array:
        size = ops.part_size(module, {"params": params}, pixels, mesh.devices.flat[0].platform)
        return ops.mapped(functools.partial(answer, params), pixels, size)

    rows = PartitionSpec(AXIS)
    function, given = ops.bound(apply, params)
    mapped = jit(
        jax.shard_map(
            function, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False
        )
    )
    on_devices = state.replicate(given, mesh)

    def classify(pixels: np.ndarray) -> jax.Array:
        if missing := -len(pixels) % mesh.size:
            pixels = np.pad(pixels, [(0, missing), (0, 0), (0, 0), (0, 0)])
        return mapped(on_devices, pixels)  # a transfer of its own would take 0.2 ms more

    return classify


def answer(
    run: Run,
    places: Sequence[str],
    lines: Iterable[str],
    *,
    form: str = "table",
    explain: Callable[[train.Trained, Prediction], None] | None = None,
    batch_size: int = 32,
) -> None:
    """Print what the net of a run says of images.

    Args:
        run: a trained run.
        places: files, folders, or '-' for the paths on `lines`.
        lines: one path each.
        form: 'table', 'json' (an object a line) or 'csv'.
        explain: shows what the net sees in an image; it is then a single one.
        batch_size: images at a time.

    Raises:
        UserError: no image, no trained net; at the end, where images were refused.
    """
    images = find_images(places, lines)
    if not images:
        raise UserError("no image given: standard input named none")
    if explain and len(images) != 1:
        raise UserError(f"--explain takes a single image, not {len(images)}")
    trained = train.load(run)
    table = _FORMS[form](trained.classes)
    refused = 0
    made_of = []
    predictions = predict(trained, images, batch_size=batch_size)
    if not sys.stdout.isatty():
        predictions = progress(predictions, len(images), "prediction")
    for prediction in predictions:
        table.show(prediction)
        made_of.append(prediction.made_of)
        if prediction.error:
            refused += 1
            tell(f"{prediction.image}: {prediction.error}")
        elif explain:
            explain(trained, prediction)
    tell_made(made_of)
    if refused:
        raise UserError(f"{refused} of {len(images)} images could not be classified")


class _Json:
    """An object a line, so that a reader need not wait for the last image."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        # What other encodings lack is written in ways of their own, which are no JSON.
        self._escaped = not (sys.stdout.encoding or "").lower().startswith("utf")

    def show(self, prediction: Prediction) -> None:
        content: dict[str, Any] = {"image": prediction.image}
        if prediction.probabilities is None:
            content["error"] = prediction.error
        else:
            values = [float(f"{value:.6g}") for value in prediction.probabilities]
            best = int(np.argmax(prediction.probabilities))
            content["class"] = self._classes[best]
            content["probability"] = values[best]
            content["probabilities"] = dict(zip(self._classes, values, strict=True))
        # Nor is a name that is no UTF-8 as it is, where Python would write its bytes.
        of_bytes = any("\ud800" <= letter <= "\udfff" for letter in prediction.image)
        escaped = self._escaped or of_bytes
        print(dumps(content, ensure_ascii=escaped, allow_nan=False), flush=True)


_ABOUT = ("image", "class", "probability")
_NOT_A_CLASS_S = re.compile(rf"(class )*({'|'.join(_ABOUT)}|error)")
"""Names of the other columns, and those that a class of such a name gets."""


def _column(name: str) -> str:
    """What the column of a class is called: by its name, or one that no other column has."""
    return f"class {name}" if _NOT_A_CLASS_S.fullmatch(name) else name


class _Csv:
    """A row an image, as a spreadsheet reads it; a column for each class by its name."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow([*_ABOUT, *map(_column, classes), "error"])

    def show(self, prediction: Prediction) -> None:
        if prediction.probabilities is None:
            empty = [""] * (2 + len(self._classes))
            self._writer.writerow([prediction.image, *empty, prediction.error])
        else:
            best = int(np.argmax(prediction.probabilities))
            values = [f"{value:.6g}" for value in prediction.probabilities]
            row = [prediction.image, self._classes[best], values[best], *values, ""]
            self._writer.writerow(row)
        sys.stdout.flush()


_WIDEST = 120  # letters that the columns of a line for people may take


def _table(classes: Sequence[str]) -> "_EachClass | _Likeliest":
    """For people: each class where a line has room for all, of more the two likeliest."""
    each = _EachClass(classes)
    table = each if each.width <= _WIDEST or len(classes) <= 2 else _Likeliest(classes)
    table.head()
    return table


class _EachClass:
    """A line an image: the class, the probability of each class, and last what may be long."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._widths = [max(len(name), 6) for name in classes]

    @property
    def width(self) -> int:
        """Letters that the columns of a line take."""
        return max(self._widths) + sum(2 + width for width in self._widths)

    def head(self) -> None:
        print(self._line("class", self._classes, "image"))

    def show(self, prediction: Prediction) -> None:
        if prediction.probabilities is not None:
            best = self._classes[int(np.argmax(prediction.probabilities))]
            numbers = [f"{value:.4f}" for value in prediction.probabilities]
            print(self._line(best, numbers, prediction.image))

    def _line(self, best: str, cells: Sequence[str], image: str) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True))
        return harmless("  ".join([best.ljust(max(self._widths)), *numbers, image]))


class _Likeliest:
    """A line an image: the class, the one that is likeliest after it, the probability of each."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._width = max(len(name) for name in classes)

    def head(self) -> None:
        print(self._line([("class", ""), ("or else", "")], "image"))

    def show(self, prediction: Prediction) -> None:
        if prediction.probabilities is not None:
            two = np.argsort(-prediction.probabilities, kind="stable")[:2]
            named = [(self._classes[at], f"{prediction.probabilities[at]:.4f}") for at in two]
            print(self._line(named, prediction.image))

    def _line(self, named: Sequence[tuple[str, str]], image: str) -> str:
        cells = (f"{name.ljust(self._width)}  {number.rjust(6)}" for name, number in named)
        return harmless("  ".join([*cells, image]))


_FORMS: dict[str, Callable[[Sequence[str]], _EachClass | _Likeliest | _Json | _Csv]] = {
    "table": _table,
    "json": _Json,
    "csv": _Csv,
}
