"""`Processor`, the optional base class of a user's processors, and `every`, which marks a periodic method.

Owns the names, defaults and meaning of what a processor may define. Owns no mechanism: `adapter` finds these by name,
so that any class with the same attributes serves as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from pratipad_nb.errors import ProcessorError

__all__ = ["Processor", "every", "period_of"]

Method = TypeVar("Method", bound=Callable[..., Any])

_PERIOD = "__pratipad_every__"


class Processor:
    """Base class of processors: the defaults, and hooks to override. A class with `process` needs no base at all.

    A subclass defines one of

    * ``process(self, payload)`` or ``process(self, payload, message)``, as ``def``, ``async def``, generator or
      asynchronous generator. What a plain one returns is the new payload; a generator yields none, one or many.
    * ``process_batch(self, payloads)`` or ``process_batch(self, payloads, messages)``: one result for each payload,
      in order. A result that is a `list` stands for that payload's results: ``[]`` filters it, ``[a, b]`` makes two.

    Neither is declared here, since every one of these forms would contradict the declaration for a type checker.

    ``__init__`` and all methods of an instance run on one thread and never overlap: on a thread of its own if `process`
    is a ``def`` or a generator, so that it may block; on the flow's event loop if it is an ``async def``. In a class whose
    `process` is an ``async def`` every method runs on the loop, so keep ``def`` ones, and ``__init__``, short: while they
    run, the flow stands still. (An ``async def`` method beside a ``def`` `process` can run on the loop alone, and does,
    while the thread rests: what is bound to a thread, as a `sqlite3` connection is, belongs in a ``def`` one.)

    Attributes
    ----------
    retries
        How many times a message whose processing raised is tried again, at once, before it becomes a dead letter.
        0 by default: most exceptions are about the message, and would be raised again.
    concurrency
        How many instances share the work. 1 by default, for only then does one instance see everything.
    partition_by
        Which messages one instance sees in order: those of one ``"device"`` (default), or those with one value
        of the payload's key of that name.
    batch_size
        Most payloads given to one `process_batch`. 1,024 amortise a call of a vectorising library, whose cost
        is some microseconds, to nothing.
    batch_timeout
        Seconds to wait for a batch to fill. 0 by default: a batch is what is there.
    timeout
        Seconds that one call of `process`, `process_batch`, `backward` or a method marked by `every` may
        take. A call that takes longer fails: its message, or every message of its batch, becomes a dead
        letter at once, without retries. An ``async def`` is cancelled. A ``def`` can't be: its instance is
        left behind on its thread and never called again; a new one is made and set up on a thread of its own,
        with the state of the last `snapshot`. ``None`` by default: a call takes as long as it takes.

    Examples
    --------
    >>> class Celsius(Processor):
    ...     def process(self, reading):
    ...         return reading | {"temperature_c": (reading["temperature_f"] - 32) / 1.8}
    >>> Celsius().process({"temperature_f": 212})["temperature_c"]
    100.0
    """

    retries: ClassVar[int] = 0
    concurrency: ClassVar[int] = 1
    partition_by: ClassVar[str] = "device"
    batch_size: ClassVar[int] = 1024
    batch_timeout: ClassVar[float] = 0.0
    timeout: ClassVar[float | None] = None

    def setup(self) -> Any:
        """Prepare: open files and connections. Runs before the first message; may be ``async def``."""

    def teardown(self) -> Any:
        """Tidy up after the last message; may be ``async def``."""

    def backward(self, payload: Any) -> Any:
        """Return what an order, on its way from the cloud to a device, becomes. Unchanged by default."""
        return payload

    def snapshot(self) -> Any:
        """Return the state to carry over a hot swap, a move or a restart: a JSON-like value, ``None`` for none."""
        return None

    def restore(self, state: Any) -> Any:
        """Take over what `snapshot` of an earlier instance returned; called after `setup`."""


def every(seconds: float) -> Callable[[Method], Method]:
    """Call the decorated method every `seconds` seconds while the flow runs, never while `process` is running.

    Raises
    ------
    ProcessorError
        If `seconds` is no positive number.

    Examples
    --------
    >>> class Heartbeat(Processor):
    ...     @every(10)
    ...     def beat(self):
    ...         print("still here")
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ProcessorError(
            f"every({seconds!r}): the period is a number of seconds greater than 0, for example @every(10)."
        )

    def mark(method: Method) -> Method:
        setattr(method, _PERIOD, float(seconds))
        return method

    return mark


def period_of(method: object) -> float | None:
    """Return the seconds given to `every` if it decorates `method`, else ``None``."""
    found = getattr(method, _PERIOD, None)
    return found if isinstance(found, float) else None
