"""The house is as WORKSPACE.md tells it: each room imports only from rooms above it, no circles."""

import ast
import collections
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "WORKSPACE.md").read_text()


def rooms(text):
    """The table's rooms in order, as paths: 'graph/', 'run.py'; a row may have several."""
    table = text.partition("| room |")[2].partition("\n\n")[0].replace("\\", "")
    rows = re.findall(r"^\| (\S.*?) \|", table, re.MULTILINE)
    return [room for row in rows for room in row.split(", ")]


def modules():
    """Each module of the package: its name and its path within the package."""
    paths = sorted((ROOT / "rice_jax").rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return {
        name.removesuffix(".__init__"): path.relative_to(ROOT / "rice_jax").as_posix()
        for name, path in zip(names, paths, strict=True)
    }


def imported(name, nested=True):
    """The package's modules that one of them imports; without `nested` those loaded with it."""
    found = set()
    tree = ast.parse((ROOT / "rice_jax" / MODULES[name]).read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= parts | ({node.module} if parts - MODULES.keys() else set())
    return found & MODULES.keys()


def loaded_with(name):
    """What is loaded with a module: itself, what stands at its beginning, the packages around."""
    found, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            around = name.rpartition(".")[0]
            waiting += [*imported(name, nested=False), *([around] if around in MODULES else [])]
    return found


def room(name):
    """The room that a module is in: of rooms within rooms the inner one."""
    path = MODULES[name]
    return max((r for r in ROOMS if path == r or (r[-1] == "/" and path.startswith(r))), key=len)


ROOMS = rooms(TEXT)
MODULES = modules()
IMPORTS = {name: imported(name) for name in MODULES}


def test_each_room_has_modules_and_each_module_a_room():
    assert len(ROOMS) == len(set(ROOMS))
    assert {room(name) for name in MODULES if name != "rice_jax"} == set(ROOMS)


@pytest.mark.parametrize("here", ROOMS)
def test_a_room_imports_only_from_rooms_above_it(here):
    allowed = ROOMS[: ROOMS.index(here) + 1]
    below = [
        f"{name} imports {other}"
        for name in MODULES
        if name != "rice_jax" and room(name) == here
        for other in IMPORTS[name] - {"rice_jax"}  # whose beginning imports nothing
        if room(other) not in allowed
    ]
    assert not below


def test_a_class_has_a_name_of_its_own():
    named = collections.defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse((ROOT / "rice_jax" / path).read_text())):
            if isinstance(node, ast.ClassDef):
                named[node.name].append(name)
    assert len(named) > 200
    assert not {name: where for name, where in named.items() if len(where) > 1}


ONE_SUBJECT = {
    "cards": "the zoo's cards: as records, and as what is told of a net",
    "evaluate": "the command is called as what it does",
    "googlenet": "a net and its configuration",
    "layers": "a net's layers: their classes, their section of the page, their figures",
    "lightening": "a search: its section of the page, its figure",
    "micro": "a net and its configuration",
    "pruning": "a removal: its section of the page, its figures, the job",
    "roofline": "what bounds a layer: the figures, their picture",
    "rules": "what each primitive does, one table for each interpretation",
    "table": "what a terminal shows, of a profile and of the zoo",
    "tables": "what a page shows, of a run and of a comparison",
}


def test_a_file_has_a_name_of_its_own_or_shares_its_subject():
    named = collections.Counter(Path(path).stem for path in MODULES.values())
    del named["__init__"]
    assert {name for name, files in named.items() if files > 1} == ONE_SUBJECT.keys()


def test_there_is_no_circle():
    in_order = list(graphlib.TopologicalSorter(IMPORTS).static_order())  # refuses a circle
    assert set(in_order) >= set(MODULES)


def test_the_libraries_serve_any_module():
    assert "`inspection/` and `prune/` import neither `data/` nor `models/`" in TEXT
    for name in (name for name in MODULES if name != "rice_jax"):
        if room(name) in ("profile/", "inspection/", "prune/"):
            assert not {room(other) for other in IMPORTS[name]} & {"data/", "models/"}, name


def test_the_report_alone_imports_matplotlib():
    assert "the only importer of matplotlib" in TEXT
    draws = re.compile(r"^\s*(?:import|from) matplotlib", re.MULTILINE)
    drawing = {
        room(name)
        for name, path in MODULES.items()
        if draws.search((ROOT / "rice_jax" / path).read_text())
    }
    assert drawing == {"report/"}


def test_an_image_is_answered_without_what_draws_or_prepares():
    slow = re.compile(r"^(?:import|from) (matplotlib|tensorflow_datasets)", re.MULTILINE)
    for name in loaded_with("rice_jax.prediction"):
        assert not slow.search((ROOT / "rice_jax" / MODULES[name]).read_text()), name
    assert slow.search((ROOT / "rice_jax" / MODULES["rice_jax.data.builder"]).read_text())


def test_no_command_begins_with_what_checkpoints_alone_need():
    """Orbax takes longer to import than jaxlib, and stages without training have no use for it."""
    imports = re.compile(r"^( *)(?:import|from) orbax", re.MULTILINE)
    source = "\n".join((ROOT / "rice_jax" / path).read_text() for path in MODULES.values())
    indents = imports.findall(source)
    assert indents, "the test looks for what is nowhere"
    assert all(indents), "at the beginning of a module"
