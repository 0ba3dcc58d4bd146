"""From a record to its file and back."""

import dataclasses
import os
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import msgspec

from rice_jax.errors import UserError, reason

if TYPE_CHECKING:
    from rice_jax.run import Run


Name = Annotated[str, msgspec.Meta(max_length=4096)]
"""Of a class, a layer or a place: each is written and drawn, also one that is made up."""
MOST_CLASSES, MOST_LAYERS = 100_000, 20_000
"""That a run's files tell of: each gets a line or a colour in a report."""


class FileRecord:
    """What a file of a run holds: a dataclass derived from this."""

    FILE: ClassVar[str]
    """The file's name in the run's folder."""


Kind = TypeVar("Kind", bound=FileRecord)
Made = TypeVar("Made")


def read(run: "Run", kind: type[Kind], name: str = "") -> Kind:
    """A file of a run; its `kind` says which, if no `name` does.

    Fields that are no longer known are passed over, those that an older version did not write have
    their defaults.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    name = name or kind.FILE
    content = run.read_json(name)
    try:
        return made(kind, content)
    except ValueError as error:
        path = os.fspath(run.path / name)
        raise UserError(f"{path} is damaged: {reason(error)}") from error


def read_if_there(run: "Run", kind: type[Kind]) -> Kind | None:
    """`read`; None where there is no such file."""
    return read(run, kind) if run.has(kind.FILE) else None


def made(kind: type[Made], content: Any) -> Made:
    """A record of plain JSON types; ValueError where they are not of its kind."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:  # no ValueError in older versions
        raise ValueError(str(error)) from error


def write(run: "Run", record: FileRecord, name: str = "") -> None:
    """Write a record whole or not at all; UserError as `Run.write_json`."""
    assert dataclasses.is_dataclass(record)
    run.write_json(name or record.FILE, plain(record))


def plain(record: Any) -> dict[str, Any]:
    """A record as plain JSON types, without what it leaves out (`left_out`)."""
    return _plain(record)


_LEFT_OUT = "left out"


def left_out() -> Any:
    """A field that is None where there is nothing to tell, and is then not written."""
    return dataclasses.field(default=None, metadata={_LEFT_OUT: True})


def _plain(content: Any) -> Any:
    if dataclasses.is_dataclass(content):
        told = {field: getattr(content, field.name) for field in dataclasses.fields(content)}
        return {
            field.name: _plain(value)
            for field, value in told.items()
            if value is not None or _LEFT_OUT not in field.metadata
        }
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return content
