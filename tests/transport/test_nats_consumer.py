"""Pull consumers at a real server: what is no delivery of theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pratipad_nb.transport.protocol import ConsumerSpec, LogSpec
from pratipad_nb.transport.subjects import Subjects

SUBJECTS = Subjects("house")
OUTPUT = LogSpec(SUBJECTS.output_stream, (SUBJECTS.out_all,), 1 << 20, "log")


@pytest.mark.parametrize("transport", ["nats"], indirect=True)
async def test_deliveries_of_another_consumer_that_a_party_sends_here_are_no_deliveries(
    transport: Any,
) -> None:
    connection = await transport.connect()
    log = await connection.open_log(OUTPUT)
    for number in range(3):
        await connection.append(SUBJECTS.out(0), b"%d" % number)
    mine = await log.consumer(ConsumerSpec("mine", "all"))
    await log.consumer(ConsumerSpec("other", "all"))
    mine.acknowledge((await mine.get())[-1])
    ask = f"$JS.API.CONSUMER.MSG.NEXT.{OUTPUT.name}.other"
    await connection.publish(ask, json.dumps({"batch": 3, "no_wait": True}).encode(), reply=mine._inbox)
    await connection.append(SUBJECTS.out(0), b"3")
    assert [(each.data, each.token.split(".")[3]) for each in await mine.get()] == [(b"3", "mine")]
