"""rice_jax from image files to a trained epoch: prepare, decode, learn; seconds and memory of each.

  python of_images.py FOLDER CACHE EPOCHS

The answer is one line of JSON: by task the seconds of each turn, and the process's peak by then in
MB; of the step also what compiling took.
"""

import json
import os
import sys
import time
from typing import Any

import of_jax
import serving

SIDE, BATCH = 32, 64


def measured(folder: str, cache: str, epochs: int) -> dict[str, dict[str, Any]]:
    """What cnn_light's first epochs cost on a folder of class folders, without any evaluation."""
    from rice_jax.ops import backend

    backend.configure()
    import jax

    from rice_jax import data, models

    jax.devices()  # starting the backend is nobody's cost
    started = time.perf_counter()
    dataset = data.load(folder, cache)
    found = {"preparing": _told([time.perf_counter() - started])}

    source = dataset.splits["train"]
    started = time.perf_counter()
    first = next(data.batches(source, BATCH, image_size=SIDE))
    found["decoding"] = _told([time.perf_counter() - started])

    module = models.build("cnn_light", classes=len(dataset.classes))
    learn = of_jax.learner(module, of_jax.initial_params(module, SIDE), BATCH)
    started = time.perf_counter()
    learn([first])
    compiled = time.perf_counter() - started
    turns = []
    for epoch in range(epochs):
        started = time.perf_counter()
        learn(data.batches(source, BATCH, image_size=SIDE, seed=0, epoch=epoch))
        turns.append(time.perf_counter() - started)
    found["epoch"] = {**_told(turns), "compile_seconds": compiled}
    return found


def _told(turns: list[float]) -> dict[str, Any]:
    return {"turns": turns, "memory_mb": serving.peak_memory()}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    found = measured(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(json.dumps(found), file=answers, flush=True)
