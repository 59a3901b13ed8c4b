"""A device has run orders which the order log lost, as the log went back: later orders reach it, once."""

from __future__ import annotations

import pytest
from patience import eventually

from pratipad_nb.transport.memory_broker import Broker
from pratipad_nb.transport.parties import Party

#: The store of a server that many tests share can't go back.
pytestmark = pytest.mark.parametrize("scene", ["memory"], indirect=True)
NOTATION = "Push <~> same <~> Output"


def broker_of(scene):
    return Broker.named(scene._where["server"].removeprefix("memory://"))


async def test_orders_after_a_restored_store_reach_a_device_that_is_ahead_once(scene, caplog):
    flow = await scene.flow(NOTATION)
    broker, run = broker_of(scene), []
    await scene.device(flow, "a", receive=run.append)
    await eventually(lambda: flow.devices)
    for number in range(3):
        await flow.send(number, to="a")
    await eventually(lambda: run == [0, 1, 2])
    backup = broker.copied_store()
    for number in range(3, 8):
        await flow.send(number, to="a")
    await eventually(lambda: run == list(range(8)))
    broker.restart(backup)
    await eventually(lambda: "begins anew" in caplog.text and flow.state == "running")
    for number in range(8, 11):
        await flow.send(number, to="a")
    await eventually(lambda: run == list(range(11)))
    await eventually(lambda: flow.stats().backward.waiting == 0)
    assert run == list(range(11))


async def test_orders_that_came_back_with_the_log_are_not_run_again(scene, caplog):
    flow = await scene.flow(NOTATION)
    broker, run = broker_of(scene), []
    await scene.device(flow, "a", receive=run.append)
    await eventually(lambda: flow.devices)
    await flow.send("first", to="a")
    await eventually(lambda: run == ["first"])
    broker.cut(Party(flow.name, "device", "a").identity)
    for number in range(4):
        await flow.send(number, to="a")
    backup = broker.copied_store()
    broker.heal(Party(flow.name, "device", "a").identity)
    await flow.send("lost", to="a")
    await eventually(lambda: run == ["first", 0, 1, 2, 3, "lost"])
    broker.restart(backup)
    await eventually(lambda: "begins anew" in caplog.text and flow.state == "running")
    await flow.send(4, to="a")
    await eventually(lambda: run == ["first", 0, 1, 2, 3, "lost", 4])
    await eventually(lambda: flow.stats().backward.waiting == 0)
    assert run == ["first", 0, 1, 2, 3, "lost", 4]


async def test_an_order_log_that_grew_past_a_devices_number_loses_none_of_its_orders(scene):
    flow = await scene.flow(NOTATION)
    broker, run, others = broker_of(scene), [], []
    await scene.device(flow, "a", receive=run.append)
    await scene.device(flow, "b", receive=others.append)
    await eventually(lambda: len(flow.devices) == 2)
    backup = broker.copied_store()
    for number in range(5):
        await flow.send(number, to="a")
    await eventually(lambda: run == list(range(5)))
    broker.cut(Party(flow.name, "device", "a").identity)
    await flow.stop()
    broker.restart(backup)
    await flow.start()
    for number in range(5, 9):
        await flow.send(number, to="a")
    for number in range(9):
        await flow.send(number, to="b")
    await eventually(lambda: others == list(range(9)))
    broker.heal(Party(flow.name, "device", "a").identity)
    await eventually(lambda: run == list(range(9)))
    await flow.send(9, to="a")
    await eventually(lambda: run == list(range(10)))


async def test_a_numbering_that_a_device_has_left_is_not_gone_back_to(scene):
    flow = await scene.flow(NOTATION)
    broker, run = broker_of(scene), []
    await scene.device(flow, "a", receive=run.append)
    await eventually(lambda: flow.devices)
    backup = broker.copied_store()
    done = 0
    for _ in range(2):
        for _ in range(3):
            await flow.send(done, to="a")
            done += 1
        await eventually(lambda: run == list(range(done)))  # noqa: B023 - waited for here
        await flow.stop()
        broker.restart(backup)
        await flow.start()
    await flow.send(done, to="a")
    await eventually(lambda: run == list(range(done + 1)))
