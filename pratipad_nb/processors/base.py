"""`Processor`, the optional base class of a user's processors, and `every`, which marks a periodic method.

Owns the names, defaults and meaning of the attributes and methods that a processor may define. Owns no
mechanism: `adapter` finds the attributes by name, so that any class with the same attributes serves as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from pratipad_nb.errors import ProcessorError

__all__ = ["Processor", "every", "period_of"]

Method = TypeVar("Method", bound=Callable[..., Any])

_PERIOD = "__pratipad_every__"


class Processor:
    """Base class of processors: defaults, and hooks to override. A class with `process` needs no base class.

    A subclass defines one of

    * ``process(self, payload)`` or ``process(self, payload, message)``, as ``def``, ``async def``, generator
      or asynchronous generator. A plain `process` returns the new payload; a generator yields no payload, one
      or many.
    * ``process_batch(self, payloads)`` or ``process_batch(self, payloads, messages)``: one result for each
      payload, in order. A result that is a `list` holds that payload's results: ``[]`` filters it, ``[a, b]``
      makes two.

    A result goes on as it is at its ``return`` or ``yield``. An instance may change the object afterwards,
    and return or yield it again: results are encoded or copied at once.

    Neither method is declared here, since for a type checker each of these forms would contradict the
    declaration.

    ``__init__`` and all methods of an instance run on one thread and never overlap: on a thread of the
    instance's own if `process` is a ``def`` or a generator, so that `process` may block; on the flow's event
    loop if `process` is an ``async def``. In a class whose `process` is an ``async def`` every method runs on
    the event loop, so keep its ``def`` methods, and ``__init__``, short: while they run, the flow stands
    still. (An ``async def`` method beside a ``def`` `process` runs on the event loop too, for it can run
    nowhere else, while the thread rests: an object that is bound to a thread, such as a `sqlite3` connection,
    belongs in a ``def`` method.)

    Attributes
    ----------
    retries
        How many times a message whose processing raised is tried again, at once, before the message becomes a
        dead letter. 0 by default: most exceptions are about the message, and would be raised again.
    concurrency
        How many instances work at the same time. 1 by default, for only then does one instance see all
        messages. Another number takes state along if `snapshot` returns `Keyed`, and is refused if
        `snapshot` returns other state.
    partition_by
        The messages that one instance sees in order: all messages of one ``"device"`` (default), or all
        messages with the same value of the payload's key of that name. All devices behind one gateway are
        with one instance.
    batch_size
        Most payloads given to one `process_batch`. 1,024 amortise a call of a vectorising library, whose cost
        is some microseconds, to nothing.
    batch_timeout
        Seconds to wait for a batch to fill. 0 by default: a batch is made of the messages that have arrived.
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
        """Return the new payload of an order on its way from the cloud to a device. Unchanged by default."""
        return payload

    def snapshot(self) -> Any:
        """Return the state to carry over a swap, a move or a restart: a JSON-like value; ``None``: none.

        The state is stored about once a second. After a crash, messages since then pass again to rebuild it,
        so it is exact as far as it depends on messages alone, and not on timers, clocks or chance.

        State by the key of messages is returned as `Keyed`, so that it follows its keys to another number of
        instances. The value is encoded at once: the instance may go on changing it.
        """
        return None

    def restore(self, state: Any) -> Any:
        """Take over the state that `snapshot` of an earlier instance returned; called after `setup`.

        Of a `Keyed` state `restore` gets a plain `dict`, of the keys whose messages this instance will see.
        """


def every(seconds: float) -> Callable[[Method], Method]:
    """Call the decorated method every `seconds` seconds while the flow runs, never while `process` runs.

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
