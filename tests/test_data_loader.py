"""Order, parts, resumption and filling of batches."""

import threading

import cv2
import data_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rice_jax import data
from rice_jax.data import loader
from rice_jax.errors import UserError


class Shades:
    """Records whose label tells their index, and whose pixels are all that index."""

    def __init__(self, length):
        self._images = [data_files.picture(index, 2) for index in range(length)]
        self.reads = 0

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        self.reads += 1
        return {"image": self._images[index], "label": index, "name": f"shade {index}"}


SHADES = Shades(23)


def collected(**arguments):
    return list(data.batches(SHADES, 6, image_size=2, **arguments))


def labels(batches):
    """Labels of real examples, in the order of their batches."""
    return [label for batch in batches for label in batch["label"][batch["weight"] > 0]]


def test_in_order_without_a_seed_and_filled_up_at_the_end():
    batches = collected()
    assert [batch["image"].shape for batch in batches] == [(6, 2, 2, 3)] * 4
    assert [
        (batch[name].dtype, batch[name].shape)
        for name in ("label", "weight")
        for batch in batches[:1]
    ] == [(np.int32, (6,)), (np.float32, (6,))]
    assert labels(batches) == list(range(23))
    assert batches[-1]["weight"].tolist() == [1, 1, 1, 1, 1, 0]
    np.testing.assert_array_equal(batches[-1]["image"][-1], batches[-1]["image"][0])
    for batch in batches:
        np.testing.assert_array_equal(
            batch["image"][batch["weight"] > 0, 0, 0, 0], batch["label"][batch["weight"] > 0]
        )  # red is the index
        np.testing.assert_array_equal(
            batch["image"][batch["weight"] > 0, 1, 1, 1:],
            np.tile([60, 10], (int(batch["weight"].sum()), 1)),
        )


@pytest.mark.parametrize("size", [1, 4, 8])
def test_smaller_images_are_averages_of_whole_ones(size):
    encoded = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (20, 18, 3)))[1]
    source = [{"image": encoded.tobytes(), "label": 0, "name": "noise"}]

    def image(**sizes):
        return next(data.batches(source, 1, **sizes))["image"][0].astype(float)

    block = 8 // size
    whole = image(image_size=8).reshape(size, block, size, block, 3)
    smaller = image(image_size=size, whole_size=8)
    np.testing.assert_allclose(smaller, whole.mean((1, 3)), atol=0.51)  # rounded


def test_a_seed_and_an_epoch_give_one_order_each():
    first = labels(collected(seed=1))
    assert sorted(first) == list(range(23))
    assert first == labels(collected(seed=1))
    orders = {tuple(labels(collected(seed=s, epoch=e))) for s in (0, 1, 2) for e in (0, 1, 2)}
    assert len(orders) == 9


@pytest.mark.parametrize(("limit", "chosen"), [(0, 23), (5, 5), (22, 22), (23, 23), (40, 23)])
def test_a_part_of_the_images_is_spread_evenly_and_the_same_in_each_epoch(limit, chosen):
    found = labels(collected(limit=limit))
    steps = np.diff([*found, 23])
    assert len(found) == chosen
    assert found[0] == 0
    assert set(steps.tolist()) <= {23 // chosen, -(-23 // chosen)}
    for epoch in range(3):
        assert sorted(labels(collected(limit=limit, seed=1, epoch=epoch))) == found


def test_every_order_is_as_likely():
    """Over 500 epochs each of 23 examples comes first about 22 times: chi squared of 22 degrees
    of freedom is below 56 with probability 0.9999."""
    source = Shades(23)
    firsts = [
        next(data.batches(source, 1, image_size=1, seed=0, epoch=epoch))["label"][0]
        for epoch in range(500)
    ]
    counts = np.bincount(firsts, minlength=23)
    assert ((counts - 500 / 23) ** 2 / (500 / 23)).sum() < 56


@settings(max_examples=30)
@given(
    first=st.integers(0, 5),
    parts=st.sampled_from([1, 2, 3, 6]),
    workers=st.integers(1, 3),
    seed=st.none() | st.integers(0, 2**32),
    epoch=st.integers(0, 50),
)
def test_parts_of_a_pass_make_up_the_whole(first, parts, workers, seed, epoch):
    whole = collected(seed=seed, epoch=epoch)
    by_part = [
        collected(seed=seed, epoch=epoch, first_batch=first, shard=(part, parts), workers=workers)
        for part in range(parts)
    ]
    assert all(len(part) == max(0, 4 - first) for part in by_part)
    for batch, *pieces in zip(whole[first:], *by_part, strict=True):
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in pieces]), values)


def test_it_reads_only_a_few_batches_ahead():
    source = Shades(200)
    batches = data.batches(source, 2, image_size=2, workers=1)
    next(batches)
    next(batches)
    assert source.reads <= 2 * (2 + 1 + 2 + 1)  # taken, in the making, waiting, and one to spare


def test_threads_end_when_a_pass_is_given_up():
    before = threading.active_count()
    batches = data.batches(Shades(200), 2, image_size=2, workers=2)
    next(batches)
    assert threading.active_count() == before + 2
    batches.close()
    assert threading.active_count() == before


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="batch of 6 images cannot be cut into 4 equal parts"):
        data.batches(SHADES, 6, image_size=2, shard=(0, 4))
    with pytest.raises(UserError, match="batch of 0"):
        data.batches(SHADES, 0, image_size=2)


def test_an_image_that_does_not_decode_is_named():
    source = [{"image": b"nothing", "label": 0, "name": "a/a (1).jpg"}]
    with pytest.raises(UserError, match=r"a/a \(1\).jpg: does not decode"):
        next(data.batches(source, 1, image_size=2))


@pytest.mark.parametrize(("most", "ahead"), [(1 << 30, 5), (300, 4), (99, 1), (0, 1)])
def test_batches_that_wait_take_a_bounded_room(most, ahead, monkeypatch):
    """A batch here has 6 * 2 * 2 * 3 = 72 bytes of pixels; three threads would be five ahead."""
    seen = []

    def in_order(make, indices, *, workers, ahead):
        seen.append(ahead)
        return map(make, indices)

    monkeypatch.setattr(loader, "in_order", in_order)
    monkeypatch.setattr(loader, "_MOST_READY", most)
    assert labels(collected(workers=3)) == list(range(23))
    assert seen == [ahead]


def test_batches_that_no_memory_holds_are_refused():
    with pytest.raises(UserError, match=r"take 150,995.0 GB, .* or smaller images"):
        data.batches(SHADES, 1_000_000, image_size=4096)  # 3 of 1e6 * 4,096^2 * 3 bytes


@pytest.mark.parametrize("part", [-1, 3, 4])
def test_a_part_that_there_is_not_is_refused(part):
    with pytest.raises(UserError, match=rf"shard=\({part}, 3\).* none of index {part}"):
        collected(shard=(part, 3))


@pytest.mark.parametrize("parts", [-1, 0])
def test_no_parts_are_refused(parts):
    with pytest.raises(UserError, match=f"cannot be cut into {parts} equal parts"):
        collected(shard=(0, parts))


@pytest.mark.parametrize("name", ["whole_size", "epoch", "first_batch", "limit", "workers"])
def test_numbers_below_zero_are_refused(name):
    with pytest.raises(UserError, match=f"{name}=-1 must be 0 or more"):
        collected(**{name: -1})


@pytest.mark.parametrize("size", [-1, 0])
def test_images_of_no_size_are_refused(size):
    with pytest.raises(UserError, match=f"image_size={size} must be 1 or more"):
        data.batches(SHADES, 6, image_size=size)
    with pytest.raises(UserError, match=f"image_size={size} must be 1 or more"):
        data.decode(data_files.picture(), size)
