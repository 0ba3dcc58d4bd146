"""A module with one line changed, for a while."""

import contextlib
import inspect
import sys
import types

import pytest

from rice_jax.errors import UserError


@contextlib.contextmanager
def changed(module, before, after):
    """A module whose functions and constants are those of a changed source, for a while."""
    source = inspect.getsource(module)
    assert source.count(before) == 1, before
    other = types.ModuleType(module.__name__)
    vars(other).update(__file__=module.__file__, __package__=module.__package__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, other)
        exec(compile(source.replace(before, after), module.__file__, "exec"), vars(other))
    with pytest.MonkeyPatch.context() as patch:
        for home, altered in _homes(module, other):
            for name, value in list(vars(altered).items()):
                own = vars(home).get(name)
                if name.startswith("__"):
                    continue
                if isinstance(own, types.FunctionType) and own.__module__ == module.__name__:
                    whole, part = inspect.unwrap(own), inspect.unwrap(value)
                    patch.setattr(whole, "__code__", part.__code__)
                elif isinstance(value, float | dict) and own != value:
                    patch.setattr(home, name, value)
        yield


def _homes(module, other):
    """The module and its classes, each with the changed one."""
    yield module, other
    for name, value in list(vars(other).items()):
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield vars(module)[name], value


def require_place(module, change):
    """Fail where what is to be changed does not stand in the module just once."""
    before, after = change
    assert inspect.getsource(module).count(before) == 1
    assert before != after


def require_failure(module, change, test):
    """Fail where a test passes in spite of the change."""
    with (
        changed(module, *change),
        pytest.raises((AssertionError, UserError, pytest.fail.Exception)),
    ):
        test()
