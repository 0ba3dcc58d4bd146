"""Which filters are zero, and how often, over all images of a split."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from rice_jax import ops
from rice_jax.errors import UserError
from rice_jax.graph.batches import Batches
from rice_jax.graph.fronts import PureNet, takes_variables
from rice_jax.graph.maps import unseen
from rice_jax.inspection import counts
from rice_jax.inspection.features import arranged, image_maps, traced_for_images

Transform = Callable[[jax.Array, jax.Array], jax.Array]

_NO_IMAGES = "the census got no images: give a split that holds some"
_IN_FLIGHT = 2
"""Steps that may wait on the device: enough to keep it busy, few enough to keep memory flat."""
_PARTS = 16
"""Parts that an image's pixels are counted in: more are no faster, and longer to compile."""


@dataclasses.dataclass(frozen=True)
class LayerCensus:
    """How often each filter of a convolution is zero."""

    path: str
    zeros: np.ndarray
    """int64 (filters,): zero values of each filter, over pixels, images and the layer's calls."""
    values: int
    """Values that each filter has, zero or not."""

    @property
    def filters(self) -> int:
        """Number of filters."""
        return len(self.zeros)

    @property
    def dead(self) -> list[int]:
        """The filters that are zero on every pixel of every image."""
        return np.flatnonzero(self.zeros == self.values).tolist()

    @property
    def zero_fraction(self) -> list[float]:
        """Share of each filter's values that are zero: APoZ (Hu et al. 2016, arXiv:1607.03250)."""
        return (self.zeros / self.values).tolist()


@dataclasses.dataclass(frozen=True)
class Census:
    """The count over all images."""

    images: int
    layers: dict[str, LayerCensus]
    """By path, in the order in which they are computed."""
    unseen: tuple[str, ...] = ()
    """Paths of the convolutions that are not counted, since they run inside a loop."""


@takes_variables
def census(
    module: Any,
    variables: Any,
    batches: Iterable[Any],
    *,
    transform: Transform | None = None,
    **call_kwargs: Any,
) -> Census:
    """Count the zeros of every filter of every convolution over a whole split.

    The counts are exact integers, however many images there are. Nothing waits for the device but
    to keep no more than two batches under way. Wrap `batches` in tqdm to watch.

    Args:
        module: any net called with one array of images: a Linen module, an NNX module, a function.
        variables: of a Linen module, or params of a function; an NNX module is followed by none.
            Where images are spread over several devices they are copied to all of them.
        batches: images (B, H, W, C), float in [0, 1] for this package's nets; pairs of them and
            labels, whole numbers, which are passed over; or pairs of them and weights (B,), floats
            from 0 to 1 or bools, 0 for images that only fill up the batch (any other weight counts
            an image once). NumPy's or JAX's arrays, which may be sharded over the batch; each
            shape of batch is compiled once.
        transform: makes of images, and the index of their first one (how many counted before it),
            what the module takes: scaling of uint8 pixels, augmentation. It is compiled.
        **call_kwargs: what else the module's call needs, such as train=False.

    Returns:
        The counts by layer. A layer called several times is counted over all of its calls.

    Raises:
        UserError: for a split without images, a pair whose second is neither labels nor weights,
            such as labels that are floats, a batch of 2^32 values of a filter; and as
            `feature_maps`.
    """
    return censuses(module, variables, {"": batches}, {"": transform}, **call_kwargs)[""]


@takes_variables
def censuses(
    module: Any,
    variables: Any,
    batches: Mapping[str, Iterable[Any]],
    transforms: Mapping[str, Transform | None],
    **call_kwargs: Any,
) -> dict[str, Census]:
    """`census` of several kinds of images, for all of which the net is compiled once.

    Args:
        module: as in `census`.
        variables: as in `census`.
        batches: of each kind, as in `census`; read one kind after the other.
        transforms: of each kind, as in `census`: None where there is none.
        **call_kwargs: as in `census`.

    Raises:
        UserError: as `census`; kinds that batches or transforms alone have.
    """
    if alone := sorted(batches.keys() ^ transforms.keys()):
        raise UserError(f"{alone[0]!r}: give each kind its batches and its transform, or None")
    programs: dict[Any, _Program] = {}
    found = {}
    for kind, given in batches.items():
        prepare = _preparation(transforms[kind])
        state = program = None
        before: Any = None
        under_way: deque[jax.Array] = deque()
        for pixels, beside in Batches(given, one_shape=False, keep=False):
            sharding = _mesh_sharding(pixels)
            if before is None:
                before = jax.device_put(np.uint32(0), sharding)
            images = prepare(pixels, before)
            key = (images.shape, images.dtype, sharding)
            if key not in programs:
                programs[key] = _Program(module, images, sharding, call_kwargs)
            program = programs[key]
            if state is None:
                state = program.start()
                variables = program.replicate(variables)
            weight = _weights(beside, len(images))
            state, before, strange = program.step(variables, state, images, weight)
            under_way.append(strange)
            if len(under_way) > _IN_FLIGHT:
                _require_weights(under_way.popleft())
        for strange in under_way:
            _require_weights(strange)
        if state is None or program is None:
            raise UserError(_NO_IMAGES)
        found[kind] = program.finish(state)
    return found


def _weights(beside: Any, images: int) -> Any:
    """What each image of a batch counts for, by what came beside them: labels, weights or None."""
    # Batches of labels serve prune too; the first class's 0 is not an image that fills up.
    if beside is None or np.issubdtype(beside.dtype, np.integer):
        return np.ones(images, np.float32)
    if beside.shape != (images,):
        raise UserError(
            "beside images come labels, whole numbers, or a weight for each image, not "
            f"{beside.dtype} of shape {beside.shape}"
        )
    return beside


def _require_weights(strange: jax.Array) -> None:
    """Wait for a step; UserError where what stood beside its images was no weight for some."""
    if int(strange):
        raise UserError(
            "beside images came floats that are no weights from 0 to 1: give labels as whole "
            "numbers, which are passed over, or images alone"
        )


def _preparation(transform: Transform | None) -> Transform:
    """The transform compiled by itself, so that the net's program serves others too."""
    if transform is None:
        return lambda images, first: images
    compiled: dict[Any, Transform] = {}

    def prepare(images: Any, first: Any) -> Any:
        rows = images.sharding if _mesh_sharding(images) else None
        if rows not in compiled:
            compiled[rows] = jax.jit(transform, out_shardings=rows)
        return compiled[rows](images, first)

    return prepare


class _Program:
    """The step for one shape of batch."""

    def __init__(
        self,
        net: PureNet,
        images: Any,
        sharding: NamedSharding | None,
        call_kwargs: dict[str, Any],
    ) -> None:
        with ops.inference():
            self._traced = traced_for_images(net, images, **call_kwargs)
        self._maps = image_maps(self._traced)
        self._sharding = sharding
        self.step = jax.jit(self._step, donate_argnums=1, out_shardings=sharding)

    def start(self) -> jax.Array:
        """Counts of nothing: of images; then for each map of values and of zeros by filter."""
        return self.replicate(counts.zeros(1 + sum(1 + conv.filters for conv in self._maps)))

    def finish(self, state: jax.Array) -> Census:
        """The census that the counts amount to."""
        images, *rest = counts.to_host(state).tolist()
        if not images:
            raise UserError(_NO_IMAGES)
        layers: dict[str, LayerCensus] = {}
        for conv in self._maps:
            values, *rest = rest
            zeros, rest = np.array(rest[: conv.filters], np.int64), rest[conv.filters :]
            if conv.path in layers:  # another call of the same filters
                zeros, values = zeros + layers[conv.path].zeros, values + layers[conv.path].values
            layers[conv.path] = LayerCensus(conv.path, zeros, values)
        return Census(images, layers, tuple(unseen(self._traced)))

    def replicate(self, tree: Any) -> Any:
        """Put arrays on the device, or on every one that images are spread over."""
        return jax.device_put(tree, self._sharding)

    def _step(
        self, variables: Any, state: jax.Array, images: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The state with a batch added, the images it has counted, and how many have no weight."""
        counted = (weight > 0).astype(jnp.uint32)
        total = jnp.sum(counted)
        wanted = [conv.value for conv in self._maps]
        values = self._traced.evaluate(variables, images, wanted, by_platform=True)
        batch = [total[None]]
        for conv, value in zip(self._maps, values, strict=True):
            pixels = value.size // (len(images) * conv.filters)
            if pixels * len(images) >= 2**32:
                raise UserError(f"batches of {len(images)} images are too large: give smaller ones")
            zeros = _zeros(arranged(conv, value).reshape(len(images), pixels, conv.filters))
            batch += [total[None] * np.uint32(pixels), jnp.sum(counted[:, None] * zeros, axis=0)]
        strange = jnp.sum(~((weight >= 0) & (weight <= 1)))
        return counts.add(state, jnp.concatenate(batch)), state[0, 0] + total, strange


def _zeros(values: jax.Array) -> jax.Array:
    """How many of the values (N, pixels, filters) are zero, by image and filter."""
    # XLA's CPU backend vectorizes a sum element by element of several parts, but no reduction:
    # the first leaves it little to reduce.
    pixels = values.shape[1]
    parts = max(number for number in range(1, _PARTS + 1) if pixels % number == 0)
    zeros = jnp.zeros((), jnp.uint32)
    for part in jnp.split(values, parts, axis=1):
        zeros += (part == 0).astype(jnp.uint32)
    return jnp.sum(zeros, axis=1, dtype=jnp.uint32)


def _mesh_sharding(images: Any) -> NamedSharding | None:
    """A sharding that copies to every device of the mesh that `images` are spread over."""
    sharding = images.sharding if isinstance(images, jax.Array) else None
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size == 1:
        return None
    return NamedSharding(sharding.mesh, PartitionSpec())
