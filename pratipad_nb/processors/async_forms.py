"""The forms of `async def` processors as one coroutine for many rows, run on the flow's event loop.

Owns the loops of ``async def``: each has the order of rows, deadline, retries and failures of its counterpart
in `forms`. The loops differ in two points: the task that runs a coroutine can be cancelled, and a loop gives
the event loop its turn now and then (`_Breath`). Counting and checking results is for `forms` and `returned`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from pratipad_nb.calls import absorb, awaited, settle
from pratipad_nb.processors.forms import BatchForm, Form, Ledger, MessageOf, PlainForm, plain_outcome
from pratipad_nb.processors.keeping import keep_of
from pratipad_nb.processors.outcome import Outcome
from pratipad_nb.processors.reply import collecting
from pratipad_nb.processors.returned import nothing

__all__ = ["AsyncBatch", "AsyncGenerator", "AsyncPlain"]

#: Seconds after which the event loop gets its turn though no row has suspended: a coroutine that never
#: suspends would else hold the event loop until the deadline.
_BREATH = 0.005


class _Breath:
    """Gives the event loop its turn every `_BREATH` seconds."""

    __slots__ = ("_due",)

    def __init__(self, now: float) -> None:
        self._due = now + _BREATH

    async def take(self, now: float) -> None:
        if now > self._due:
            await asyncio.sleep(0)
            self._due = perf_counter() + _BREATH


class _AsyncForm(Form):
    __slots__ = ()

    async def _awaited_again(
        self,
        make: Callable[[], Awaitable[list[Any]]],
        error: BaseException,
        rows: Sequence[int],
        ledger: Ledger,
    ) -> list[Any]:
        """Try `rows` again as often as `retries` allows; return their results, none after a last failure."""
        for _ in self._tries_left(error):
            ledger.retried += 1
            try:
                return await awaited(make())
            except BaseException as again:  # noqa: BLE001 - `absorb` raises a stop of the call
                await absorb(again)
                error = again
        ledger.fail(rows, error)
        return []


class AsyncPlain(PlainForm, _AsyncForm):
    """`process` as an `async def`."""

    __slots__ = ()

    async def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        call, clock, discard = self._call, perf_counter, self._discard
        keep = keep_of(discard=discard)
        ledger = Ledger(payloads)
        stamps = [ledger.started]
        breath = _Breath(ledger.started)
        task = asyncio.current_task()
        cancelling = task.cancelling if task is not None else int
        with collecting() as replies:
            self._watched(ledger, stamps, replies)
            for arguments in self._arguments(payloads, message_of):
                try:
                    result = await call(*arguments)
                    if result is not None:
                        result = keep(result)
                    if cancelling():
                        await settle()
                except BaseException as error:  # noqa: BLE001 - `absorb` raises a stop of the call
                    await absorb(error)
                    await self._settle(arguments, error, ledger, len(stamps) - 1)
                else:
                    if result is None and not discard:
                        await self._settle(arguments, nothing(self._name), ledger, len(stamps) - 1)
                    else:
                        ledger.payloads.append(result)
                stamps.append(now := clock())
                if now > deadline:
                    break
                await breath.take(now)
        return plain_outcome(self._name, ledger, stamps, replies, discard=discard)

    async def _settle(
        self, arguments: tuple[Any, ...], error: BaseException, ledger: Ledger, row: int
    ) -> None:
        make = partial(self._result, arguments)
        ledger.payloads.extend(await self._awaited_again(make, error, (row,), ledger))

    async def _result(self, arguments: tuple[Any, ...]) -> list[Any]:
        return self._only(await self._call(*arguments))


class AsyncGenerator(_AsyncForm):
    """`process` as an asynchronous generator."""

    __slots__ = ()

    async def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        ledger = Ledger(payloads)
        stamps = [ledger.started]
        breath = _Breath(ledger.started)
        with collecting() as replies:
            self._watched(ledger, stamps, replies)
            for arguments in self._arguments(payloads, message_of):
                make = partial(self._call, *arguments)
                try:
                    results = await awaited(make())
                except BaseException as error:  # noqa: BLE001 - `absorb` raises a stop of the call
                    await absorb(error)
                    results = await self._awaited_again(make, error, (ledger.done,), ledger)
                ledger.take(results, ledger.done)
                ledger.done += 1
                stamps.append(now := perf_counter())
                if now > deadline:
                    break
                await breath.take(now)
        ledger.time_rows(stamps)
        return ledger.outcome(replies, discard=self._discard)


class AsyncBatch(BatchForm, _AsyncForm):
    """`process_batch` as an `async def`, or an asynchronous generator of one result for each payload."""

    __slots__ = ()

    async def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        ledger = Ledger(payloads)
        breath = _Breath(ledger.started)
        with collecting() as replies:
            self._watched(ledger, [], replies)
            while ledger.goes_on(deadline):
                rows = self._next_rows(ledger)
                make = partial(self._call_for, rows, ledger, message_of)
                try:
                    made = await awaited(make())
                except BaseException as error:  # noqa: BLE001 - `absorb` raises a stop of the call
                    await absorb(error)
                    if self._takes_apart(rows, error):
                        continue
                    made = await self._awaited_again(make, error, rows, ledger)
                self._enter(made, rows, ledger)
                await breath.take(ledger.now)
        return ledger.outcome(replies, discard=self._discard)

    async def _call_for(self, rows: range, ledger: Ledger, message_of: MessageOf) -> list[Any]:
        return self._made(await self._call(*self._copies(rows, ledger, message_of)), rows)
