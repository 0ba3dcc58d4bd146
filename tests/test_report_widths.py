"""report.html on screens of any width: what a page tells first is not cut off."""

import pytest
from report_runs import make_run, result

from rice_jax.report import writing
from rice_jax.report.html import rendering
from rice_jax.report.html.run_page import run_page
from rice_jax.report.page import Shown
from rice_jax.report.record import load, summarize

RICE = ("Arborio", "Basmati", "Ipsala", "Jasmine", "Karacadag")
MATRIX = [[1500 if at == row else 0 for at in range(5)] for row in range(5)]  # 100.0 % is widest
CUT_OFF = """
[...document.querySelectorAll('.table')]
  .filter(each => each.clientWidth && each.scrollWidth > each.clientWidth)
  .map(each => each.innerText.slice(0, 40))
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a run of five classes with long names, evaluated on all test images."""
    tested = result(MATRIX, RICE)
    run = make_run(
        tmp_path_factory.mktemp("run"),
        evaluation={"clean": tested, "augmented": tested},
        classes=RICE,
        profile=None,  # tables of layers are wide, and scroll
        dead_filters=None,
    )
    writing.write(run)
    return f"file://{run.path}/report.html"


# Two columns begin at 1,024 pixels, where each has less room than the page of a tablet.
@pytest.mark.parametrize("width", [360, 390, 420, 480, 600, 768, 1023, 1024, 1100, 1280, 1920])
@pytest.mark.one_in(2)
def test_no_table_of_an_evaluation_is_cut_off(tab, address, width):
    tab.open(address, width)
    assert tab.value("document.querySelectorAll('.matrix .hit').length") == 10
    assert tab.value(CUT_OFF) == []


LONG = ("one_word_of_sixty_letters_that_nothing_but_a_dash_could_break", "ü " * 40, "circle")
BESIDE_NAMES = """
[...document.querySelectorAll('.matrix .table, .matrix ~ .table')].map(each =>
  1 - each.querySelector('tbody tr').firstElementChild.offsetWidth / each.clientWidth)
"""
HEADS = "[...document.querySelectorAll('.matrix thead')].map(each => each.offsetHeight)"


@pytest.mark.parametrize("width", [360, 1024, 1280])
@pytest.mark.parametrize("classes", [LONG, (*LONG, *"abcdefghi")], ids=["few", "many"])
def test_long_names_of_classes_leave_room_for_the_numbers(tab, tmp_path, width, classes):
    """Names stay where they are while numbers are moved past them, and stand above them too."""
    counts = [[1500 * (at == row) for at in range(len(classes))] for row in range(len(classes))]
    tested = {"clean": result(counts, classes), "augmented": None}
    run = make_run(tmp_path, evaluation=tested, classes=classes)
    record = load(run)
    (tmp_path / "page.html").write_text(run_page(run, record, summarize(record)))
    tab.open(f"file://{tmp_path}/page.html", width)
    beside = tab.value(BESIDE_NAMES)
    assert len(beside) == 2
    assert min(beside) > 0.55
    assert max(tab.value(HEADS)) < 250


PLACES = """
[...document.querySelectorAll('section')]
  .map(each => each.getBoundingClientRect()).map(each => [each.top, each.bottom])
"""


@pytest.mark.parametrize(
    ("wide", "width", "under"),
    [
        ([3], 1280, True),  # a third section follows the first, beside the long second one
        ([3], 1000, False),  # one column
        ([2], 1280, False),
        ([4], 1280, False),  # the third stands beside the fourth
    ],
)
def test_a_section_that_would_stand_alone_is_put_under_the_first(tab, tmp_path, wide, width, under):
    lengths = (1, 20, 3, 1, 1)
    texts = [[f"## {at}", *["text"] * length] for at, length in enumerate(lengths)]
    content = [[Shown(f"part{at}", ""), *text] for at, text in enumerate(texts)]
    narrow = {f"part{at}" for at in range(5) if at not in wide}
    blocks = {f"part{at}": rendering.prose("-") for at in range(5)}
    path = tmp_path / "page.html"
    path.write_text(rendering.page("columns", content, blocks, narrow=narrow))
    tab.open(f"file://{path}", width)
    first, second, third, fourth, _ = tab.value(PLACES)
    beside = width > 1024
    assert (first[0] == second[0]) == beside
    assert third[0] >= first[1]
    assert (third[0] < second[1]) == under
    assert (third[0] == fourth[0]) == (beside and wide == [4])
    assert fourth[0] >= second[1]


COMMAND = "rice-jax train --config=googlenet --config.data.path=rice-image-dataset.zip"
LINES = """
[...document.querySelectorAll('code span')].map(each =>
  Math.round(each.offsetHeight / parseFloat(getComputedStyle(each).lineHeight)))
"""
WORDS = "[...document.querySelectorAll('code')].map(each => each.innerText)"
SCROLLS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.mark.parametrize("width", [420, 600, 1024, 1280])
def test_a_command_within_a_text_is_broken_between_its_words_alone(tab, tmp_path, width):
    """As it would not be at the dashes of its options, whatever stands before it."""
    texts = [f"{'x ' * before}`{COMMAND}` and `--out`" for before in range(0, 30, 3)]
    path = tmp_path / "page.html"
    path.write_text(rendering.page("commands", [texts], {}))
    tab.open(f"file://{path}", width)
    assert tab.value(WORDS) == [COMMAND, "--out"] * len(texts)
    assert tab.value(LINES) == [1] * 4 * len(texts)


def test_a_word_longer_than_a_line_is_broken(tab, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(rendering.page("commands", [[f"`rice-jax {'long-' * 30}`"]], {}))
    tab.open(f"file://{path}", 360)
    assert max(tab.value(LINES)) > 1
    assert not tab.value(SCROLLS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("75.00 % of 8 x 8 x 3", "75.00~% of 8~x~8~x~3"),
        ("what % of an x 8", "what % of an x 8"),
        ("5 % <b>", "5~% &lt;b&gt;"),
    ],
)
def test_a_number_stays_with_what_belongs_to_it(text, shown):
    assert rendering.prose(text) == f"<p>{shown}</p>\n".replace("~", "\N{NO-BREAK SPACE}")
