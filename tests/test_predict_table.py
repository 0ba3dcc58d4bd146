"""What `predict` prints for people, of few classes and of many."""

import types

import numpy as np
import pytest

from rice_jax import prediction as predicting
from rice_jax import train


@pytest.fixture
def printed(monkeypatch, capsys):
    """The lines that a net of some classes has of images, given the probabilities of each."""

    def lines(classes, *images):
        said = [
            predicting.Prediction(f"photo {place}.png", np.array(each, np.float32))
            for place, each in enumerate(images)
        ]
        monkeypatch.setattr(train, "load", lambda run: types.SimpleNamespace(classes=classes))
        monkeypatch.setattr(predicting, "predict", lambda *args, **kwargs: iter(said))
        predicting.answer(None, [each.image for each in said], [])
        return capsys.readouterr().out.splitlines()

    return lines


def spread(classes, **likely):
    """Probabilities of `likely`, the rest shared out among the others."""
    share = (1 - sum(likely.values())) / (len(classes) - len(likely))
    return [likely.get(name, share) for name in classes]


@pytest.mark.parametrize(
    "classes",
    [
        [f"kind{number:02}" for number in range(30)],
        [f"kind{number:02}" for number in range(1000)],
        ["kind07", "kind21", "a name of so many letters that a few fill a line" * 2],
    ],
)
def test_of_more_classes_than_a_line_has_room_for_it_tells_the_two_likeliest(classes, printed):
    first = spread(classes, kind07=0.75, kind21=0.125)
    second = spread(classes, kind21=0.5, kind07=0.4375)
    width = max(map(len, classes))
    seven, other, head = (name.ljust(width) for name in ("kind07", "kind21", "class"))
    assert printed(classes, first, second) == [
        f"{head}          {'or else'.ljust(width)}          image",
        f"{seven}  0.7500  {other}  0.1250  photo 0.png",
        f"{other}  0.5000  {seven}  0.4375  photo 1.png",
    ]


@pytest.mark.parametrize(
    "classes", [["a", "grün", "c d"], list("0123456789"), ["x" * 70, "y" * 70]]
)
def test_of_few_classes_it_tells_each(classes, printed):
    given = np.linspace(0, 1, len(classes))
    head, row = printed(classes, given)
    assert head.split() == " ".join(["class", *classes, "image"]).split()
    assert row.startswith(classes[-1])
    assert row.removeprefix(classes[-1]).split()[:-2] == [f"{value:.4f}" for value in given]
