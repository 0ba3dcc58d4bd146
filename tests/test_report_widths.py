"""report.html on screens of any width: what a page tells first is not cut off."""

import pytest
from report_runs import make_run, result

from rice_jax.report import writing

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
def test_no_table_of_an_evaluation_is_cut_off(tab, address, width):
    tab.open(address, width)
    assert tab.value("document.querySelectorAll('.matrix .hit').length") == 10
    assert tab.value(CUT_OFF) == []
