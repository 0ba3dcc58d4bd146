"""Keras's .h5 files read without Keras: stored ones, other nets, what a file does not tell."""

import re
import shutil
import zipfile
from pathlib import Path

import flax.linen as nn
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored_h5 import FIXTURES, IMAGE, STORED, fill, intact_params, kernel, net

from rice_jax.errors import UserError
from rice_jax.graph.trace import variable_shapes
from rice_jax.models import keras_h5
from rice_jax.profile import study


def equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


@pytest.fixture
def copy(tmp_path):
    """final.h5 again, to be spoilt."""
    return Path(shutil.copy(FIXTURES / "final.h5", tmp_path))


@pytest.mark.parametrize("file", STORED)
@pytest.mark.one_in(3)
def test_stored_weights_give_keras_logits(file):
    module, params = net(file)
    loaded = fill(FIXTURES / file, file)
    assert loaded.kept == ()
    images = np.random.default_rng(1).random((2, IMAGE, IMAGE, 3), dtype=np.float32)
    apply = jax.jit(
        lambda p: module.apply({"params": p}, images, train=False),
        compiler_options={"xla_backend_optimization_level": 0},  # compiles in a third of the time
    )
    logits = apply(loaded.params)
    np.testing.assert_allclose(logits, STORED[file]["logits"], atol=1e-5)
    assert np.all(params["head"]["bias"] == 7), "the given parameters are left as they were"


def test_every_net_is_stored():
    assert {stored["net"] for stored in STORED.values()} == set(study.REPORTED)


def test_convolutions_alone_leave_the_rest():
    whole = fill(FIXTURES / "vgg16.h5", "vgg16.h5").params
    loaded = fill(FIXTURES / "vgg16_notop.h5", "vgg16.h5")
    convolutions = [f"conv{number}" for number in range(1, 14)]
    assert sorted(loaded.filled) == sorted(convolutions)
    assert loaded.kept == ("dense", "head")
    assert all(equal(loaded.params[name], whole[name]) for name in convolutions)
    assert np.all(loaded.params["dense"]["kernel"] == 7)


def test_net_cut_short_takes_the_first_convolutions():
    loaded = fill(FIXTURES / "vgg16_notop.h5", "vgg_light.weights.h5")
    whole = fill(FIXTURES / "vgg16.h5", "vgg16.h5").params
    assert len(loaded.filled) == 10
    assert all(equal(loaded.params[name], whole[name]) for name in loaded.filled)


def test_float16_and_float64_are_converted(copy):
    with h5py.File(copy, "r+") as file:
        group = file["model_weights"]
        names = [n for n in group if n.startswith("conv")]
        for name, dtype in zip(names, ("f8", ">f4", "f2", "f4"), strict=True):
            for key in ("kernel", "bias"):
                value = group[name][name][key][()]
                del group[name][name][key]
                group[name][name].create_dataset(key, data=np.round(value, 1), dtype=dtype)
    for array in jax.tree.leaves(fill(copy).params):
        assert array.dtype == np.float32
    rounded = fill(copy).params["conv1"]["kernel"]
    original = fill(FIXTURES / "final.h5").params["conv1"]["kernel"]
    np.testing.assert_allclose(rounded, np.round(original, 1), atol=1e-3)


@pytest.mark.parametrize("layers", [("conv1", "conv3", "dense", "head"), ("dense", "head")])
def test_bfloat16_is_read_also_where_nothing_else_says_so(layers, copy):
    """HDF5 knows no such type: Keras leaves two bytes a number, in whole models without a word."""
    whole = intact_params()
    names = dict(zip(whole, kernels(copy), strict=True))
    with h5py.File(copy, "r+") as file:
        for place in layers:
            group = file["model_weights"][names[place]][names[place]]
            for key, value in whole[place].items():
                del group[key]
                group.create_dataset(key, data=np.asarray(value, jnp.bfloat16))
                assert group[key].dtype.kind == "V"
    loaded = fill(copy)
    assert loaded.kept == ()
    for place, arrays in loaded.params.items():
        dtype = jnp.bfloat16 if place in layers else np.float32
        for key, value in arrays.items():
            np.testing.assert_array_equal(value, whole[place][key].astype(dtype))


def kernels(path):
    """The layers that have one, as the file lists them."""
    with h5py.File(path) as file:
        return [
            name
            for name in file["model_weights"].attrs["layer_names"]
            if file["model_weights"][name].attrs["weight_names"].size
        ]


@pytest.mark.parametrize("dtype", [np.complex64, jnp.float8_e4m3fn])
def test_numbers_of_an_unknown_kind_are_not_passed_over(dtype, copy):
    """Else a file whose head alone has such ones would be one of convolutions."""
    with h5py.File(copy, "r+") as file:
        group, name = kernel(file)
        value = group[name][()].astype(dtype)
        del group[name]
        group.create_dataset(name, data=value)
    with pytest.raises(UserError, match=r"of a kind .* unknown here") as told:
        fill(copy)
    assert "damaged" not in str(told.value)


@pytest.mark.parametrize("place", ["/", "model_weights"])
def test_kernels_of_theano_are_mirrored_and_so_refused(place, copy):
    with h5py.File(copy, "r+") as file:
        file[place].attrs["backend"] = b"theano"
    with pytest.raises(UserError, match="Theano, whose kernels are mirrored") as told:
        fill(copy)
    assert "damaged" not in str(told.value)


@pytest.mark.parametrize("file", [name for name in STORED if name.endswith(".weights.h5")])
def test_an_archive_of_keras_is_the_weights_in_it(file, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(FIXTURES / file, "model.weights.h5")
    assert equal(fill(tmp_path / "x.keras", file).params, fill(FIXTURES / file, file).params)


class Other(nn.Module):
    """Two convolutions, one after the other or beside each other, and something else."""

    between: nn.Module | None = None
    beside: str = ""
    """The convolution whose maps come first; '' where each reads the other's."""

    @nn.compact
    def __call__(self, x, train=False):
        first = nn.relu(nn.Conv(3, (3, 3), name="first")(x))
        first = first if self.between is None else self.between(first)
        second = nn.relu(nn.Conv(3, (3, 3), name="second")(x if self.beside else first))
        both = [first, second] if self.beside == "first" else [second, first]
        x = jnp.concatenate(both, -1) if self.beside else second
        return nn.Dense(2, name="head")(x.mean((1, 2)))


def written(path, groups, features):
    """Weights of `Other` as Keras lists them: convolutions, alone or several in a model."""
    random = np.random.default_rng(0)

    def draw(group, name, *shape):
        group[f"{name}/kernel"] = random.random(shape, np.float32)
        group[f"{name}/bias"] = random.random(shape[-1], np.float32)
        return [f"{name}/kernel".encode(), f"{name}/bias".encode()]

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [*(name.encode() for name in groups), b"dense"]
        for name, inside in groups.items():
            group = file.create_group(name)
            listed = [draw(group, each, 3, 3, 3, 3) for each in inside]
            group.attrs["weight_names"] = [weight for weights in listed for weight in weights]
        dense = file.create_group("dense")
        dense.attrs["weight_names"] = draw(dense, "dense", features, 2)
        return [file[name][f"{each}/kernel"][()] for name in groups for each in groups[name]]


def fill_other(path, module):
    return keras_h5.fill_from_h5(path, module, variable_shapes(module, (1, 8, 8, 3))["params"])


@pytest.mark.parametrize(
    "between",
    [nn.LayerNorm(), nn.BatchNorm(use_running_average=True), nn.ConvTranspose(3, (3, 3))],
    ids=lambda module: type(module).__name__,
)
def test_a_net_whose_layers_keras_keeps_otherwise_is_refused(between, tmp_path):
    """A transposed kernel would fit in shape, and be mirrored and turned in its channels."""
    written(tmp_path / "x.h5", {name: [name] for name in ("a", "b", "c")}, 3)
    with pytest.raises(UserError, match=r"x\.h5 cannot fill between: "):
        fill_other(tmp_path / "x.h5", Other(between=between))


@pytest.mark.parametrize("beside", ["first", "second"])
def test_of_layers_beside_each_other_keras_lists_the_first_that_is_read(beside, tmp_path):
    """Ours are known in the order in which they are computed: where that is another, none is told.

    Source: Keras's `map_graph`, which goes back from the output, to each operation's first input.
    """
    kernels = written(tmp_path / "x.h5", {"a": ["a"], "b": ["b"]}, 6)
    if beside == "second":
        with pytest.raises(UserError, match="does not tell which of its layers"):
            fill_other(tmp_path / "x.h5", Other(beside=beside))
        return
    loaded = fill_other(tmp_path / "x.h5", Other(beside=beside))
    np.testing.assert_array_equal(loaded.params["first"]["kernel"], kernels[0])
    np.testing.assert_array_equal(loaded.params["second"]["kernel"], kernels[1])
    assert loaded.by_order == {"first": "a", "second": "b"}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["conv2d", "conv2d_1"], True),
        (["block1_conv2", "block2_conv1"], True),
        (["a", "b"], False),  # 'b' may be the first: where it is frozen it is listed last
        (["b", "a"], False),
        (["conv2d_1", "conv2d"], False),
    ],
)
def test_in_a_model_within_a_model_numbers_alone_tell_an_order(names, told, tmp_path):
    kernels = written(tmp_path / "x.h5", {"model": names}, 3)
    if not told:
        with pytest.raises(UserError, match="does not tell which of its layers"):
            fill_other(tmp_path / "x.h5", Other())
        return
    params = fill_other(tmp_path / "x.h5", Other()).params
    np.testing.assert_array_equal(params["first"]["kernel"], kernels[0])


def test_what_the_order_alone_tells_apart_is_printed(capsys):
    keras_h5.load_h5(FIXTURES / "final.h5", *net("final.h5"))
    assert re.search(
        r"final\.h5: of equal shape, in the file's order: conv3 is \S+, conv4 is \S+$",
        capsys.readouterr().out.strip(),
    )


@pytest.mark.parametrize(
    ("file", "into", "message"),
    [
        ("cnn.h5", "final.h5", "'conv2d_2' has kernel (3, 3, 3, 4) .* where conv3 takes"),
        ("vgg16.h5", "vgg_light.weights.h5", "kernel (3, 3, 3, 4) .* where dense takes"),
        ("vgg_light.weights.h5", "vgg16.h5", "'dense' has kernel (3, 6) .* where conv11 takes"),
        ("googlenet.h5", "googlenet_light.weights.h5", "'conv2d.*' has .* where conv2 takes"),
        ("vgg16_notop.h5", "cnn.h5", "(3, 3, 2, 2) .* where conv2 takes kernel (3, 3, 2, 3)"),
        ("vgg16_notop.h5", "googlenet.h5", "kernel (3, 3, 3, 2) .* where conv1 takes"),
    ],
)
def test_another_net_is_refused(file, into, message):
    pattern = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(UserError, match=f"holds another net: its layer .*{pattern}"):
        fill(FIXTURES / file, into)


def test_batch_norm_has_no_place(copy):
    with h5py.File(copy, "r+") as file:
        group = next(item for name, item in file["model_weights"].items() if "pooling" in name)
        group.attrs["weight_names"] = [b"gamma", b"beta"]
        group["gamma"] = group["beta"] = np.ones(2, np.float32)
    with pytest.raises(UserError, match=r"another net: .*gamma.*\(2,\)"):
        fill(copy)


def test_order_that_a_file_does_not_tell(tmp_path):
    """Two convolutions of one shape, one of them in a model inside: either could be first."""
    arrays = fill(FIXTURES / "final.h5").params
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        places = {
            "conv2d": "conv1",
            "conv2d_1": "conv2",
            "conv2d_2": "conv3",
            "sequential/layers/conv2d": "conv4",
            "dense": "dense",
            "dense_1": "head",
        }
        for group, place in places.items():
            file[f"layers/{group}/vars/0"] = arrays[place]["kernel"]
            file[f"layers/{group}/vars/1"] = arrays[place]["bias"]
    with pytest.raises(UserError, match=r"does not tell which .* comes first"):
        fill(tmp_path / "x.weights.h5")
