"""The asker's side of a program that measures: a process of its own, a line of JSON each answer."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rice_jax.errors import UserError

_FOLDER = Path(__file__).parent
# TensorFlow leaves oneDNN off where the CPU has no VNNI, though it is several times faster.
TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
"""What Keras on TensorFlow is given, whatever of it is measured."""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}


class Asked:
    """A program of this folder, which computes when asked."""

    def __init__(
        self, name: str, program: str, options: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Start it.

        Args:
            name: what its failure is told by.
            program: its file's name.
            options: of its command line.
            environment: variables that it has besides those that are here.
        """
        self.name = name
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, str(_FOLDER / program), *options],
            env={**os.environ, **QUIET, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
        )

    def ask(self, question: str) -> Any:
        """Its answer to one line; UserError where it failed."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: why is told in place of an answer
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """What it says next; UserError where it ended without a word, with its complaint."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._words.seek(0)
            complaint = self._words.read().strip().splitlines() or ["no word"]
            raise UserError(f"{self.name} failed: {complaint[-1]}")
        return json.loads(line)

    def end(self) -> None:
        """Let it end, and wait for that."""
        self._process.communicate()
