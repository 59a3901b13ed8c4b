"""The forms of `def` processors as one call for many rows: the tight loops that run on a worker thread.

Owns the order of rows, the deadline, retries, failures and how results are counted. Which form a callable has, and what
wraps it (validation, private copies), `adapter` decides. The forms of `async def` are in `async_forms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from time import perf_counter
from typing import Any

from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors.copying import copy_payload
from pratipad_nb.processors.outcome import Failure, Outcome, sampled
from pratipad_nb.processors.reply import collecting

__all__ = ["Batch", "Form", "Generator", "MessageOf", "Plain"]

#: Gives the message of a row; called only for a processor that asks for it.
MessageOf = Callable[[int], Message]

_NOTHING = (
    "{name} returned None, which is no payload. Return the payload to pass on; to filter messages, make it a "
    "generator (`yield` what goes on, or nothing); to use it for its effect alone, put it in braces {{…}}."
)
_NOTHING_IN_BATCH = (
    "process_batch of {name} gave None for a payload, which is no result. Give the new payload; a list stands for "
    "none ([]), one or many results."
)


class Form:
    """What the forms share: the user's callable and how it wants to be called.

    Parameters
    ----------
    call
        Takes a payload, and the message when `with_message`; for a batch, lists of both.
    name
        Name of the processor, for errors.
    retries
        How many more times a row is tried whose processing raised.
    discard
        The processor is a member of braces: its results are dropped and ``None`` is one.
    with_message
        `call` takes the message as its second argument.
    batch_size
        Most rows for one call, where the form is a batch.
    """

    __slots__ = ("_alone", "_batch_size", "_call", "_discard", "_name", "_retries", "_with_message")

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        name: str,
        retries: int = 0,
        discard: bool = False,
        with_message: bool = False,
        batch_size: int = 1024,
    ) -> None:
        self._call = call
        self._name = name
        self._retries = retries
        self._discard = discard
        self._with_message = with_message
        self._batch_size = batch_size
        self._alone = 0  # rows, left of a batch that raised, which the next call takes one by one

    def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Any:
        """Make one outcome of many rows: an `Outcome`, or an awaitable of one in the forms of ``async def``."""
        raise NotImplementedError

    def _arguments(self, payloads: Sequence[Any], message_of: MessageOf) -> Iterable[tuple[Any, ...]]:
        if self._with_message:
            return zip(payloads, map(message_of, range(len(payloads))), strict=True)
        return zip(payloads)

    def _nothing(self) -> ProcessorError:
        return ProcessorError(_NOTHING.format(name=self._name))

    def _batch_arguments(
        self, payloads: Sequence[Any], start: int, size: int, message_of: MessageOf
    ) -> tuple[list[Any], ...]:
        rows = range(start, min(start + size, len(payloads)))
        # Copies, for a batch that raises runs again row by row, and may have changed some of its payloads by then.
        copies = [copy_payload(payloads[row]) for row in rows]
        return (copies, [message_of(row) for row in rows]) if self._with_message else (copies,)

    def _batch_results(self, returned: object, expected: int) -> list[Any]:
        """Return the results of a batch as a list, one for each payload.

        Raises
        ------
        WrongLengthError
            If there are not as many as payloads.
        """
        if isinstance(returned, (str, bytes, Mapping, Set)) or not isinstance(returned, Iterable):
            if self._discard:
                return [None] * expected
            raise WrongLengthError(
                f"process_batch of {self._name} returned {type(returned).__name__!r}; it returns a list with one "
                f"result for each of the {expected} payloads it was given."
            )
        results = returned if isinstance(returned, list) else list(returned)
        if len(results) != expected and not self._discard:
            raise WrongLengthError(
                f"process_batch of {self._name} returned {len(results)} results for {expected} payloads; it returns "
                "one for each, in order. To filter, give [] for a payload; to make several of one, give a list."
            )
        return results

    def _take_batch(self, results: list[Any], ledger: Ledger) -> None:
        """Enter the results of a batch, whose first row is the ledger's next one."""
        for row, result in enumerate(results, ledger.done):
            if isinstance(result, list):
                ledger.take(result, row)
            elif result is None and not self._discard:
                ledger.fail(row, ProcessorError(_NOTHING_IN_BATCH.format(name=self._name)))
            else:
                ledger.take((result,), row)

    def _chunk(self) -> int:
        """Return how many rows go into the next call of a batch."""
        if self._alone:
            self._alone -= 1
            return 1
        return self._batch_size


class WrongLengthError(ProcessorError):
    """A batch returned another number of results than it was given payloads; running it again won't help."""


class Ledger:
    """What one call of a form has made so far, for the forms that can make several results of a row."""

    __slots__ = ("done", "durations", "failures", "given", "payloads", "rows", "started")

    def __init__(self, given: Sequence[Any]) -> None:
        self.given = given
        self.done = 0
        self.payloads: list[Any] = []
        self.rows: list[int] = []
        self.failures: list[Failure] = []
        self.durations: list[float] = []
        self.started = perf_counter()

    def take(self, results: Sequence[Any], row: int) -> None:
        self.payloads.extend(results)
        self.rows.extend([row] * len(results))

    def fail(self, row: int, error: BaseException) -> None:
        self.failures.append(Failure.of(row, self.given[row], error))

    def outcome(self, replies: list[tuple[Any, Message]], now: float, *, discard: bool) -> Outcome:
        rows: Sequence[int] = self.rows
        if discard:
            self.payloads, rows = [], []
        elif len(rows) == self.done and rows == list(range(self.done)):
            rows = range(self.done)
        return Outcome(
            self.done, self.payloads, rows, self.failures, replies, self.durations, now - self.started
        )


class Plain(Form):
    """`process` as a plain `def`: the result is the new payload."""

    __slots__ = ()

    def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        # The hot loop: what is done here is done for every message. One reading of the clock serves the deadline
        # and the durations; `try` costs nothing; the rows of the results are worked out afterwards.
        call, clock, discard = self._call, perf_counter, self._discard
        results: list[Any] = []
        failures: list[Failure] = []
        stamps = [clock()]
        keep, stamp = results.append, stamps.append
        with collecting() as replies:
            for arguments in self._arguments(payloads, message_of):
                try:
                    result = call(*arguments)
                except BaseException as error:  # noqa: BLE001 - an exception concerns its message alone
                    self._settle(arguments, error, results, failures, len(stamps) - 1)
                else:
                    if result is None and not discard:
                        self._settle(arguments, self._nothing(), results, failures, len(stamps) - 1)
                    else:
                        keep(result)
                stamp(now := clock())
                if now > deadline:
                    break
        return plain_outcome(results, failures, replies, stamps, discard=discard)

    def _settle(
        self,
        arguments: tuple[Any, ...],
        error: BaseException,
        results: list[Any],
        failures: list[Failure],
        row: int,
    ) -> None:
        """Try a row again as often as it may be; enter its result or its failure."""
        for _ in range(self._retries):
            try:
                result = self._call(*arguments)
            except BaseException as again:  # noqa: BLE001
                error = again
            else:
                if result is not None or self._discard:
                    results.append(result)
                    return
                error = self._nothing()
        failures.append(Failure.of(row, arguments[0], error))


def plain_outcome(
    results: list[Any],
    failures: list[Failure],
    replies: list[tuple[Any, Message]],
    stamps: list[float],
    *,
    discard: bool,
) -> Outcome:
    """Return the outcome of a plain form: a result for every row that did not fail; `stamps` are when rows ended."""
    done = len(stamps) - 1
    rows: Sequence[int] = range(done)
    if discard:
        results, rows = [], []
    elif failures:
        failed = {failure.row for failure in failures}
        rows = [row for row in rows if row not in failed]
    durations = [stamps[row + 1] - stamps[row] for row in sampled(done)]
    return Outcome(done, results, rows, failures, replies, durations, stamps[-1] - stamps[0])


class Generator(Form):
    """`process` as a generator: what it yields for a message are its results; ``None`` is a payload like any."""

    __slots__ = ()

    def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        call, clock, discard = self._call, perf_counter, self._discard
        ledger = Ledger(payloads)
        stamps = [ledger.started]
        with collecting() as replies:
            for arguments in self._arguments(payloads, message_of):
                try:
                    # The whole of it before any is taken: a message that fails half-way leaves nothing behind.
                    results = list(call(*arguments))
                except BaseException as error:  # noqa: BLE001
                    results = self._settle(arguments, error, ledger)
                ledger.take(results, ledger.done)
                ledger.done += 1
                stamps.append(now := clock())
                if now > deadline:
                    break
        ledger.durations = [stamps[row + 1] - stamps[row] for row in sampled(ledger.done)]
        return ledger.outcome(replies, stamps[-1], discard=discard)

    def _settle(self, arguments: tuple[Any, ...], error: BaseException, ledger: Ledger) -> list[Any]:
        for _ in range(self._retries):
            try:
                return list(self._call(*arguments))
            except BaseException as again:  # noqa: BLE001
                error = again
        ledger.fail(ledger.done, error)
        return []


class Batch(Form):
    """`process_batch`: one call for up to `batch_size` rows; one that raises is taken apart, row by row."""

    __slots__ = ()

    def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        ledger = Ledger(payloads)
        now = ledger.started
        with collecting() as replies:
            while ledger.done < len(payloads) and (not ledger.done or now <= deadline):
                arguments = self._batch_arguments(payloads, ledger.done, self._chunk(), message_of)
                count, before = len(arguments[0]), now
                if not self._attempt(arguments, ledger):
                    self._alone = count  # take the same rows again, one by one
                    continue
                ledger.done += count
                now = perf_counter()
                ledger.durations.append((now - before) / count)
        return ledger.outcome(replies, perf_counter(), discard=self._discard)

    def _attempt(self, arguments: tuple[list[Any], ...], ledger: Ledger) -> bool:
        """Enter the results or failures of one call; return False if it raised and its rows are to be taken alone."""
        count = len(arguments[0])
        for left in range(self._retries if count == 1 else 0, -1, -1):
            try:
                results = self._batch_results(self._call(*arguments), count)
            except WrongLengthError as error:
                for row in range(ledger.done, ledger.done + count):
                    ledger.fail(row, error)
                return True
            except BaseException as error:  # noqa: BLE001
                if count > 1:
                    return False
                if not left:
                    ledger.fail(ledger.done, error)
                else:
                    arguments = (copy_payload(ledger.given[ledger.done : ledger.done + 1]), *arguments[1:])
            else:
                self._take_batch(results, ledger)
                return True
        return True
