"""rice_jax as `rice_jax.main` trains, or the same Linen module as plain Flax and JAX would."""

import argparse

import numpy as np
import serving


def rice_jax(
    given: argparse.Namespace, images: np.ndarray, labels: np.ndarray
) -> serving.Contender:
    """The package's own feed and training step, over every device that its settings make."""
    from rice_jax.ops import backend

    backend.configure()
    import jax

    from rice_jax import models
    from rice_jax.prediction import classifier
    from rice_jax.train import feed, state, step

    mesh = feed.data_mesh()
    module = models.build(given.net, dtype=given.dtype)
    variables = jax.jit(module.init)(
        jax.random.key(0), np.zeros((1, *images.shape[1:]), np.float32)
    )
    params = jax.tree.map(np.asarray, variables["params"])
    put = feed.Feed(mesh, given.batch)
    batch = {"image": images, "label": labels, "weight": np.ones(given.batch, np.float32)}
    current = state.replicate(state.create(params, ()), mesh)
    learn = step.train_step(module, mesh, seed=0, augment=False)
    done = 0

    def train(steps: int) -> object:
        nonlocal current, done
        results = feed.Lagged()
        for _ in range(steps):
            current, metrics = learn(current, put(batch), np.int32(done), np.float32(1e-3))
            results.push(metrics)
            done += 1
        return results.drain()

    classify = classifier(module, params, feed.data_mesh(given.batch))

    def infer(batches: int) -> object:
        results = feed.Lagged(lag=0 if given.batch == 1 else 2)  # one image is awaited
        for _ in range(batches):
            results.push(classify(images))
        return results.drain()

    return serving.Contender(train, infer)


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
        return jax.block_until_ready(logits)

    return serving.Contender(train, infer)


def make(given: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> serving.Contender:
    """One of the two."""
    return (plain_flax if given.plain else rice_jax)(given, images, labels)


if __name__ == "__main__":
    serving.serve(make)
