"""A teacher's answers beside the labels: the loss by hand, who may teach, going on bit for bit."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import run as command
from flax import linen as nn
from inspected import random_variables
from tiny_training import CLASSES, SIZE, assert_same, config, dataset, newest, watched

from rice_jax import ops, train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.run import Run
from rice_jax.train import state, teacher
from rice_jax.train.feed import Feed, data_mesh
from rice_jax.train.step import Metrics, train_step, training_inputs
from rice_jax.train.teacher import Teacher


def probabilities(logits):
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


@pytest.mark.parametrize(("heat", "weight"), [(1.0, 1.0), (4.0, 0.3), (0.5, 0.9)])
def test_loss_and_gradient_by_hand(heat, weight):
    random = np.random.default_rng(0)
    logits, answers = random.normal(0, 3, (2, 6, 5)).astype(np.float32)
    labels = np.eye(5)[random.integers(0, 5, 6)]
    taught = Teacher(nn.Dense(5), {}, heat, weight)

    def loss(logits):
        labelled = -jnp.sum(jax.nn.log_softmax(logits) * labels, axis=-1)
        mixed = taught.mixed(labelled, logits, answers)
        return mixed.sum(), mixed

    gradient, mixed = jax.grad(loss, has_aux=True)(logits)
    soft, targets = probabilities(logits / heat), probabilities(answers / heat)
    entropies = -(np.log(probabilities(logits)) * labels).sum(-1)
    softened = -(np.log(soft) * targets).sum(-1)
    expected = (1 - weight) * entropies + weight * heat**2 * softened
    np.testing.assert_allclose(mixed, expected, rtol=1e-4)
    slope = (1 - weight) * (probabilities(logits) - labels) + weight * heat * (soft - targets)
    np.testing.assert_allclose(gradient, slope, atol=1e-4)


def test_a_step_learns_from_both_on_the_same_augmented_images_in_any_parts(monkeypatch):
    """Against plain JAX over the whole batch; the teacher has a dropout, which is out of work."""
    settings = config()
    settings.model.dropout = 0.0
    wider = config(stages=((6,),))
    net, other = train.build(settings), train.build(wider)
    shape = (1, SIZE, SIZE, 3)
    params, theirs = (random_variables(m, shape, 0)["params"] for m in (net, other))
    before = jax.tree.map(np.copy, theirs)
    mesh = data_mesh()
    rows = 4 * mesh.size
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 256, (rows, SIZE, SIZE, 3), np.uint8),
        "label": random.integers(0, 5, rows, np.int32),
        "weight": np.ones(rows, np.float32),
    }
    monkeypatch.setattr(ops, "part_size", lambda *arguments: 2)
    taught = Teacher(other, theirs, 3.0, 0.6)
    step = train_step(net, mesh, seed=5, augment=True, teacher=taught)
    start = state.replicate(state.create(params, ()), mesh)
    after, metrics = step(start, Feed(mesh, rows)(batch), np.int32(0), np.float32(0.01))

    @jax.jit
    def by_hand(params, theirs):
        images, _ = training_inputs(batch["image"], seed=5, index=0, augment=True)
        labels = jax.nn.one_hot(batch["label"], 5)
        targets = jax.nn.softmax(other.apply({"params": theirs}, images) / 3)

        def loss(params):
            logits = net.apply({"params": params}, images)
            hard = -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), -1))
            soft = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits / 3), -1))
            return 0.4 * hard + 0.6 * 9 * soft, hard

        return jax.grad(loss, has_aux=True)(params)

    gradient, hard = by_hand(params, theirs)
    assert float(metrics.loss / metrics.images) == pytest.approx(float(hard), rel=1e-4)
    jax.tree.map(  # Adam's first moment is a tenth of the first gradient
        lambda moment, slope: np.testing.assert_allclose(moment, slope / 10, rtol=1e-3, atol=1e-5),
        after.moments.mu,
        gradient,
    )
    jax.tree.map(np.testing.assert_array_equal, theirs, before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a net of its own that no training has touched."""
    return begun(Run(tmp_path_factory.mktemp("teacher")), config(stages=((6,),)))


def begun(run, settings, seed=1, classes=CLASSES):
    images = dataset()
    images.classes = classes
    side = settings.data.image_size
    run.create()
    params = random_variables(train.build(settings), (1, side, side, 3), seed)["params"]
    run.write_json("config.json", {"config": to_json(settings)})
    train.begin(settings, run, images, params)
    return run


def taught_by(run, **fields):
    settings = config(epochs=1, batch_size=20, teacher=str(run.path))
    settings.train.update(fields)
    return settings


@pytest.mark.thorough
def test_a_taught_run_that_was_stopped_ends_as_if_it_never_was(tmp_path, trained):
    settings = taught_by(trained, epochs=2)
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    train.train(settings, whole, dataset())
    images = watched("train", 190, lambda: signal.raise_signal(signal.SIGTERM))
    images.workers = 1
    with pytest.raises(SystemExit):
        train.train(settings, run, images)
    train.train(settings, run, dataset())
    assert_same(newest(run, settings), newest(whole, settings))


def test_a_teacher_without_weight_is_none(trained):
    settings = taught_by(trained)
    assert teacher.load(settings, dataset()).weight == settings.train.distill.weight
    settings.train.distill.weight = 0.0
    assert teacher.load(settings, dataset()) is None
    assert teacher.load(config(), dataset()) is None


def test_who_cannot_teach_is_refused_before_anything_is_written(tmp_path, trained):
    flat = config()
    flat.model.pooling = "flatten"
    others = begun(Run(tmp_path / "others"), config(), classes=("a", "b", "c", "d", "e"))
    flattens = begun(Run(tmp_path / "flat"), flat)
    smaller = {"schedule": "quick"}
    for source, fields, said in (
        (Run(tmp_path / "nowhere"), {}, "there is no such folder"),
        (others, {}, "is a net for a, b, c, d, e; the images are of Arborio"),
        (flattens, smaller, "cannot take images of 8 x 8 pixels"),
    ):
        with pytest.raises(UserError, match=said):
            train.train(taught_by(source, **fields), Run(tmp_path / "run"), dataset())
        assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="zoo has no net called 'none'"):
        train.check(taught_by(trained, teacher="zoo:none"), dataset(), Run(tmp_path))
    with pytest.raises(UserError, match="is the run itself"):
        train.train(taught_by(trained), trained, dataset())


@pytest.fixture
def pupil(tmp_path, monkeypatch):
    """The settings of a run that has learnt from another to its end, and its folder."""
    away = Run(tmp_path / "teacher")
    begun(away, config(stages=((6,),)))
    settings, run = taught_by(away), Run(tmp_path / "pupil")
    monkeypatch.setattr("rice_jax.train.loop.train_step", without_learning)
    train.train(settings, run, dataset())
    return settings, run


def without_learning(*arguments, **options):
    """A step that only counts its 20 images: what is learnt is of no matter."""

    def step(now, rows, index, rate):
        told = Metrics(loss=40.0, correct=0.0, images=20.0, finite=True, signal=0)
        return now, jax.tree.map(jax.device_put, told)

    return step


@pytest.mark.parametrize("gone", ["moved", "emptied", "of other classes", "trained on"])
def test_what_has_learnt_to_its_end_asks_for_its_teacher_no_more(tmp_path, pupil, gone):
    settings, run = pupil
    place = tmp_path / "teacher"
    place.rename(tmp_path / "elsewhere")
    if gone == "emptied":
        place.mkdir()
    elif gone != "moved":
        other = {"classes": ("a", "b", "c", "d", "e")} if gone == "of other classes" else {}
        begun(Run(place), config(stages=((6,),)), seed=2, **other)
    before = newest(run, settings)
    train.train(settings, run, dataset())
    assert_same(newest(run, settings), before)


def test_where_a_teacher_is_needed_it_is_told_what_helps_where_it_was_moved(tmp_path, pupil):
    settings, run = pupil
    place = tmp_path / "teacher"
    place.rename(tmp_path / "elsewhere")
    told = f"no such folder; if that run was moved, make {place} a link to where it is"
    with pytest.raises(UserError, match=told):
        train.check(settings, dataset(), run, anew=True)
    settings.train.epochs = 2
    with pytest.raises(UserError, match=told):
        train.train(settings, run, dataset())
    place.symlink_to(tmp_path / "elsewhere")
    train.train(settings, run, dataset())
    assert newest(run, settings)[1]["epoch"] == 2
    place.unlink()
    begun(Run(place), config(stages=((6,),)), seed=2)
    settings.train.epochs = 3
    with pytest.raises(UserError, match="trained with another net in "):
        train.train(settings, run, dataset())


def test_images_of_a_size_that_a_teacher_never_saw_get_a_warning(tmp_path, trained, capsys):
    run = Run(tmp_path)
    teacher.load(taught_by(trained), dataset(), run)
    assert capsys.readouterr().err == ""
    teacher.load(taught_by(trained, schedule="quick"), dataset(), run)
    assert "was not trained on images of 8 x 8 pixels" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "warned"), [(56, False), (168, False), (40, True)])
def test_what_a_teacher_averages_to_what_it_saw_is_no_news_to_it(size, warned, capsys, tmp_path):
    """micro averages 168 pixels to 56 x 56 as those that it learnt from, of which none were 168."""
    settings = config(teacher="zoo:micro")
    settings.data.image_size = size
    teacher.load(settings, dataset(), Run(tmp_path))
    assert ("was not trained on images" in capsys.readouterr().err) == warned


def test_another_net_in_the_teacher_s_place_is_another_run(tmp_path):
    settings = taught_by(begun(Run(tmp_path / "teacher"), config()))
    first = train.origin.describe(settings, dataset(), teacher.load(settings, dataset()))
    begun(Run(tmp_path / "again"), config(), seed=2)
    settings.train.teacher = str(tmp_path / "again")
    second = train.origin.describe(settings, dataset(), teacher.load(settings, dataset()))
    second["config"] = first["config"]
    train.origin.require_same(Run(tmp_path), first, first)
    with pytest.raises(UserError, match="trained with another net in "):
        train.origin.require_same(Run(tmp_path), first, second)


def test_pruning_may_have_the_unpruned_run_as_a_teacher(tmp_path, trained, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "rice_jax.lighten.pruning.prune_run", lambda request, config, *runs: asked.append(config)
    )
    arguments = (f"--workdir={trained.path}", f"--out={tmp_path / 'out'}", "--drop=dead")
    for extra in ((), ("--teach",)):
        assert command("prune", *arguments, "--finetune_epochs=1", *extra).returncode == 0
    assert [config.train.teacher for config in asked] == ["", str(trained.path)]
