"""What tests of several modules ask for."""

import jax
import pytest


@pytest.fixture(scope="module")
def compiled_in_haste():
    """Programs that run once or twice: compiling them well would take longer than running them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
