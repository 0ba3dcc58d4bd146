"""Keras's .h5 files that are hostile or damaged."""

import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_h5 import FIXTURES, fill, intact_params, kernel, net

from rice_jax.errors import UserError


@pytest.fixture
def copy(tmp_path):
    """final.h5 again, to be spoilt."""
    return Path(shutil.copy(FIXTURES / "final.h5", tmp_path))


def soft_link(file, path):
    group, name = kernel(file)
    group.move(name, "elsewhere")
    group[name] = h5py.SoftLink(f"{group.name}/elsewhere")


def external_link(file, path):
    group, name = kernel(file)
    del group[name]
    group[name] = h5py.ExternalLink(str(FIXTURES / "final.h5"), f"{group.name}/{name}")


def external_data(file, path):
    group, name = kernel(file)
    shape = group[name].shape
    del group[name]
    group.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual_data(file, path):
    group, name = kernel(file)
    layout = h5py.VirtualLayout(group[name].shape, "f4")
    layout[:] = h5py.VirtualSource("other.h5", name, group[name].shape)
    del group[name]
    group.create_virtual_dataset(name, layout)


def huge_shape(file, path):
    group, name = kernel(file)
    del group[name]
    group.create_dataset(name, (1 << 20, 1 << 20, 3, 2), "f4", chunks=(16, 16, 3, 2))


def huge_chunk(file, path):
    """The right shape, out of a chunk that unpacks to 400 MB."""
    group, name = kernel(file)
    shape = group[name].shape
    del group[name]
    chunks = (3, 3, 3, 4_000_000)
    data = group.create_dataset(
        name, shape, "f4", chunks=chunks, maxshape=(3, 3, 3, None), compression="gzip"
    )
    packer = zlib.compressobj(1)
    zeros = bytes(4 * int(np.prod(chunks)) // 400)
    packed = b"".join([*(packer.compress(zeros) for _ in range(400)), packer.flush()])
    data.id.write_direct_chunk((0, 0, 0, 0), packed)


def huge_names(file, path):
    names = file["model_weights"]
    del names.attrs["layer_names"]
    names.attrs.create("layer_names", np.zeros(1, "S60000"))


def endless_names(file, path):
    names = file["model_weights"]
    del names.attrs["layer_names"]
    for part in range(300):
        names.attrs[f"layer_names{part}"] = [b"input_layer"] * 200
    first = next(iter(names))
    names["input_layer"] = names[first]


def infinite(file, path):
    group, name = kernel(file)
    group[name][0, 0, 0, 0] = np.inf


def missing_layer(file, path):
    file["model_weights"].attrs["layer_names"] = [b"nowhere"]


def weight_is_a_group(file, path):
    group, name = kernel(file)
    del group[name]
    group.create_group(name)


def scalar_weight(file, path):
    group, name = kernel(file)
    del group[name]
    group[name] = np.float32(1)


def nothing_listed(file, path):
    file["model_weights"].attrs["layer_names"] = h5py.Empty("S1")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (soft_link, "link to somewhere else"),
        (external_link, "link to somewhere else"),
        (external_data, "keeps its data in another file"),
        (virtual_data, "keeps its data in another file"),
        (huge_shape, r"another net: .*1048576"),
        (huge_chunk, "cannot read"),
        (huge_names, "too large for names"),
        (endless_names, "more than 20000"),
        (infinite, "not finite"),
        (missing_layer, "nowhere is missing"),
        (weight_is_a_group, "no array"),
        (scalar_weight, "another net"),
        (nothing_listed, "no weights of layers"),
    ],
)
@pytest.mark.parametrize("is_archive", [False, True], ids=["h5", "keras"])
@pytest.mark.one_in(4)
def test_hostile_file(spoil, message, is_archive, copy):
    with h5py.File(copy, "r+") as file:
        spoil(file, copy)
    path = archived(copy) if is_archive else copy
    with pytest.raises(UserError, match=message) as error:
        fill(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def archived(file, name="model.weights.h5", **options):
    """A .keras beside the file, with it inside."""
    path = file.with_suffix(".keras")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(file, name, **options)
    return path


def without_weights(path):
    return archived(path, "config.json")


def deflated(path):
    """A few kilobytes that unpack to 300 MB."""
    path.write_bytes(bytes(300 << 20))
    return archived(path, compress_type=zipfile.ZIP_DEFLATED)


def encrypted(path):
    found = archived(path)
    content = bytearray(found.read_bytes())
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(header) + flags] |= 1
    found.write_bytes(content)
    return found


def cut_off(path):
    found = archived(path)
    found.write_bytes(found.read_bytes()[:-40])
    return found


def wrong_checksum(path):
    found = archived(path)
    content = bytearray(found.read_bytes())
    content[len(content) // 2] ^= 1
    found.write_bytes(content)
    return found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_weights, r"x\.keras: it is an archive without model\.weights\.h5"),
        (deflated, "far larger than the archive"),
        (encrypted, "cannot read .*encrypted"),
        (cut_off, "cannot read .*not a zip file"),
        (wrong_checksum, "cannot read .*CRC"),
    ],
)
def test_hostile_archive(make, message, tmp_path):
    path = make(Path(shutil.copy(FIXTURES / "final.h5", tmp_path / "x.h5")))
    with pytest.raises(UserError, match=message) as error:
        fill(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.create_group("layers"), "no weights of layers"),
        (lambda file: file["layers"].__setitem__("again", file["layers"]), "without end"),
        (lambda file: file.create_group("/".join("g" * 40)), "without end"),
    ],
)
def test_hostile_weights_file(make, message, tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        if message == "without end":
            file.create_group("layers")
        make(file)
    with pytest.raises(UserError, match=message):
        fill(path)


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_not_hdf5(content, tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*x\.h5"):
        fill(path)


def test_absent_file(tmp_path):
    with pytest.raises(UserError, match=r"there is no weights file .*none\.h5"):
        fill(tmp_path / "none.h5")


def test_file_that_makes_hdf5_loop(copy):
    """A name on the heap that claims 2^64 - 17 bytes, so that the next one starts where it does."""
    content = bytearray(copy.read_bytes())
    heap = content.index(b"GCOL", content.index(b"GCOL") + 1)
    struct.pack_into("<Q", content, heap + 24, 2**64 - 17)
    copy.write_bytes(content)
    with pytest.raises(UserError, match="makes the HDF5 library fail"):
        fill(copy)


def data_of(path):
    """(offset, bytes) of each weight's raw data in the file."""
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.append((item.id.get_offset(), item.nbytes))
                if isinstance(item, h5py.Dataset) and item.ndim
                else None
            )
        )
    return sorted(found)


CONTENT = (FIXTURES / "final.h5").read_bytes()
SLOW = settings(
    max_examples=10,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SLOW
@given(
    flips=st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 255)), max_size=30),
    end=st.one_of(st.just(len(CONTENT)), st.integers(0, len(CONTENT))),
)
def test_damaged_file_is_refused_or_read(flips, end, tmp_path):
    """Raw data and addresses carry no checksum: what is read has our shapes and is finite."""
    content = bytearray(CONTENT[:end])
    for place, change in flips:
        if place < end:
            content[place] ^= change
    path = tmp_path / "damaged.h5"
    path.write_bytes(content)
    try:
        loaded = fill(path)
    except UserError:
        return
    for array, wanted in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(net("final.h5")[1]), strict=True
    ):
        assert array.shape == wanted.shape
        assert np.isfinite(array).all()


@settings(SLOW, max_examples=6)
@given(where=st.integers(0, 10**6), bit=st.integers(0, 7))
@pytest.mark.thorough
def test_damage_within_one_weight_stays_there(where, bit, tmp_path):
    offsets = data_of(FIXTURES / "final.h5")
    offset, size = offsets[where % len(offsets)]
    content = bytearray(CONTENT)
    content[offset + where % size] ^= 1 << bit
    path = tmp_path / "damaged.h5"
    path.write_bytes(content)
    damaged = np.frombuffer(content[offset : offset + size], "<f4")
    if not np.isfinite(damaged).all():
        with pytest.raises(UserError, match="not finite"):
            fill(path)
        return
    intact = jax.tree.leaves(intact_params())
    (changed,) = (
        array
        for array, before in zip(jax.tree.leaves(fill(path).params), intact, strict=True)
        if not np.array_equal(array, before)
    )
    np.testing.assert_array_equal(np.ravel(changed), damaged)
