"""The forms of `async def` processors as one coroutine for many rows, run on the flow's event loop.

Twins of `forms`: the same order of rows, deadline, retries and failures. They differ in that the task which runs them
can be cancelled, and in that they let the loop breathe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from time import perf_counter
from typing import Any

from pratipad_nb.processors.copying import copy_payload
from pratipad_nb.processors.forms import Form, Ledger, MessageOf, WrongLengthError, plain_outcome
from pratipad_nb.processors.outcome import Failure, Outcome, sampled
from pratipad_nb.processors.reply import collecting

__all__ = ["AsyncBatch", "AsyncGenerator", "AsyncPlain"]

#: Seconds after which the loop gets its turn though no row has waited for anything: a coroutine that never suspends
#: would else hold it for the whole slice.
_BREATH = 0.005


def _stops_us(error: BaseException) -> bool:
    """Tell whether `error` ends our own task, rather than being a processor's failure.

    A `CancelledError` of something the processor awaited, while nobody cancels the task, is the processor's.
    """
    if isinstance(error, GeneratorExit):
        return True
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


class _Breath:
    """Gives the loop its turn now and then."""

    __slots__ = ("_due",)

    def __init__(self, now: float) -> None:
        self._due = now + _BREATH

    async def take(self, now: float) -> None:
        if now > self._due:
            await asyncio.sleep(0)
            self._due = perf_counter() + _BREATH


class AsyncPlain(Form):
    """`process` as an `async def`."""

    __slots__ = ()

    async def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        call, clock, discard = self._call, perf_counter, self._discard
        results: list[Any] = []
        failures: list[Failure] = []
        stamps = [clock()]
        breath = _Breath(stamps[0])
        with collecting() as replies:
            for arguments in self._arguments(payloads, message_of):
                try:
                    result = await call(*arguments)
                except BaseException as error:
                    if _stops_us(error):
                        raise
                    await self._settle(arguments, error, results, failures, len(stamps) - 1)
                else:
                    if result is None and not discard:
                        await self._settle(arguments, self._nothing(), results, failures, len(stamps) - 1)
                    else:
                        results.append(result)
                stamps.append(now := clock())
                if now > deadline:
                    break
                await breath.take(now)
        return plain_outcome(results, failures, replies, stamps, discard=discard)

    async def _settle(
        self,
        arguments: tuple[Any, ...],
        error: BaseException,
        results: list[Any],
        failures: list[Failure],
        row: int,
    ) -> None:
        for _ in range(self._retries):
            try:
                result = await self._call(*arguments)
            except BaseException as again:
                if _stops_us(again):
                    raise
                error = again
            else:
                if result is not None or self._discard:
                    results.append(result)
                    return
                error = self._nothing()
        failures.append(Failure.of(row, arguments[0], error))


class AsyncGenerator(Form):
    """`process` as an asynchronous generator."""

    __slots__ = ()

    async def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        ledger = Ledger(payloads)
        stamps = [ledger.started]
        breath = _Breath(ledger.started)
        with collecting() as replies:
            for arguments in self._arguments(payloads, message_of):
                ledger.take(await self._results(arguments, ledger), ledger.done)
                ledger.done += 1
                stamps.append(now := perf_counter())
                if now > deadline:
                    break
                await breath.take(now)
        ledger.durations = [stamps[row + 1] - stamps[row] for row in sampled(ledger.done)]
        return ledger.outcome(replies, stamps[-1], discard=self._discard)

    async def _results(self, arguments: tuple[Any, ...], ledger: Ledger) -> list[Any]:
        for left in range(self._retries, -1, -1):
            try:
                return [result async for result in self._call(*arguments)]
            except BaseException as error:
                if _stops_us(error):
                    raise
                if not left:
                    ledger.fail(ledger.done, error)
        return []


class AsyncBatch(Form):
    """`process_batch` as an `async def` or an asynchronous generator of one result for each payload."""

    __slots__ = ()

    async def run(self, payloads: Sequence[Any], message_of: MessageOf, deadline: float) -> Outcome:
        """Take the rows in order until all are done or the deadline is over; see `Run`."""
        ledger = Ledger(payloads)
        now = ledger.started
        breath = _Breath(now)
        with collecting() as replies:
            while ledger.done < len(payloads) and (not ledger.done or now <= deadline):
                arguments = self._batch_arguments(payloads, ledger.done, self._chunk(), message_of)
                count, before = len(arguments[0]), now
                if not await self._attempt(arguments, ledger):
                    self._alone = count
                    continue
                ledger.done += count
                now = perf_counter()
                ledger.durations.append((now - before) / count)
                await breath.take(now)
        return ledger.outcome(replies, perf_counter(), discard=self._discard)

    async def _attempt(self, arguments: tuple[list[Any], ...], ledger: Ledger) -> bool:
        count = len(arguments[0])
        for left in range(self._retries if count == 1 else 0, -1, -1):
            try:
                results = self._batch_results(await _returned(self._call(*arguments)), count)
            except WrongLengthError as error:
                for row in range(ledger.done, ledger.done + count):
                    ledger.fail(row, error)
                return True
            except BaseException as error:
                if _stops_us(error):
                    raise
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


async def _returned(called: Any) -> Any:
    if isinstance(called, AsyncIterable):
        return [result async for result in called]
    return await called
