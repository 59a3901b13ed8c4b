"""The forms of `def` processors as one call for many rows: the tight loops that run on a worker thread.

Owns the order of rows, the deadline, retries, failures and how results are counted. Which form a callable
has, and its wrappers (validation, private copies), is for `adapter`. The forms of `async def` are in
`async_forms`.

The invariant of a ledger: its rows before `done` have their results or their failure, and the rows from
`done` on have neither. A row's results are entered in one step after its call has returned all of them, so a
call that raises leaves no part of its results behind. A plain form counts its finished rows by the length of
`stamps` alone, for speed, and sets `done` at its end: there is one stamp for the start, and one for each
finished row. When a call is late, `_so_far` fails its row, the first without a stamp, or the rows of its
batch (`begun`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from pratipad_nb.calls import LeftBehind, TimeLimit, left_behind
from pratipad_nb.message import Message
from pratipad_nb.processors.copying import copy_payload
from pratipad_nb.processors.keeping import keep_of
from pratipad_nb.processors.outcome import Failure, Outcome, sampled
from pratipad_nb.processors.reply import collecting
from pratipad_nb.processors.returned import (
    WrongResultError,
    batch_results,
    is_unawaited,
    nothing,
    nothing_in_batch,
    run_out,
    unawaited,
)

__all__ = [
    "Batch",
    "BatchForm",
    "Form",
    "Generator",
    "Ledger",
    "MessageOf",
    "Plain",
    "PlainForm",
    "plain_outcome",
]

#: Returns the message of a row; called only for a processor that takes the message.
MessageOf = Callable[[int], Message]

#: How many results of a call are checked for being coroutines and the like.
_LOOKED_AT = 16
#: Classes of results that stand for themselves, in every form. `Raw` is a result that is encoded already.
_ONE_RESULT = frozenset({bool, bytes, dict, float, int, Raw, str})


class Form:
    """The base class of all forms: the user's callable and how it is to be called.

    Parameters
    ----------
    call
        Takes a payload, and the message when `with_message`; for a batch, lists of both. A generator's
        returns a list, and so does a batch's: of results that `keeping` has made the flow's own.
    name
        Name of the processor, for errors.
    retries
        How many more times a row is tried whose processing raised.
    discard
        Whether the processor is a member of braces: its results are dropped, and ``None`` is a result.
    with_message
        Whether `call` takes the message as its second argument.
    batch_size
        Most rows for one call, where the form is a batch.
    limit
        Limits the calls; `call` is wrapped for this limit already. None: calls have no time limit.
    """

    __slots__ = ("_alone", "_batch_size", "_call", "_discard", "_limit", "_name", "_retries", "_with_message")

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        name: str,
        retries: int = 0,
        discard: bool = False,
        with_message: bool = False,
        batch_size: int = 1024,
        limit: TimeLimit | None = None,
    ) -> None:
        self._call = call
        self._name = name
        self._retries = retries
        self._discard = discard
        self._with_message = with_message
        self._batch_size = batch_size
        self._limit = limit
        self._alone = 0  # rows of a batch that raised which are still to be called one by one

    def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Any:
        """Return the outcome of many rows; the forms of ``async def`` return an awaitable of the outcome."""
        raise NotImplementedError

    def _watched(self, ledger: Ledger, stamps: list[float], replies: list[tuple[Any, Message]]) -> None:
        """Let the limit rescue the outcome so far if a call of the user's function is late."""
        if self._limit is not None:
            self._limit.rescue = partial(self._so_far, ledger, stamps, replies)

    def _so_far(
        self,
        ledger: Ledger,
        stamps: Sequence[float],
        replies: Sequence[tuple[Any, Message]],
        error: Exception,
    ) -> Outcome:
        """Return the outcome of the rows before a late call; the rows of that call fail with `error`.

        Runs on the event loop, under the limit's lock, while the thread that works on `ledger` is in the late
        call. A copy of the ledger is returned, so that later work of the thread isn't seen.
        """
        ledger = ledger.copy()
        if stamps:
            ledger.fail((len(stamps) - 1,), error)
            ledger.time_rows([*stamps, perf_counter()])
        else:
            ledger.fail(ledger.begun, error)
            ledger.finish(len(ledger.begun))
        return ledger.outcome(list(replies), discard=self._discard)

    def _arguments(self, payloads: Sequence[Any], message_of: MessageOf) -> Iterable[tuple[Any, ...]]:
        if self._with_message:
            return zip(payloads, map(message_of, range(len(payloads))), strict=True)
        return zip(payloads)

    def _tries_left(self, error: BaseException) -> range:
        """Return a range of as many tries as rows have left that raised `error`."""
        return range(0 if isinstance(error, (WrongResultError, LeftBehind)) else self._retries)

    def _again(
        self, make: Callable[[], list[Any]], error: BaseException, rows: Sequence[int], ledger: Ledger
    ) -> list[Any]:
        """Try `rows` again as often as `retries` allows; return their results, none after a last failure."""
        for _ in self._tries_left(error):
            if left_behind():
                break
            ledger.retried += 1
            try:
                return make()
            except BaseException as again:  # noqa: BLE001
                error = again
        ledger.fail(rows, error)
        return []


class Ledger:
    """The results and failures of one call of a form so far."""

    __slots__ = (
        "begun",
        "done",
        "durations",
        "failures",
        "given",
        "now",
        "payloads",
        "retried",
        "rows",
        "started",
    )

    def __init__(self, given: Sequence[Any]) -> None:
        self.given = given
        self.begun = range(0)  # the rows of the batch's call in progress
        self.done = 0
        self.retried = 0
        self.payloads: list[Any] = []
        self.rows: list[int] = []
        self.failures: list[Failure] = []
        self.durations: list[float] = []
        self.started = self.now = perf_counter()

    def copy(self) -> Ledger:
        """Return a copy of the ledger, which later entries don't change."""
        copy = Ledger(self.given)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(copy, name, list(value) if isinstance(value, list) and name != "given" else value)
        return copy

    def take(self, results: Sequence[Any], row: int) -> None:
        """Enter the results of a row."""
        self.payloads.extend(results)
        self.rows.extend([row] * len(results))

    def fail(self, rows: Iterable[int], error: BaseException) -> None:
        """Enter `rows` as failed."""
        self.failures.extend([Failure.of(row, self.given[row], error) for row in rows])

    def goes_on(self, deadline: float) -> bool:
        """Return whether a further batch is to be begun."""
        return self.done < len(self.given) and (not self.done or self.now <= deadline)

    def finish(self, count: int) -> None:
        """Note that a batch of `count` rows is done."""
        before, self.now = self.now, perf_counter()
        self.done += count
        self.durations.append((self.now - before) / count)

    def time_rows(self, stamps: Sequence[float]) -> None:
        """Note how long rows took, from the times at which each row ended; the first time is the start."""
        self.done, self.now = len(stamps) - 1, stamps[-1]
        self.durations = [stamps[row + 1] - stamps[row] for row in sampled(self.done)]

    def outcome(self, replies: list[tuple[Any, Message]], *, discard: bool) -> Outcome:
        """Return the outcome of all entries."""
        rows: Sequence[int] = self.rows
        if len(rows) == self.done and rows == list(range(self.done)):
            rows = range(self.done)
        return self.outcome_of(rows, replies, discard=discard)

    def outcome_of(
        self, rows: Sequence[int], replies: list[tuple[Any, Message]], *, discard: bool
    ) -> Outcome:
        """Return the outcome of all entries; `rows` are the rows of the results."""
        payloads = self.payloads
        if discard:
            payloads, rows = [], []
        elapsed = self.now - self.started
        return Outcome(
            self.done, payloads, rows, self.failures, replies, self.durations, elapsed, self.retried
        )


class PlainForm(Form):
    """The base class of the two forms of a plain `process`."""

    __slots__ = ()

    def _only(self, result: Any) -> list[Any]:
        """Return the one result that a call returned, in a list."""
        if result is None and not self._discard:
            raise nothing(self._name)
        return [keep_of(discard=self._discard)(result)]

    def _so_far(
        self,
        ledger: Ledger,
        stamps: Sequence[float],
        replies: Sequence[tuple[Any, Message]],
        error: Exception,
    ) -> Outcome:
        ledger = ledger.copy()
        ledger.fail((len(stamps) - 1,), error)
        stamps = [*stamps, perf_counter()]
        return plain_outcome(self._name, ledger, stamps, list(replies), discard=self._discard)


class Plain(PlainForm):
    """`process` as a plain `def`: the result is the new payload."""

    __slots__ = ()

    def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        # The hot loop: every statement here runs for every message. One reading of the clock serves the
        # deadline and the durations; `try` costs nothing; the results' rows are made after the loop.
        call, clock, discard = self._call, perf_counter, self._discard
        keep = keep_of(discard=discard)
        ledger = Ledger(payloads)
        stamps = [ledger.started]
        enter, stamp = ledger.payloads.append, stamps.append
        with collecting() as replies:
            self._watched(ledger, stamps, replies)
            for arguments in self._arguments(payloads, message_of):
                try:
                    result = call(*arguments)
                    if result is not None:
                        result = keep(result)
                except BaseException as error:  # noqa: BLE001 - an exception concerns its message alone
                    self._settle(arguments, error, ledger, len(stamps) - 1)
                else:
                    if result is None and not discard:
                        self._settle(arguments, nothing(self._name), ledger, len(stamps) - 1)
                    else:
                        enter(result)
                stamp(now := clock())
                if now > deadline:
                    break
        return plain_outcome(self._name, ledger, stamps, replies, discard=discard)

    def _settle(self, arguments: tuple[Any, ...], error: BaseException, ledger: Ledger, row: int) -> None:
        ledger.payloads.extend(self._again(partial(self._result, arguments), error, (row,), ledger))

    def _result(self, arguments: tuple[Any, ...]) -> list[Any]:
        return self._only(self._call(*arguments))


def plain_outcome(
    name: str, ledger: Ledger, stamps: Sequence[float], replies: list[tuple[Any, Message]], *, discard: bool
) -> Outcome:
    """Return the outcome of a plain form: a result for every row that did not fail.

    `stamps` are the times at which rows ended, after the start.
    """
    ledger.time_rows(stamps)
    rows = _without_failed(ledger)
    # Checking some results is cheap, and a processor that returns a coroutine mostly returns nothing else.
    # Output refuses a coroutine that isn't among the checked results.
    some = ledger.payloads[:: 1 + len(ledger.payloads) // _LOOKED_AT]
    if not _ONE_RESULT.issuperset(map(type, some)) and any(is_unawaited(type(result)) for result in some):
        _fail_unawaited(name, ledger, rows)
        rows = _without_failed(ledger)
    return ledger.outcome_of(rows, replies, discard=discard)


def _without_failed(ledger: Ledger) -> Sequence[int]:
    if not ledger.failures:
        return range(ledger.done)
    failed = {failure.row for failure in ledger.failures}
    return [row for row in range(ledger.done) if row not in failed]


def _fail_unawaited(name: str, ledger: Ledger, rows: Sequence[int]) -> None:
    results, ledger.payloads = ledger.payloads, []
    for row, result in zip(rows, results, strict=True):
        if is_unawaited(type(result)):
            ledger.fail((row,), unawaited(name, result))
        else:
            ledger.payloads.append(result)
    ledger.failures.sort(key=lambda failure: failure.row)


class Generator(Form):
    """`process` as a generator, which yields a message's results; ``None`` is a payload like any other."""

    __slots__ = ()

    def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        call, clock = self._call, perf_counter
        ledger = Ledger(payloads)
        stamps = [ledger.started]
        with collecting() as replies:
            self._watched(ledger, stamps, replies)
            for arguments in self._arguments(payloads, message_of):
                try:
                    # All results before any is taken: a message that fails half-way leaves no result behind.
                    results = call(*arguments)
                except BaseException as error:  # noqa: BLE001
                    results = self._again(partial(call, *arguments), error, (ledger.done,), ledger)
                ledger.take(results, ledger.done)
                ledger.done += 1
                stamps.append(now := clock())
                if now > deadline:
                    break
        ledger.time_rows(stamps)
        return ledger.outcome(replies, discard=self._discard)


#: Results of a batch, the row of each result, and the rows for which the batch gave None.
_Made = tuple[Sequence[Any], Sequence[int], Sequence[int]]


class BatchForm(Form):
    """The base class of the two forms of `process_batch`.

    A batch that raises is taken apart: its rows are called one by one. So a failure concerns its row alone.
    """

    __slots__ = ()

    def _next_rows(self, ledger: Ledger) -> range:
        """Return the rows of the next call."""
        count = self._batch_size
        if self._alone:
            self._alone -= 1
            count = 1
        ledger.begun = range(ledger.done, min(ledger.done + count, len(ledger.given)))
        return ledger.begun

    def _takes_apart(self, rows: range, error: BaseException) -> bool:
        """Return whether `rows`, for which the batch raised `error`, are to be called again, one by one."""
        if len(rows) == 1 or isinstance(error, (WrongResultError, LeftBehind)) or left_behind():
            return False
        self._alone = len(rows)
        return True

    def _copies(self, rows: range, ledger: Ledger, message_of: MessageOf) -> tuple[list[Any], ...]:
        """Return copies of the payloads, and of the messages if the batch takes them, for one call."""
        # Copies: a batch that raises is called again row by row, and may have changed payloads by then.
        payloads = [copy_payload(ledger.given[row]) for row in rows]
        if not self._with_message:
            return (payloads,)
        messages = [replace(message_of(row), payload=p) for row, p in zip(rows, payloads, strict=True)]
        return payloads, messages

    def _made(self, returned: object, rows: range) -> list[_Made]:
        """Return the results of a batch for `rows`, in a list of one; no list where results are dropped."""
        if self._discard:
            run_out(self._name, returned)
            return []
        results = batch_results(self._name, returned, len(rows))
        if _ONE_RESULT.issuperset(map(type, results)):  # the common case, in C
            return [(results, rows, ())]
        payloads: list[Any] = []
        numbers: list[int] = []
        empty: list[int] = []
        for row, result in zip(rows, results, strict=True):
            if result is None:
                empty.append(row)
                continue
            several = list(result) if isinstance(result, list) else (result,)
            payloads.extend(several)
            numbers.extend([row] * len(several))
        return [(payloads, numbers, empty)]

    def _enter(self, made: list[_Made], rows: range, ledger: Ledger) -> None:
        for payloads, numbers, empty in made:
            ledger.payloads.extend(payloads)
            ledger.rows.extend(numbers)
            ledger.fail(empty, nothing_in_batch(self._name))
        ledger.finish(len(rows))


class Batch(BatchForm):
    """`process_batch`: one call for up to `batch_size` rows; a batch that raises is taken apart."""

    __slots__ = ()

    def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        ledger = Ledger(payloads)
        with collecting() as replies:
            self._watched(ledger, [], replies)
            while ledger.goes_on(deadline):
                rows = self._next_rows(ledger)
                make = partial(self._call_for, rows, ledger, message_of)
                try:
                    made = make()
                except BaseException as error:  # noqa: BLE001
                    if self._takes_apart(rows, error):
                        continue
                    made = self._again(make, error, rows, ledger)
                self._enter(made, rows, ledger)
        return ledger.outcome(replies, discard=self._discard)

    def _call_for(self, rows: range, ledger: Ledger, message_of: MessageOf) -> list[_Made]:
        return self._made(self._call(*self._copies(rows, ledger, message_of)), rows)
