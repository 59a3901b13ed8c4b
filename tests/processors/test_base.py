"""The marks and defaults of the base class, `reply` outside of a call, and the public names."""

from __future__ import annotations

import asyncio
import math

import pytest

from pratipad_nb import processors
from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import adapt, every, reply
from pratipad_nb.processors.base import period_of
from pratipad_nb.processors.outcome import TRACEBACK_CHARACTERS, Failure
from pratipad_nb.processors.reply import collecting
from pratipad_nb.wording import ERROR_CHARACTERS

MESSAGE = Message(payload=1, id="a-1-1", device="a", time=0.0, received=0.0, flow="house")


@pytest.mark.parametrize("seconds", [0, -1, "1", None, True, math.nan])
def test_a_period_that_is_none_is_refused(seconds):
    with pytest.raises(ProcessorError, match="greater than 0"):
        every(seconds)


def test_a_marked_method_knows_its_period_and_others_have_none():
    assert period_of(every(2)(lambda self: None)) == 2.0
    assert period_of(test_a_period_that_is_none_is_refused) is None


def test_reply_outside_of_a_processor_says_what_to_do():
    with pytest.raises(ProcessorError, match=r"flow\.send"):
        reply(1, to=MESSAGE)


def test_reply_to_something_else_than_a_message_is_refused():
    with collecting(), pytest.raises(ProcessorError, match="named `message`"):
        reply(1, to="room1")


async def test_reply_of_a_task_that_outlives_its_call_is_refused_rather_than_lost():
    go_on = asyncio.Event()
    tasks = []

    async def late(message):
        await go_on.wait()
        reply("late", to=message)

    async def process(payload, message):
        tasks.append(asyncio.ensure_future(late(message)))
        return payload

    await adapt(process).run([1], lambda row: MESSAGE, math.inf)
    go_on.set()
    with pytest.raises(ProcessorError, match="outlives"):
        await tasks[0]


def test_a_failure_is_bounded_and_keeps_the_end_of_its_traceback():
    failure = Failure.of(0, 1, ValueError("x" * 100_000 + "END"))
    assert len(failure.error) == ERROR_CHARACTERS
    assert len(failure.traceback) == TRACEBACK_CHARACTERS
    assert failure.traceback.rstrip().endswith("END")


def test_an_exception_that_can_not_be_printed_is_a_failure_all_the_same():
    class RudeError(Exception):
        def __str__(self):
            raise RuntimeError

    assert Failure.of(0, 1, RudeError()).error.startswith("RudeError: (its text can't be had")


def test_public_names_are_sorted_and_there():
    assert processors.__all__ == sorted(processors.__all__)
    assert all(hasattr(processors, name) for name in processors.__all__)
