"""What a run's net makes of one image, as the page shows it."""

import threading
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from rice_jax import inspection, specimens, train
from rice_jax.data.images import decode_into, plain
from rice_jax.errors import UserError
from rice_jax.prediction import NO_NUMBER
from rice_jax.report import record
from rice_jax.report.gallery import gallery
from rice_jax.report.html.viewer import told
from rice_jax.run import Run


class Looking:
    """The net of a run, compiled; one image at a time, whoever asks."""

    def __init__(self, run: Run) -> None:
        """Load the net and compile it.

        Raises:
            UserError: as `train.load` and `record.load`.
        """
        self._record = record.load(run)
        trained = train.load(run)
        self.name, self.classes = self._record.model, trained.classes
        self._side = trained.config.data.image_size
        self._variables: Any = jax.device_put({"params": trained.params})
        self._weights = traverse_util.flatten_dict(trained.params, sep="/")
        shape = jax.ShapeDtypeStruct((1, self._side, self._side, 3), np.float32)
        self._see = inspection.seer(trained.module, shape)
        self._lock = threading.Lock()
        self._see(self._variables, np.zeros(shape.shape, shape.dtype))

    def __call__(self, content: bytes) -> dict[str, Any]:
        """What a page shows of an encoded image: as feature_maps.json, with what is known beside.

        Raises:
            UserError: it is no image of a size that is read, or the net's answer is no number.
        """
        image = plain(content)
        pixels = np.empty((1, self._side, self._side, 3), np.uint8)
        decode_into(image.content, pixels[0])
        floats = pixels.astype(np.float32) / 255
        with self._lock:
            seen = specimens.specimen(self._see, self._variables, floats)
        if not np.isfinite(seen.probabilities).all():
            raise UserError(NO_NUMBER)
        found = gallery([seen], self.classes, self._weights)
        return told(found, self._record) | {"made_of": ", ".join(image.made_of)}
