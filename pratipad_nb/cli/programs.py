"""Files that define devices and flows: run as programs, and searched for both afterwards.

Owns running such a file, reporting its faults (the file's own line, no frames of this package), and finding
the objects that the file defines.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pratipad_nb.errors import PratipadError

__all__ = ["ProgramError", "defined", "execute", "told"]

Kind = TypeVar("Kind")


class ProgramError(PratipadError):
    """A user's file, or a notebook's cell, failed."""


def execute(path: Path, *, name: str, arguments: Iterable[str] = ()) -> dict[str, Any]:
    """Run the Python file `path` as the module `name`, and return its globals.

    Raises
    ------
    ProgramError
        If the file can't be read, or fails; the error names the line.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ProgramError(f"{path} can't be read: {error.strerror}.") from error
    module = ModuleType(name)
    module.__file__ = str(path)
    # Pickling, dataclasses and `inspect` look a class's module up by its name.
    sys.modules[name] = module
    sys.path.insert(0, str(path.absolute().parent))
    sys.argv = [str(path), *arguments]
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - it is the user's own program
    except Exception as error:
        raise ProgramError(told(error, str(path), lambda name: name == str(path))) from error
    return module.__dict__


def told(error: BaseException, what: str, is_own: Any) -> str:
    """Return `error` as one message: its line in `what`, found by `is_own` on file names, type and text."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if is_own(frame.filename):
            line = frame.lineno
    where = what if line is None else f"{what}, line {line}"
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    kind = type(error).__name__
    return f"{where}: {kind}: {text}" if text else f"{where}: {kind}"


def defined(namespace: Mapping[str, Any], kind: type[Kind] | tuple[type[Kind], ...]) -> list[Kind]:
    """Return the objects of `kind` in `namespace`, each once, also those in lists and dictionaries."""
    found: dict[int, Kind] = {}
    for value in list(namespace.values()):
        for each in _within(value):
            if isinstance(each, kind):
                found.setdefault(id(each), each)
    return list(found.values())


def _within(value: Any) -> Iterator[Any]:
    if type(value) is dict:
        yield from list(value.values())
    elif type(value) in (list, tuple):
        yield from value
    else:
        yield value
