"""Commands in this process: what `rice-jax NAME ...` says and how it ends.

A process of its own costs seconds of imports; tests/test_readme.py and others start such.
"""

import contextlib
import importlib.util
import io
import runpy
import sys
import types
import warnings
from pathlib import Path
from unittest import mock

from absl import app, flags
from array_record.python import array_record_data_source  # noqa: F401  (defines flags, but once)

from rice_jax.commands.app import call


@contextlib.contextmanager
def _flags_taken_back():
    """Leave no flag behind: each can be defined but once."""
    app.define_help_flags()  # absl's own stay, which it defines once
    before = set(flags.FLAGS)
    try:
        yield
    finally:
        for flag in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, flag)
        flags.FLAGS.unparse_flags()


def imported(path):
    """A program as a module, for its functions; its flags have no value."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with _flags_taken_back():
        spec.loader.exec_module(module)
    return module


def run(name, *arguments, stdin=""):
    """`returncode`, `stdout` and `stderr` of a command, which leaves no flag behind.

    Args:
        name: a command, or a program's path.
        arguments: of the command.
        stdin: what it reads.
    """
    out, err = io.StringIO(), io.StringIO()
    argv = [str(name), *map(str, arguments)]
    status = None
    try:
        with (
            _flags_taken_back(),
            warnings.catch_warnings(action="ignore", category=DeprecationWarning),  # as there
            mock.patch.object(sys, "argv", argv),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            if isinstance(name, Path):
                runpy.run_path(str(name), run_name="__main__")
            call(argv)
    except SystemExit as left:
        status = left.code
    return types.SimpleNamespace(
        returncode=status or 0, stdout=out.getvalue(), stderr=err.getvalue()
    )
