"""What tests of several modules ask for, and one state of JAX for all, whatever ran before."""

import collections
import contextlib
import gc
import os
import types
from unittest import mock

os.environ.setdefault("KERAS_BACKEND", "jax")
# Programs here run once or twice: compiling them well would take longer than running them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Where there is a GPU, all processes of the tests share it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import browser
import hypothesis
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from rice_jax import bar

# The backend starts here, by what stands in the environment and no test's wish, so that a child
# process with this environment and as many devices computes the same to the last bit.
jax.devices()
if jax.default_backend() != "cpu":
    # Expected values are exact, or come from a CPU: a GPU would multiply in TF32.
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    jax.config.update("jax_default_matmul_precision", os.environ["JAX_DEFAULT_MATMUL_PRECISION"])

# An example may take as long as the machine is busy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_RENDERED = set()
"""Kinds of figures that `drawn_small` has seen."""

VARIABLES = ("XLA_", "JAX_", "KERAS_", "RICE_")
"""Beginnings of those that tell how a process computes."""


def _environment():
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


@contextlib.contextmanager
def _left_as_found(what):
    """Fail where settings are left changed, and put them back for what comes after."""
    environment, config = _environment(), jax.config.values
    yield
    now, set_now = _environment(), jax.config.values  # made anew at each look
    variables = {name for name in environment | now if environment.get(name) != now.get(name)}
    settings = {name for name, value in config.items() if set_now[name] != value}
    for name in variables:
        os.environ.pop(name, None)
    os.environ.update(environment)
    for name in settings:
        jax.config.update(name, config[name])
    assert not variables | settings, f"{what} leaves these changed: {variables | settings}"


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="all tests, also more of one kind")


def pytest_configure(config):
    config.addinivalue_line("markers", "thorough: runs with --thorough alone")
    config.addinivalue_line("markers", "one_in(n): of n cases one runs always, all with --thorough")


def _always(item, cases):
    """Whether the test runs without --thorough; `cases` counts those of each function so far."""
    if item.get_closest_marker("thorough"):
        return False
    if marker := item.get_closest_marker("one_in"):
        function = item.function
        cases[function] += 1
        return (cases[function] - 1) % marker.args[0] == 0
    return True


def pytest_collection_modifyitems(config, items):
    """Leave out what costs much and shows a kind once more: CI's two cores have 15 minutes."""
    if config.getoption("--thorough"):
        return
    cases = collections.Counter()
    always = {item: _always(item, cases) for item in items}
    config.hook.pytest_deselected(items=[item for item in items if not always[item]])
    items[:] = [item for item in items if always[item]]


def pytest_collection_finish():
    """Programs and libraries stay to the end: looking through them for garbage takes 7 % of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory):
    """The same nets are compiled for test after test: keep what takes long on disk.

    Each process has a folder of its own, since JAX does not write into one whole or not at all.
    """
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    compilation_cache.reset_cache()  # something was compiled while tests were collected


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_jax_as_it_was(request):
    with _left_as_found(request.node.name):
        yield


@pytest.fixture(autouse=True)
def _test_leaves_jax_as_it_was(request):
    with _left_as_found(request.node.name):
        yield


@pytest.fixture(autouse=True)
def _each_test_begins_a_log():
    bar._silence.since = None  # without monkeypatch, which is to be undone before others look


@pytest.fixture(scope="module")
def compiled_well():
    """Programs as users get them: where they are what is tested, or compute for long."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def on_the_cpu():
    """Programs are of XLA's CPU backend, also where there is a GPU."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


@pytest.fixture
def as_arguments():
    """Fail where a program holds arrays as constants: on a GPU XLA folds a batch for minutes."""
    before = jax.config.values["jax_captured_constants_warn_bytes"]
    jax.config.update("jax_captured_constants_warn_bytes", 1000)
    yield
    jax.config.update("jax_captured_constants_warn_bytes", before)


@pytest.fixture(scope="module")
def drawn_small(request):
    """Figures of few pixels, where nobody looks at them: most of the time to draw goes by these.

    Of those in files that are as large and have the same parts the first is rendered; others are
    blank, but for `--thorough`.
    """
    from matplotlib.figure import Figure

    from rice_jax.report import saving, style
    from rice_jax.report.comparison import comparing

    def once(render):
        def rendered(figure):
            size = tuple(figure.get_size_inches())
            parts = [type(part) for axes in figure.axes for part in axes.get_children()]
            if (kind := (render.__name__, size, *parts)) in _RENDERED:
                figure = Figure(size, figure.dpi)
            _RENDERED.add(kind)
            return render(figure)

        return rendered

    by_once = types.SimpleNamespace(
        **{render.__name__: once(render) for render in (style.drawn, style.png, style.svg)}
    )
    with contextlib.ExitStack() as stack:
        dots = {"figure.dpi": 40, "savefig.dpi": 40}
        stack.enter_context(mock.patch.dict(style._settings(), dots))
        for module in () if request.config.getoption("--thorough") else (saving, comparing):
            stack.enter_context(mock.patch.object(module, "style", by_once))
        yield


@pytest.fixture(scope="module")
def tab():
    """A tab of Chromium, for a module."""
    if browser.PROGRAM is None:
        pytest.skip("no Chromium is installed")
    with browser.started() as found:
        yield found
