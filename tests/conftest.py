"""What tests of several modules ask for, and one state of JAX for all, whatever ran before."""

import contextlib
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
# Programs here run once or twice: compiling them well would take longer than running them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

# The backend starts here, by what stands in the environment and no test's wish, so that a child
# process with this environment and as many devices computes the same to the last bit.
jax.devices()

VARIABLES = ("XLA_", "JAX_", "KERAS_", "RICE_")
"""Beginnings of those that tell how a process computes."""


def _environment():
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


@contextlib.contextmanager
def _left_as_found(what):
    """Fail where settings are left changed, and put them back for what comes after."""
    environment, config = _environment(), dict(jax.config.values)
    yield
    now = _environment()
    variables = {name for name in environment | now if environment.get(name) != now.get(name)}
    settings = {name for name, value in config.items() if jax.config.values[name] != value}
    for name in variables:
        os.environ.pop(name, None)
    os.environ.update(environment)
    for name in settings:
        jax.config.update(name, config[name])
    assert not variables | settings, f"{what} leaves these changed: {variables | settings}"


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_jax_as_it_was(request):
    with _left_as_found(request.node.name):
        yield


@pytest.fixture(autouse=True)
def _test_leaves_jax_as_it_was(request):
    with _left_as_found(request.node.name):
        yield


@pytest.fixture(scope="module")
def compiled_well():
    """Programs as users get them: where they are what is tested, or compute for long."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
