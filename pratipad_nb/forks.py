"""Forks: what a process that was forked from this process has to forget, and the errors of its handles.

Owns the hook that runs in every forked child: `os.fork`, `multiprocessing` with its start method "fork", a
`subprocess` with a `preexec_fn`. A child has the parent's memory, but none of its threads. A handle that
waits for a thread would wait for ever; a lock that another thread held is never released; a connection, a
lock file or a SQLite file that both processes used would break in the parent, too. So a child closes what
says that the parent lives, drops what it can't use, and lets every open handle of the parent's raise.

Each module says itself what of it is to be forgotten: by `keep_from_forks` for a descriptor, by
`forget_in_child` for a table of the module's, and by `watch` for an object.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

from pratipad_nb.errors import Forked

__all__ = [
    "Watched",
    "closing_in_parent",
    "forget_in_child",
    "forked_error",
    "keep_from_forks",
    "unforked",
    "watch",
]

#: The methods by which the language, not a caller, uses a handle.
_USES = (
    *("__enter__", "__aenter__", "__iter__", "__next__", "__aiter__", "__anext__"),
    *("__getitem__", "__setitem__", "__contains__", "__len__", "__call__", "__await__"),
)

_not_for_forks: set[int] = set()
#: Held while a process is forked, and while a descriptor is opened that no child may have.
_forking = threading.RLock()
#: The signals that the thread that forks blocks otherwise.
_mask: set[Any] = set()
_forget: list[Callable[[], object]] = []
#: The process that this process was forked from; itself, if it wasn't forked.
_parent = _present = os.getpid()


class Watched(Protocol):
    """An object that is told when it finds itself in a forked child."""

    def _find_forked(self) -> bool:
        """Return whether the parent has the object open, so that each use in this child has to raise.

        Called in the child, before anything else there. An object that isn't open is made fit for use in the
        child: it gets new locks.
        """


_watched: WeakSet[Any] = WeakSet()
#: The classes that handles have once they are stranded, by the handles' own classes.
_stranded_kinds: dict[type, type] = {}


def keep_from_forks(descriptor: int, *, until_closed: bool = True) -> None:
    """Have `descriptor` closed in every child that is forked without `exec`, as `multiprocessing` does.

    This is for descriptors whose being open says "this process lives": a forked worker that outlives the
    process must not hold the lock, or the end of a pipe, of the process. Call the function with
    ``until_closed=False`` before the descriptor is closed.
    """
    if until_closed:
        _not_for_forks.add(descriptor)
    else:
        _not_for_forks.discard(descriptor)


@contextlib.contextmanager
def unforked() -> Iterator[None]:
    """Let no thread fork during the block: a descriptor is opened in it and given to `keep_from_forks`."""
    with _forking:
        yield


def forget_in_child(forget: Callable[[], object]) -> None:
    """Call `forget` in every forked child, to drop what a module holds and to make its locks anew."""
    _forget.append(forget)


def watch(handle: Watched) -> None:
    """Let `handle` raise `Forked` in a forked child if it is open at the time of the fork."""
    _watched.add(handle)


def forked_error(what: str) -> Forked:
    """Return the error of a use, in this child, of `what`, which the parent has opened."""
    return Forked(
        f"{what} was opened in process {_parent}, and this is process {os.getpid()}, forked from it: its "
        "connection and its threads stayed there. Open a new one in this process; or start processes afresh, "
        'by multiprocessing.get_context("spawn").'
    )


@contextlib.contextmanager
def closing_in_parent() -> Iterator[None]:
    """Let a child leave a ``with`` block that its parent has entered: only the parent closes the handle."""
    with contextlib.suppress(Forked):
        yield


def _before_fork() -> None:
    global _mask
    _forking.acquire()
    # A signal to the child must not arrive while the child still has the handlers of its parent.
    _mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask)
    _forking.release()


def _in_child() -> None:
    try:
        _forget_parent()
    finally:
        _after_fork()


def _forget_parent() -> None:
    global _parent, _present
    _parent, _present = _present, os.getpid()
    for descriptor in _not_for_forks:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _not_for_forks.clear()
    for forget in _forget:
        forget()
    handles = list(_watched)
    _watched.clear()
    for handle in handles:
        if handle._find_forked():  # noqa: SLF001 - of the protocol
            _strand(handle)
        else:
            _watched.add(handle)


def _strand(handle: Any) -> None:
    """Let each use of `handle` raise.

    The class is changed, so that a method has to look at no process id before it does its work, and no method
    can be forgotten.
    """
    name = getattr(handle, "name", "")
    kind = type(handle)
    what = f"{kind.__name__} {name!r}" if name else f"this {kind.__name__}"
    handle.__dict__["_name_before"] = name
    handle.__dict__["_refusal"] = str(forked_error(what))
    handle.__dict__["_shown"] = f"<{what} of process {_parent}, from which this process was forked>"
    if kind not in _stranded_kinds:
        _stranded_kinds[kind] = _stranded(kind)
    handle.__class__ = _stranded_kinds[kind]


def _stranded(kind: type) -> type:
    """Return a class of handles like `kind`, each use of which raises; they only show themselves."""

    def refuse(self: Any, *_arguments: Any, **_options: Any) -> NoReturn:
        raise Forked(self._refusal)

    def look_up(self: Any, name: str) -> Any:
        if name == "name":
            return self._name_before
        if name.startswith(("_repr_", "_ipython_")):  # shown as text
            raise AttributeError(name)
        if name.startswith("_") or not (hasattr(kind, name) or name in vars(self)):
            return object.__getattribute__(self, name)
        return refuse(self)

    def change(self: Any, name: str, value: object) -> None:
        if not name.startswith("_"):
            refuse(self)
        object.__setattr__(self, name, value)

    def shown(self: Any) -> str:
        return str(self._shown)

    methods = {each for base in kind.__mro__ for each in vars(base)}
    refused: dict[str, Any] = dict.fromkeys(methods.intersection(_USES), refuse)
    refused |= {"__getattribute__": look_up, "__setattr__": change, "__repr__": shown}
    return type(kind.__name__, (kind,), refused | {"__module__": kind.__module__})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
