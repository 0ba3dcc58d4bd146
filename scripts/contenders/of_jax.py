"""rice_jax as `rice_jax.main` trains, or the same Linen module as plain Flax and JAX would."""

import argparse
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import serving

_EVALUATED = 512
"""Images of an evaluation."""


def rice_jax(
    given: argparse.Namespace, images: np.ndarray, labels: np.ndarray
) -> serving.Contender:
    """The package's own feed and training step, over every device that its settings make."""
    from rice_jax.ops import backend

    backend.configure()
    from rice_jax import models, profile
    from rice_jax.prediction import classifier
    from rice_jax.train import feed

    module = models.build(given.net, dtype=given.dtype, **given.fields)
    params = initial_params(module, given.image_size)
    batch = {"image": images, "label": labels, "weight": np.ones(given.batch, np.float32)}
    learn = learner(module, params, given.batch)
    classify = classifier(module, params, feed.data_mesh(given.batch))

    def infer(batches: int) -> object:
        results = feed.Lagged(lag=0 if given.batch == 1 else 2)  # one image is awaited
        for _ in range(batches):
            results.push(classify(images))
        return results.drain()

    def flops() -> int:
        return profile.count(module, images.shape).training_flops

    asked = "evaluate" in (given.tasks or ())
    return serving.Contender(
        train=lambda steps: learn(itertools.repeat(batch, steps)),
        infer=infer,
        evaluate=_evaluation(module, params, images, labels) if asked else None,
        flops=flops,
    )


def initial_params(module: Any, image_size: int) -> Any:
    """Parameters of a Linen net before its first step, as NumPy arrays."""
    import jax

    from rice_jax.graph import once

    image = np.zeros((1, image_size, image_size, 3), np.float32)
    variables = once.jit(module.init)(jax.random.key(0), image)
    return jax.tree.map(np.asarray, variables["params"])


def learner(
    module: Any, params: Any, batch_size: int
) -> Callable[[Iterable[Mapping[str, np.ndarray]]], object]:
    """f(batches): a training step on each, as `rice_jax.main` has them, and a wait for the last."""
    from rice_jax.train import feed, state, step

    mesh = feed.data_mesh()
    put = feed.Feed(mesh, batch_size)
    current = state.replicate(state.create(params, ()), mesh)
    take_step = step.train_step(module, mesh, seed=0, augment=False)
    done = 0

    def learn(batches: Iterable[Mapping[str, np.ndarray]]) -> object:
        nonlocal current, done
        results = feed.Lagged()
        for batch in batches:
            current, metrics = take_step(current, put(batch), np.int32(done), np.float32(1e-3))
            results.push(metrics)
            done += 1
        return results.drain()

    return learn


def _evaluation(
    module: Any, params: Any, images: np.ndarray, labels: np.ndarray
) -> Callable[[int], object]:
    """So many evaluations on the images over and over, each with its report by class."""
    import cv2

    from rice_jax.evaluate import report
    from rice_jax.train.evaluator import Evaluator, on_devices

    records = [
        {"image": cv2.imencode(".png", image)[1].tobytes(), "label": int(label), "name": "drawn"}
        for image, label in zip(images, labels, strict=True)
    ]
    source = [records[index % len(records)] for index in range(_EVALUATED)]
    names = [f"class {number + 1}" for number in range(module.classes)]
    measure = Evaluator(module, len(names), batch_size=len(images), image_size=images.shape[1])
    put = on_devices(params)

    def evaluate(times: int) -> object:
        for _ in range(times):
            measured = measure(put, source)
            assert measured is not None, "nobody signals here"
            found = report(measured[1], names)
        return found

    return evaluate


def plain_flax(
    given: argparse.Namespace, images: np.ndarray, labels: np.ndarray
) -> serving.Contender:
    """The module with `lax`'s own convolution and pooling, jitted on one device; Optax's Adam."""
    import jax
    import jax.numpy as jnp
    import optax

    from rice_jax import models, ops

    module = models.build(given.net, dtype=given.dtype)
    optimizer = optax.adam(1e-3, eps=1e-7)

    def mean_loss(params, images, labels, key):
        logits = module.apply({"params": params}, images / 255.0, train=True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def learn(params, moments, images, labels, key):
        loss, gradients = jax.value_and_grad(mean_loss)(params, images, labels, key)
        updates, moments = optimizer.update(gradients, moments)
        return optax.apply_updates(params, updates), moments, loss

    learn = jax.jit(learn, donate_argnums=(0, 1))
    apply = jax.jit(lambda params, images: module.apply({"params": params}, images / 255.0))
    key = jax.random.key(0)
    blank = jnp.zeros((1, *images.shape[1:]))
    params = jax.jit(lambda key: module.init(key, blank)["params"])(key)
    moments = optimizer.init(params)

    def train(steps: int) -> object:
        nonlocal params, moments
        with ops.plain():
            for number in range(steps):
                step_key = jax.random.fold_in(key, number)
                params, moments, loss = learn(params, moments, images, labels, step_key)
        return jax.block_until_ready(loss)

    def infer(batches: int) -> object:
        with ops.plain():
            for _ in range(batches):
                logits = apply(params, images)
                if given.batch == 1:  # one image is awaited
                    jax.block_until_ready(logits)
        return jax.block_until_ready(logits)

    return serving.Contender(train, infer)


def make(given: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> serving.Contender:
    """One of the two."""
    return (plain_flax if given.plain else rice_jax)(given, images, labels)


if __name__ == "__main__":
    serving.serve(make)
