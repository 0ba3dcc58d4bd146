"""What a comparison warns of before it compares."""

import csv
import json

import pytest
from compared_runs import read, run_of
from report_drawing import drawn_texts
from report_runs import PRUNED, make_run, profile, scored

from rice_jax.report.comparison import choice, compared, comparing, figures
from rice_jax.report.comparison.cautions import cautions
from rice_jax.report.comparison.figures import pictures
from rice_jax.report.comparison.page import page
from rice_jax.report.page import to_markdown

pytestmark = pytest.mark.usefixtures("drawn_small")

EVALUATED = {"clean": scored(990), "augmented": scored(900), "path": "test split"}


def told(found):
    """The page's text."""
    front, chosen = choice.pareto_front(found), choice.choose(found, 0.01)
    return to_markdown(page(found, front, chosen, []))


def test_synthetic_runs_and_different_images_are_said(tmp_path):
    real = run_of(tmp_path / "a", "cnn", 900, 100)
    drawn = run_of(tmp_path / "b", "final", 950, 90, synthetic=True, fingerprint="beef")
    found = read(real, drawn)
    text = told(found)
    assert "**Synthetic data.**" in text
    assert "**Not the same images.**" in text
    assert "**No net is recommended:** the runs did not learn from the same images" in text
    assert "**Take" not in text
    drawing = next(pictures(found, synthetic=True)).figure
    assert any("synthetic" in words for words, _ in drawn_texts(drawing))
    text = told(read(drawn))
    assert "**No net is recommended:** the images are drawn grains" in text
    assert "**Take" not in text
    alone = read(real)
    text = told(alone)
    assert "Synthetic" not in text
    assert "Not the same" not in text
    assert "no net of fewer FLOPs comes within 1 point" in text


@pytest.mark.parametrize(
    ("learned", "said"),
    [
        (((None,), (None,)), ""),
        (((0,), (0,)), ""),
        (((3,), (None,)), "cnn (3)"),
        (((0, 1_200, 4), (7,)), "cnn (1,200); final (7)"),
    ],
)
def test_nets_that_have_seen_what_they_are_tested_on_are_said(tmp_path, learned, said):
    images = {"clean": scored(990), "augmented": scored(900), "path": "mine"}
    runs = [
        make_run(
            tmp_path / f"{name}{seed}", name, seed=seed, evaluation=images | {"in_training": count}
        )
        for name, counts in zip(("cnn", "final"), learned, strict=True)
        for seed, count in enumerate(counts)
    ]
    found = [each for each in cautions(read(*runs)) if "has learned from" in each]
    assert [f"from:** {said}. " in each for each in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (((0,), (1,)), "cnn by 0, final by 1"),
        (((0, 1, 2), (0,)), "cnn by 0 and 1 and 2, final by 0"),
        (((0, 1), (1, 0)), ""),
        (((3,), (3,)), ""),
    ],
)
def test_nets_whose_test_images_were_drawn_by_other_seeds_are_said(tmp_path, seeds, said):
    """`data.split_seed` is the seed, or what is given; images of elsewhere have none."""
    images = {"clean": scored(990), "augmented": scored(900)}
    for given, path, heard in ((-1, "test split", said), (7, "test split", ""), (-1, "mine", "")):
        runs = []
        for name, chosen in zip(("cnn", "final"), seeds, strict=True):
            for seed in chosen:
                folder = tmp_path / f"{given}{path}{name}{seed}"
                run = make_run(folder, name, seed=seed, evaluation=images | {"path": path})
                content = run.read_json("config.json")
                content["config"]["data"]["split_seed"] = given
                run.write_json("config.json", content)
                runs.append(run)
        found = [each for each in cautions(read(*runs)) if "Not the same test images" in each]
        assert [heard in each for each in found] == ([True] if heard else [])
        assert choice.choose(read(*runs), 0.01) is not None


# Of 1,000 images of two classes chance gets 500 right, with a standard error of 15.8.
@pytest.mark.parametrize(("right", "said"), [(500, True), (531, True), (532, False)])
def test_a_net_at_chance_is_said_to_have_learned_nothing(tmp_path, right, said):
    blind = run_of(tmp_path / "a", "googlenet", 500, 100, clean=right)
    found = cautions(read(blind, run_of(tmp_path / "b", "vgg_custom", 900, 100)))
    assert any("**Not learned:** googlenet." in each for each in found) == said


@pytest.mark.parametrize(("right", "chosen"), [(531, "vgg_custom"), (532, "googlenet")])
def test_a_net_at_chance_is_not_chosen_however_light(tmp_path, right, chosen):
    """Both within the margin of 0.3, the one at chance of fewer FLOPs."""
    light = run_of(tmp_path / "a", "googlenet", 600, 10, clean=right)
    found = read(light, run_of(tmp_path / "b", "vgg_custom", 800, 100))
    made = choice.choose(found, 0.3)
    assert made is not None
    assert made.net.label == chosen


def test_where_all_are_at_chance_none_is_recommended(tmp_path):
    blind = [run_of(tmp_path / name, name, 500, 10, clean=500) for name in ("cnn", "final")]
    text = told(read(*blind))
    assert "**No net is recommended:** none of them is better than chance" in text
    assert "**Take" not in text


def test_nets_whose_epochs_ran_out_are_said_with_them(tmp_path):
    """Stopped after two epochs without a better loss; what is at chance is not said twice."""
    history = "epoch,train_loss,val_loss\n1,0.8,0.7\n2,0.7,0.6\n3,0.6,0.65\n"
    for name, clean, rows in (
        ("vgg_custom", 900, history),
        ("cnn", 900, history + "4,0.5,0.65\n"),
        ("googlenet", 500, history),
    ):
        train = {"stop_patience": 2}
        run_of(tmp_path / name, name, 800, 100, clean=clean, history=rows, train=train)
    found = cautions(read(*(tmp_path / name for name in ("vgg_custom", "cnn", "googlenet"))))
    (still,) = [each for each in found if "**Still learning:**" in each]
    assert "**Still learning:** vgg\\_custom (3). Their epochs" in still


@pytest.mark.parametrize("schedule", ["quick", "study"])
def test_a_net_that_took_its_weights_as_they_are_is_not_learning(tmp_path, schedule):
    train = {"schedule": schedule, "quick": {"epochs": (4, 4)}, "stop_patience": 5}
    run = run_of(tmp_path, "micro", 900, 100, history=None, train=train)
    assert not any("Still learning" in each for each in cautions(read(run)))


@pytest.mark.parametrize(("planned", "said"), [((2, 1), False), ((2, 2), True)])
def test_a_run_of_planned_epochs_learns_until_these_are_over(tmp_path, planned, said):
    history = "epoch,train_loss,val_loss\n1,0.8,0.7\n2,0.7,0.6\n3,0.6,0.5\n"
    train = {"schedule": "quick", "quick": {"epochs": planned}, "stop_patience": 5}
    run = run_of(tmp_path, "final", 900, 100, history=history, train=train)
    assert any("**Still learning:** final (3)" in each for each in cautions(read(run))) == said


def test_a_run_that_was_only_profiled_is_not_warned_of(tmp_path):
    run = run_of(tmp_path, "cnn", 900, 100, history=None)
    (run.path / "evaluation.json").unlink()
    assert cautions(read(run)) == []


def test_flops_that_lack_something_are_marked_wherever_they_are_compared(tmp_path):
    lacking = [{"operation": "while", "layer": "", "input_shapes": [], "output_shapes": []}]
    whole = run_of(tmp_path / "whole", "cnn", 950, 3_000_000)
    content = profile(2_000_000, uncounted=lacking)
    loop = run_of(tmp_path / "loop", "final", 955, 0, profile=content)
    comparing.compare([str(whole), str(loop)], str(tmp_path / "out"))
    text = (tmp_path / "out" / "report.md").read_text()
    assert "> **FLOPs that lack something:** final." in text
    # Fewer FLOPs that may be more are no reason to take a net, nor to be on the front.
    assert "**Take cnn.**" in text
    assert text.count("| ≥ 2 M |") == 1
    assert "| ≥ 2,000,000 |" in text
    assert "≥ 3" not in text
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert {row["net"]: row["flops_complete"] for row in rows} == {"cnn": "True", "final": "False"}
    assert {row["net"]: row["pareto_front"] for row in rows} == {"cnn": "True", "final": "False"}
    drawn = {net.label: net for net in compared.read([str(whole), str(loop)])}
    drawings = pictures(list(drawn.values()), synthetic=False)
    (scatter,) = [each.figure for each in drawings if each.name == "flops_accuracy"]
    assert {"cnn", "final (≥)"} <= {text for text, _ in drawn_texts(scatter)}
    figure = figures.accuracy_per_tflop(list(drawn.values()), title="")
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert sorted(labels) == ["cnn", "final (≤)"]
    alone = pictures([net for net in drawn.values() if not net.complete], synthetic=False)
    (scatter,) = [each.figure for each in alone if each.name == "flops_accuracy"]
    drawn_texts(scatter)
    assert "--" not in {tick.get_text() for tick in scatter.axes[0].get_yticklabels()}


@pytest.mark.parametrize(
    ("paths", "digests", "same"),
    [
        (("test", "/home/test"), ("a1", "a1"), True),  # one folder, by two names
        (("test", "test"), ("a1", "b2"), False),  # as two machines may have
        (("test", "test"), (None, None), True),  # evaluated by an older version
        (("test", "other"), (None, None), False),
    ],
)
def test_a_folder_is_one_test_by_what_lies_in_it(tmp_path, paths, digests, same):
    runs = [
        make_run(
            tmp_path / f"{seed}",
            "cnn",
            seed=seed,
            evaluation=EVALUATED | {"path": path} | ({"fingerprint": digest} if digest else {}),
        )
        for seed, (path, digest) in enumerate(zip(paths, digests, strict=True))
    ]
    assert len(read(*runs)) == (1 if same else 2)
    assert any("Not the same test." in each for each in cautions(read(*runs))) != same


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fingerprint": "beef"}, "did not learn from the same images"),
        ({"evaluation": {"clean": scored(9, 10), "augmented": scored(9, 10)}}, "different images"),
        ({"evaluation": EVALUATED | {"path": "elsewhere"}}, "different images"),
    ],
)
def test_the_verdict_is_withheld_wherever_runs_cannot_be_compared(
    tmp_path, changed, reason, monkeypatch
):
    monkeypatch.setattr(comparing, "pictures", lambda *args, **options: ())  # takes seconds
    first = make_run(tmp_path / "a", "cnn", evaluation=EVALUATED)
    other = make_run(tmp_path / "b", "final", **{"evaluation": EVALUATED} | changed)
    assert comparing.compare([str(first), str(other)], str(tmp_path / "out")) == ""
    for name in ("report.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "No net is recommended" in text
        assert reason in text
        assert "Take" not in text
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["recommendation"] is None


def test_what_a_run_lacks_to_be_weighed_is_named_with_its_command(tmp_path):
    whole = run_of(tmp_path / "whole", "cnn", 900, 100)
    bare = make_run(tmp_path / "b c", "final", evaluation=None, profile=None, data=None)
    text = told(read(whole, bare))
    assert "**Take cnn.**" in text
    assert "Not the same images" not in text  # of one of them nothing is known
    command = f"rice-jax train '--workdir={bare}' --stages=evaluate,profile"
    assert f"`{bare}` lacks evaluation and profile: `{command}`" in text
    assert " lacks " not in told(read(whole))
    assert "there is nothing to weigh yet" in told(read(bare))


def test_a_run_that_is_not_weighed_is_told_on_the_terminal_too(tmp_path, capsys):
    whole = run_of(tmp_path / "whole", "cnn", 900, 100)
    bare = make_run(tmp_path / "bare", "final", evaluation=None)
    assert comparing.compare([str(whole.path), str(bare.path)], str(tmp_path / "out")) == "cnn"
    assert capsys.readouterr().err == (
        f"{bare} is not weighed, it lacks evaluation: "
        f"rice-jax train --workdir={bare} --stages=evaluate\n"
    )
    comparing.compare([str(whole.path)], str(tmp_path / "alone"))
    assert capsys.readouterr().err == ""


def test_images_of_no_test_split_are_said(tmp_path):
    """No figure of the study's stands beside, though all nets were evaluated on the same ones."""
    runs = [run_of(tmp_path / name, name, 900, 100) for name in ("cnn", "final")]
    assert "Not the test split" not in told(read(*runs))
    for run in runs:
        run.write_json("evaluation.json", EVALUATED | {"path": "my_field"})
    text = told(read(*runs))
    assert "**Not the test split.** Evaluated on `my_field`: accuracies of the study's" in text


def test_of_names_that_have_commas_each_is_told_from_the_next(tmp_path):
    """A pruned net's and an exported file's have them: 'cnn, pruned, final' may be two or three."""
    account = {"request": {"parent": "cnn"}, "certificate": PRUNED["certificate"]}
    half = run_of(tmp_path / "half", "cnn", 200, 100, clean=200, prune=account)
    whole = run_of(tmp_path / "whole", "final", 200, 90, clean=200)
    names = told(read(half, whole)).partition("**Not learned:** ")[2].partition(". No better")[0]
    assert set(names.split("; ")) == {"cnn, pruned", "final"}
    assert compared.listed(["cnn", "final"]) == "cnn, final"
    assert compared.listed(["CPU, LiteRT", "cpu"]) == "CPU, LiteRT; cpu"
