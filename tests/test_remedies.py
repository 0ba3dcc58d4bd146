"""What a command advises is what it has, and what helps in the state that it is told in."""

import itertools
import types

import pytest

from rice_jax.commands import app, process
from rice_jax.errors import UserError
from rice_jax.lighten import outcome, weighing
from rice_jax.records import SearchRequest

BEGUN = ", without --restart where it has said that training begins anew"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train --config=final", "the same command goes on from here"),
        ("train --config=final --restart", f"the same command goes on from here{BEGUN}"),
        ("train --restart --config final", f"the same command goes on from here{BEGUN}"),
        ("prune --workdir=a --out=b --drop=dead", "the same command goes on from here"),
        ("prune --workdir=a --suggest", ""),
        ("lighten --workdir=a --out=b", "the same command goes on from here"),
        ("lighten --workdir=a --out=b --estimate", ""),
        ("reproduce", "the same command goes on from here"),
        ("reproduce --estimate", ""),
        ("predict --workdir=a photo.jpg", ""),
        ("", ""),
    ],
)
def test_what_is_said_to_go_on_goes_on(line, said):
    """The same command with --restart would remove what was trained until it was stopped; where
    nothing was, without it an older run would go on.
    """
    assert app.goes_on(line.split()) == said


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("train", "data.image_size train.batch_size eval.batch_size"),
        ("prune", "data.image_size train.batch_size eval.batch_size"),
        ("reproduce", "data.image_size train.batch_size eval.batch_size"),
        ("evaluate", "eval.batch_size"),
        ("predict", ""),
        ("show", ""),
        ("compare", ""),
    ],
)
def test_where_memory_does_not_suffice_options_are_told_that_the_command_has(name, smaller, capsys):
    options = [f"--config.{field}" for field in smaller.split()]
    options += ["--batch_size"] if name == "predict" else []
    assert app.sizes([name, "--workdir=runs/final"]) == options

    def action():
        raise MemoryError("so much")

    assert process.guarded(action, sizes=app.sizes([name])) == 1
    advice = f": a smaller {' or '.join(options)} takes less" if options else ""
    assert capsys.readouterr().err == f"error: the memory does not suffice (so much){advice}\n"


@pytest.mark.parametrize(
    ("others", "nearest"),
    [
        ([("slower", 1.2, 0.99), ("light", 0.5, 0.8)], "light with 0.8000"),
        ([("longer", 1.0, 0.99)], "longer with 100.0 % of it"),
        ([("slower", 1.2, 0.99), ("stem", 1.125, 0.2)], "stem with 112.5 % of it"),
        ([("light", 0.5, 0.8), ("lightest", 0.1, 0.85)], "lightest with 0.8500"),
        ([], ""),
    ],
)
def test_what_costs_as_much_as_the_whole_net_is_not_chosen_and_told_as_what_it_is(others, nearest):
    """A net of fewer FLOPs may be slower, and the whole net itself may learn longer."""
    workshop = types.SimpleNamespace(folder=lambda name: name)
    points = list(itertools.starmap(weighing.Point, [("", 1.0, 0.89), *others]))
    content = types.SimpleNamespace(request=SearchRequest(at_least=0.9))
    with pytest.raises(UserError) as raised:
        outcome.finish(workshop, content, points, 0.9)
    told, _, instead = str(raised.value).partition(";")
    if not nearest or "of it" in nearest:  # no margin would change that
        none = "no lighter net was made that could learn: what was tried says why"
        dearer = (
            f"nothing that was made is lighter in flops than the run itself: nearest is {nearest}"
        )
        assert told == (dearer if nearest else none)
        assert "--at_least" not in instead
        return
    assert told == (
        f"nothing lighter has 0.9000 of the augmented validation images right: nearest is {nearest}"
    )
    assert "a lower --at_least" in instead


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        (
            {"steps": ("layer",)},
            "; the same --out goes on with more --steps (channels, resolution, ",
        ),
        ({"steps": ("stem", "channels", "layer")}, "more --steps (resolution)"),
        ({}, ""),
    ],
)
def test_where_nothing_lighter_was_made_no_wider_margin_is_advised(asked, more):
    whole = weighing.Point("", 1000.0, 0.9)
    content = types.SimpleNamespace(request=SearchRequest(**asked))
    workshop = types.SimpleNamespace(folder=lambda name: name)
    saves_nothing = weighing.Point("layer", 1000.0, 0.9)
    for points, why in (
        ([whole], "what was tried says why"),
        ([whole, saves_nothing], "nearest is layer with 100.0 % of it"),
    ):
        with pytest.raises(UserError) as told:
            outcome.finish(workshop, content, points, 0.895)
        assert why in str(told.value)
        assert more in str(told.value)
        assert ("--steps" in str(told.value)) == bool(asked)
        assert "--within" not in str(told.value)
