"""The figures that pages and docstrings tell of the nets: the study's, and those on the cards."""

import importlib
import math
import re
from pathlib import Path

import pytest

from rice_jax import models, nets, profile, zoo
from rice_jax.profile.study import ERRATA, REPORTED

ROOT = Path(__file__).parents[1]


def tables(page):
    """Each table of a page: its header's cells, and those of each row."""
    for text in re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE):
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
        yield cells[0], cells[2:]


def rows(page, *columns):
    """(what the first cell says, the cells of those columns) of each table that has them."""
    for header, cells in tables(page):
        if set(columns) <= set(header):
            places = [header.index(column) for column in columns]
            yield from ((row[0], [row[place] for place in places]) for row in cells)


def numbers(text):
    """All numbers of a text, '0.9968' and '1,203'; a range's or a list's are several."""
    return [float(each.replace(",", "")) for each in re.findall(r"\d[\d,]*\.?\d*", text)]


def filters(name):
    """Of all convolutions: the study's number, or what is right where it is wrong."""
    if name not in REPORTED:
        return sum(nets.NETS[name].widths["convolutions"])
    right = {each["model"]: each["correct"] for each in ERRATA if each["field"] == "filters"}
    return right.get(name, REPORTED[name]["filters"])


def size(name):
    """Parameters and FLOPs by the study's convention."""
    if name in REPORTED:
        return REPORTED[name]["params"], REPORTED[name]["flops"]
    return zoo.card(name).params, zoo.card(name).flops.study


def accuracy(name):
    """A card's accuracies to four digits: validation, clean test, augmented test."""
    told = zoo.card(name).accuracy
    return [float(f"{each.accuracy:.4f}") for each in (told.validation, told.clean, told.augmented)]


def test_the_table_of_the_nets_has_their_sizes():
    told = dict(rows("README.md", "parameters", "FLOPs (`study`)", "filters"))
    assert told.keys() == nets.NETS.keys()
    for name, cells in told.items():
        assert [numbers(cell) for cell in cells] == [
            [each] for each in (*size(name), filters(name))
        ]


def test_the_tables_of_the_readme_have_the_studys_accuracies():
    seen = set()
    for header, cells in tables("README.md"):
        if header.count("the study") == 2:
            clean, augmented = (place for place, name in enumerate(header) if name == "the study")
            for row in cells:
                name = row[0].partition(" ")[0]
                if name in REPORTED:
                    seen.add(name)
                    figures = REPORTED[name]
                    assert numbers(row[clean]) == [figures["val_accuracy"]], row
                    assert numbers(row[augmented]) == [figures["augmented_test_accuracy"]], row
    assert seen == REPORTED.keys()


def test_the_table_of_the_readme_has_the_accuracies_of_the_zoo():
    """Of several trainings the zoo has one: its card's figures are among theirs."""
    columns = ("how it was trained here", "validation", "clean test", "augmented test")
    seen = set()
    for first, (_, *cells) in rows("README.md", *columns):
        name = first.strip("`")
        if name in zoo.names():
            seen.add(name)
            for cell, card in zip(cells, accuracy(name), strict=True):
                assert min(numbers(cell)) <= card <= max(numbers(cell)), first
    assert len(seen) == 8


THE_ZOOS = {
    "vgg_custom, seed 1": "vgg_custom",
    "final at 56 x 56, from `final_grid56`": "final_grid56_long",
    "micro, seed 1": "micro",
    "nano, seed 0": "nano",
}


def test_the_tables_of_results_have_the_accuracies_of_the_zoo():
    told = {
        THE_ZOOS[before]: [*map(float, cells)]
        for first, cells in rows("docs/results.md", "validation", "clean test", "augmented test")
        for before, _, after in [first.partition(": ")]
        if "the zoo" in after or before.startswith("final at 56")
    }
    assert told == {name: accuracy(name) for name in THE_ZOOS.values()}


def worked_out(cell, begins_with):
    """(what the products and sums of a cell come to, what it says that they come to).

    A cell that begins with a plus goes on from the first column's figure.
    """
    left, _, told = cell.rpartition(" = ")
    work = re.sub(r"\(.*?\)|,", "", left or told)
    terms = re.sub(r"(\d+)²", r"\1 x \1", work.removeprefix("+")).split("+")
    total = sum(math.prod(map(int, term.split(" x "))) for term in terms)
    return total + begins_with * work.startswith("+"), numbers(told)[0]


def test_the_page_works_out_what_is_counted_of_final():
    counted = profile.count(models.build("final"), profile.study.INPUT_SHAPE)
    expected = {row.path: row.flops for row in counted.rows} | {"all": counted.flops}
    told = dict(rows("docs/flops.md", "`formula`", "`study`", "`xla`"))
    page = {name.partition(":")[0]: cells for name, cells in told.items()}
    assert expected.keys() <= page.keys()
    for name, flops in expected.items():
        first = numbers(page[name][0])[-1]
        found = [worked_out(cell, first) for cell in page[name]]
        assert [result for result, _ in found] == [result for _, result in found], name
        assert [result for result, _ in found] == list(flops.to_json().values()), name


@pytest.mark.parametrize("name", nets.NETS)
def test_a_configurations_docstring_has_the_nets_figures(name):
    text = " ".join((importlib.import_module(f"rice_jax.configs.{name}").__doc__ or "").split())
    parameters, flops = size(name)
    assert f"{parameters:,} parameters, {flops:,} FLOPs" in text
    if name in REPORTED:
        validation, augmented = (REPORTED[name][f"{x}_accuracy"] for x in ("val", "augmented_test"))
    else:
        validation, _, augmented = accuracy(name)
    assert numbers(re.search(r"With 60,000.*", text)[0])[1:3] == [validation, augmented]


def test_the_changes_tell_how_many_nets_the_zoo_has():
    words = {15: "fifteen", 16: "sixteen", 17: "seventeen", 18: "eighteen"}
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"The zoo has {words[len(zoo.names())]} trained nets" in text
