"""The errors of a call of a user's function, and how long a call has lasted, in words.

Owns which exceptions a caller may see: each is an `Exception` that a future and a coroutine can carry. When a
call is late, and when an instance is left behind, is for `time_limit` and `worker`.
"""

from __future__ import annotations

import time
from typing import TypeGuard

from pratipad_nb.errors import PratipadError, ProcessorError
from pratipad_nb.wording import in_words

__all__ = ["LeftBehind", "TookTooLong", "ordinary", "raised", "since"]


class LeftBehind(ProcessorError):
    """The instance is left behind in a call that hangs, and is never called again."""


class TookTooLong(LeftBehind, TimeoutError):
    """A call took longer than it may."""


def ordinary(owner: str, kind: type[PratipadError], raised: BaseException) -> Exception:
    """Return the exception that the caller of `owner` is to see: `raised`, or an error of `kind` instead.

    An exception that would end the program, the event loop or a generator (`SystemExit`, `CancelledError`,
    `StopIteration` and the like) becomes the cause of an error of `kind`.
    """
    if _is_ordinary(raised):
        return raised
    advice = " To stop its flow, call `request_stop()`." if kind is ProcessorError else ""
    error = kind(
        f"{owner} raised {in_words(raised)}, which would end more than this call. Raise an ordinary "
        f"exception, a subclass of Exception.{advice}"
    )
    error.__cause__ = raised
    return error


def raised(error: BaseException) -> BaseException:
    """Return the exception that the user's function raised: `error`, or its cause if made by `ordinary`."""
    cause = error.__cause__
    return (
        cause if isinstance(error, PratipadError) and cause is not None and not _is_ordinary(cause) else error
    )


def _is_ordinary(raised: BaseException) -> TypeGuard[Exception]:
    return isinstance(raised, Exception) and not isinstance(raised, (StopIteration, StopAsyncIteration))


def since(began: float) -> str:
    """Return in words when a call began, and how long ago; `began` is by `time.monotonic`."""
    seconds = time.monotonic() - began
    return f"{time.strftime('%H:%M:%S', time.localtime(time.time() - seconds))} ({seconds:.1f} s ago)"
