"""What a run begins with where neither images nor weights nor a recipe are given."""

import flax.linen as nn
import pytest

from rice_jax import config as configuration
from rice_jax import first_run, identity, models, own_net, profile, records, train, zoo
from rice_jax.errors import UserError


@pytest.fixture(autouse=True)
def no_images(monkeypatch):
    monkeypatch.delenv("RICE_IMAGE_DATASET", raising=False)


def settled(name="cnn_light", given=(), **fields):
    made = configuration.default(name)
    made.update_from_flattened_dict({key.replace("__", "."): v for key, v in fields.items()})
    said = first_run.settle(made, given)
    return made, said


def test_it_starts_from_the_zoos_net_and_says_so():
    made, said = settled()
    assert made.data.path == "sample"
    assert made.model.weights == "zoo:cnn_light"
    assert made.train.epochs < 10
    assert made.train.learning_rate < configuration.default("cnn_light").train.learning_rate
    assert f"{made.train.epochs} epochs" in said
    assert "zoo:cnn_light" in said
    assert "--config.data.path=rice-image-dataset.zip" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", sorted(set(zoo.names()) & set(models.NETS)))
def test_an_image_size_left_open_is_the_zoos(name):
    wanted = zoo.card(name).image_size
    made, said = settled(name)
    assert (made.data.image_size, made.model.weights) == (wanted, f"zoo:{name}")
    assert f"{wanted} x {wanted} pixels" in said
    other, _ = settled(name, ["data.image_size"], data__image_size=wanted + 16)
    assert (other.data.image_size, other.model.weights) == (wanted + 16, "")


def test_what_is_settled_is_settled_once():
    made, said = settled()
    before = configuration.to_json(made)
    assert first_run.settle(made) == said
    assert configuration.to_json(made) == before


@pytest.mark.parametrize("name", sorted(models.NETS))
@pytest.mark.parametrize("fields", [{}, {"model.weights": "random"}, {"train.stop_patience": 2}])
@pytest.mark.one_in(3)  # each net once, and each of these with three or more
def test_a_run_that_goes_on_is_settled_as_it_was(name, fields):
    def settle(given):
        made = configuration.default(name)
        made.update_from_flattened_dict(fields)
        first_run.settle(made, {*given, *fields})
        return configuration.to_json(made)

    begun = settle(())
    saved = records.ConfigFile(config=begun, versions={}, seed=0, data=None)
    again = configuration.default(name)
    again.update_from_flattened_dict(fields)
    assert settle(identity.unchanged(saved, again)) == begun


@pytest.mark.parametrize("name", sorted({"cnn", "vgg16"} - set(zoo.names())))
def test_a_net_that_the_zoo_lacks_starts_as_it_always_does(name):
    made, said = settled(name)
    assert made.model.weights == ""
    assert made.data.path == "sample"
    assert made.train.learning_rate == configuration.default(name).train.learning_rate
    assert "random" in said


@pytest.mark.parametrize(
    ("stages", "epochs"),
    [
        # Forward and backward 3 x 2 x 9 Cin Cout x 224^2 FLOPs, and little for the dense layers:
        (((4,),), 10),  # 0.03 GFLOPs an image, 500 images: as many epochs as there may be
        (((64, 64),), 1),  # of 64 filters, 11.6 GFLOPs: 5.8 TFLOPs an epoch
        (((32, 32),), 3),  # of 32 filters, 3.0 GFLOPs: 1.5 TFLOPs an epoch
    ],
)
def test_a_net_from_nothing_gets_as_many_epochs_as_half_a_minute_has(stages, epochs):
    given = ["model.weights", "data.image_size"]
    made, _ = settled("final", given, model__stages=stages)
    assert (made.train.epochs, made.data.image_size) == (epochs, 224)
    assert made.train.schedule == "study"


FROM_NOTHING = {
    # As above, and 2 TFLOPs for three epochs of 500 images: 1.3 GFLOPs an image.
    "light": ("final", {"model__stages": ((32, 32),)}, 224, 3),  # 3.0, of which three epochs do
    "at half": ("final", {"model__stages": ((40, 40),)}, 112, 3),  # 4.6; a quarter at 112: 1.2
    "at a quarter": ("final", {"model__stages": ((64, 64),)}, 56, 3),  # 11.6; 2.9, then 0.73
    "at a quarter one": ("final", {"model__stages": ((160, 160),)}, 56, 1),  # 71; then 4.4
    "flattened": ("cnn", {"model__stages": ((64, 64),)}, 224, 1),  # 14
    "the study's": ("googlenet", {}, 56, 3),  # 9.5; 2.4, then 0.6
}


@pytest.mark.parametrize(
    ("name", "fields", "side", "epochs"), FROM_NOTHING.values(), ids=FROM_NOTHING
)
def test_a_heavy_net_from_nothing_learns_from_smaller_images_if_it_can(name, fields, side, epochs):
    made, said = settled(name, ["model.weights"], **fields)
    smaller = side < 224
    assert ("since the net is heavy" in said) == smaller
    assert f"{side} x {side} pixels" in said
    assert f"{epochs} epoch" in said
    assert (made.train.schedule, made.train.initializer) == (
        ("quick", "he") if smaller else ("study", "auto")
    )
    assert train.image_sizes(made) == (side,) * epochs


@pytest.mark.parametrize(
    ("fields", "stays"),
    [
        ({"train__epochs": 20}, {"train.epochs": 20, "train.schedule": "study"}),
        ({"train__learning_rate": 0.01}, {"train.learning_rate": 0.01, "train.schedule": "study"}),
        ({"train__stop_patience": 2}, {"train.stop_patience": 2, "train.schedule": "study"}),
        ({"train__initializer": "own"}, {"train.initializer": "own", "train.schedule": "quick"}),
        ({"train__batch_size": 64}, {"train.batch_size": 64, "data.image_size": 56}),
        ({"data__image_size": 224}, {"data.image_size": 224, "train.initializer": "auto"}),
        (
            {"train__quick__epochs": (2, 3)},
            {"train.quick.epochs": (2, 3), "train.quick.shrink": (2, 1)},
        ),
    ],
)
def test_of_a_heavy_net_too_the_settings_of_the_users_win(fields, stays):
    given = [key.replace("__", ".") for key in fields]
    made, said = settled("googlenet", given, **fields)
    flat = {
        f"{section}.{name}": value
        for section in ("train", "data")
        for name, value in made[section].items()
    } | {f"train.quick.{name}": value for name, value in made.train.quick.items()}
    assert {field: flat[field] for field in stays} == stays
    assert f"{train.planned(made.train)[0]} epoch" in said


class Broad(nn.Module):
    """A heavy net of one's own: 71 GFLOPs of training an image of 224 x 224."""

    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(160, (3, 3), name="conv1")(x))
        x = nn.relu(nn.Conv(160, (3, 3), name="conv2")(x))
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


def test_a_net_of_ones_own_keeps_the_kernels_that_its_author_chose():
    made = own_net.configuration(Broad)
    said = first_run.settle(made)
    assert (made.train.initializer, made.data.image_size) == ("auto", 56)
    assert "since the net is heavy" in said


def test_a_heavy_net_of_the_zoos_is_fine_tuned_for_fewer_epochs():
    """By the study's FLOPs, three times 500 images: 0.25 TFLOPs an epoch of final, and 1.8."""
    for schedule in ("study", "quick"):
        light, heavy = (settled(n, train__schedule=schedule)[0] for n in ("final", "vgg_custom"))
        assert (light.train.epochs, heavy.train.epochs) == (3, 1)
        assert (light.train.quick.epochs, heavy.train.quick.epochs) == ((3,), (1,))


def learning(made):
    shape = (made.data.image_size, made.data.image_size, 3)
    return profile.count(train.build(made), shape, frozen=made.train.frozen).trainable_params


def test_of_a_net_of_many_layers_the_last_alone_learns():
    """Of googlenet_light 51 convolutions stay; its head has 288 x 5 weights and 5 biases."""
    made, said = settled("googlenet_light")
    assert learning(made) == 288 * 5 + 5
    assert "of the last layers alone" in said
    whole, said = settled("googlenet_light", ["train.frozen"])
    assert learning(whole) == zoo.card("googlenet_light").params
    assert "last layers" not in said


@pytest.mark.parametrize("name", sorted(set(models.NETS) - {"googlenet_light"}))
def test_of_few_layers_and_of_random_weights_those_learn_that_always_do(name):
    made, said = settled(name)
    assert made.train.frozen == configuration.default(name).train.frozen
    assert "last layers" not in said


@pytest.mark.parametrize(
    "fields",
    [
        {"train__epochs": 7, "train__learning_rate": 0.5},
        {"model__weights": "random"},
        {"model__weights": "some/run"},
        {"model__weights": "zoo:cnn_light", "train__epochs": 20},
        {"train__frozen": ("conv1",)},
        {"model__stages": ((4,), (16,))},  # no net of the zoo's
        {"data__image_size": 64},  # nor this: cnn_light has a weight for each pixel
    ],
)
def test_settings_of_the_users_win(fields):
    made, _ = settled(**fields)
    flat = {key.replace("__", "."): value for key, value in fields.items()}
    for field, value in flat.items():
        section, name = field.split(".")
        assert made[section][name] == value, field
    if not fields.keys() & {"train__epochs", "train__learning_rate"}:
        assert (made.train.learning_rate < 1e-3) == made.model.weights.startswith("zoo:")


@pytest.mark.parametrize("field", ["train.epochs", "train.learning_rate", "model.weights"])
def test_a_default_that_the_user_has_named_is_no_default(field):
    made, _ = settled(given=[field])
    section, name = field.split(".")
    assert made[section][name] == configuration.default("cnn_light")[section][name]


@pytest.mark.parametrize("name", sorted(set(zoo.names()) & set(models.NETS)))
def test_kernels_to_be_drawn_are_drawn_and_not_the_zoos(name):
    other = "own" if configuration.default(name).train.initializer != "own" else "he"
    for rule in {other, "he"}:
        made, said = settled(name, ["train.initializer"], train__initializer=rule)
        assert (made.train.initializer, made.model.weights) == (rule, "")
        assert "from random weights" in said
    named, _ = settled(name, model__weights=f"zoo:{name}", train__initializer=other)
    assert named.model.weights == f"zoo:{name}"


def test_the_quick_schedule_fine_tunes_the_zoos_net_as_gently():
    made, said = settled(train__schedule="quick")
    assert made.model.weights == "zoo:cnn_light"
    assert made.train.quick.peak_rate < 1e-3
    assert f"{sum(made.train.quick.epochs)} epochs at a learning rate of 0.0001" in said
    asked, said = settled(train__schedule="quick", train__quick__epochs=(1, 2))
    assert (asked.train.quick.epochs, asked.train.quick.shrink) == ((1, 2), (2, 1))
    assert "3 epochs" in said


@pytest.mark.parametrize("path", ["synthetic", "somewhere/rice.zip"])
def test_images_of_ones_own_and_drawn_ones_are_learnt_from_by_the_study(path):
    made, said = settled(data__path=path)
    assert said == ""
    expected = configuration.default("cnn_light")
    expected.data.path = path
    assert made == expected


def test_the_environment_counts_as_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("RICE_IMAGE_DATASET", str(tmp_path))
    made, said = settled()
    assert (made, said) == (configuration.default("cnn_light"), "")
    monkeypatch.setenv("RICE_IMAGE_DATASET", str(tmp_path / "no"))
    with pytest.raises(UserError, match="RICE_IMAGE_DATASET"):
        settled()
