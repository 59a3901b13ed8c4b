"""What was returned, yielded, sent or pushed is what arrives, on both transports."""

from __future__ import annotations

import asyncio

from patience import eventually

from pratipad_nb import AsyncGateway, every, preview, reply


async def arrived(flow, count):
    return [message.payload for message in await flow.take(count, timeout=30)]


class Totals:
    """Returns the same table each time."""

    def __init__(self):
        self.totals = {"by": {}}

    def process(self, reading):
        by = self.totals["by"]
        by[reading["room"]] = by.get(reading["room"], 0) + 1
        return self.totals


class Pairs:
    """Yields its buffer when it is full, and clears the buffer."""

    def __init__(self):
        self.buffer = []

    async def process(self, reading):
        self.buffer.append(reading)
        if len(self.buffer) == 2:
            yield self.buffer
            self.buffer.clear()


TOTALS = [{"by": {"a": 1}}, {"by": {"a": 2}}, {"by": {"a": 3}}, {"by": {"a": 4}}]


async def test_a_table_that_is_returned_each_time_arrives_as_it_was_each_time(scene):
    flow = await scene.flow("Push ~> Totals ~> Output", namespace={"Totals": Totals})
    device = await scene.device(flow)
    for _ in range(4):
        await device.push({"room": "a"})
    assert await arrived(flow, 4) == TOTALS


async def test_a_table_reaches_the_next_processor_as_it_was_too(scene):
    def worse(totals):
        totals["by"]["a"] += 100
        return totals

    flow = await scene.flow("Push ~> [Totals, worse] ~> Output", namespace={"Totals": Totals, "worse": worse})
    device = await scene.device(flow)
    for _ in range(4):
        await device.push({"room": "a"})
    assert [payload["by"]["a"] for payload in await arrived(flow, 4)] == [101, 102, 103, 104]


async def test_a_buffer_that_is_yielded_and_cleared_arrives_full(scene):
    flow = await scene.flow("Push ~> Pairs ~> Output", namespace={"Pairs": Pairs})
    device = await scene.device(flow)
    for number in range(6):
        await device.push(number)
    assert await arrived(flow, 3) == [[0, 1], [2, 3], [4, 5]]


async def test_a_processor_sees_no_change_of_a_later_one_in_the_reading_that_it_keeps(scene):
    class A:
        def __init__(self):
            self.last = None

        def process(self, reading):
            before, self.last = self.last, reading
            reading["before"] = before and before["tags"]
            return reading

    async def b(reading):
        reading["tags"].append("b")
        return reading

    flow = await scene.flow("Push ~> [A, b] ~> Output", namespace={"A": A, "b": b})
    device = await scene.device(flow)
    for _ in range(3):
        await device.push({"tags": []})
    assert await arrived(flow, 3) == [
        {"tags": ["b"], "before": None},
        {"tags": ["b"], "before": []},
        {"tags": ["b"], "before": []},
    ]


async def test_a_timer_changes_nothing_that_was_returned_before(scene):
    class Cleared:
        def __init__(self):
            self.rows = []

        def process(self, reading):
            self.rows.append(reading)
            return self.rows

        @every(0.001)
        def clear(self):
            self.rows.clear()

    flow = await scene.flow("Push ~> Cleared ~> gate ~> Output", namespace={"Cleared": Cleared})
    scene.gate.open.clear()
    device = await scene.device(flow)
    receipts = [await device.push(number) for number in range(20)]
    await eventually(lambda: scene.gate.at_work)
    scene.gate.open.set()
    assert [payload[-1] for payload in await arrived(flow, len(receipts))] == list(range(20))


async def test_the_samples_of_each_processor_show_what_it_returned(scene):
    flow = await scene.flow("Push ~> [Totals, Totals] ~> Output", namespace={"Totals": Again})
    device = await scene.device(flow)
    for _ in range(3):
        await device.push({"room": "a", "by": 0})
    assert len(await arrived(flow, 3)) == 3
    assert [sample.results[0]["by"] for sample in flow["Totals"].samples()] == [1, 2, 3]
    assert [sample.results[0]["by"] for sample in flow["Totals#2"].samples()] == [1, 3, 6]


class Again:
    """Adds up, in the table that it returns each time."""

    def __init__(self):
        self.table = {"by": 0}

    def process(self, reading):
        self.table["by"] += max(1, reading["by"])
        return self.table


def test_a_preview_shows_what_each_processor_returned():
    class Cleared:
        buffer: list[int] = []

        def process(self, reading):
            self.buffer.append(reading)
            yield self.buffer
            self.buffer.clear()

    shown = preview("Push ~> [Cleared, Totals] ~> Output", [1, 2], {"Cleared": Cleared, "Totals": Counted})
    assert shown["Cleared"].results == [[1], [2]]
    assert shown["Totals"].results == [{"seen": [[1]]}, {"seen": [[1], [2]]}]
    assert shown.output == shown["Totals"].results


class Counted:
    def __init__(self):
        self.table = {"seen": []}

    def process(self, reading):
        self.table["seen"].append(reading)
        return self.table


async def test_orders_and_replies_arrive_as_they_were_when_they_were_sent(scene):
    class Answers:
        def __init__(self):
            self.order, self.answer = {"n": []}, {"led": None}

        def process(self, reading, message):
            self.answer["led"] = reading
            reply(self.answer, to=message)
            self.answer["led"] = "changed"
            return reading

        def backward(self, order):
            self.order["n"].append(order["n"])
            return self.order

    flow = await scene.flow("Push <~> Answers <~> Output", namespace={"Answers": Answers})
    orders = []
    device = await scene.device(flow, receive=orders.append)
    await eventually(lambda: "room1" in flow.devices)
    await (await device.push(1))
    await (await device.push(2))
    await eventually(lambda: len(orders) == 2)
    order = {"n": 0}
    for number in range(3):
        order["n"] = number
        sending = asyncio.create_task(flow.send(order, to="room1"))
        await asyncio.sleep(0)
        order["n"] = "changed"
        await sending
    await eventually(lambda: len(orders) == 5)
    assert orders == [{"led": 1}, {"led": 2}, {"n": [0]}, {"n": [0, 1]}, {"n": [0, 1, 2]}]


async def test_an_order_that_a_processor_changed_and_failed_on_is_kept_as_it_was_sent(scene):
    class Picky:
        def process(self, reading):
            return reading

        def backward(self, order):
            order["tried"] = True
            raise ValueError("no")

    flow = await scene.flow("Push <~> Picky <~> Output", namespace={"Picky": Picky})
    await scene.device(flow, receive=print)
    await eventually(lambda: "room1" in flow.devices)
    await flow.send({"n": 1}, to="room1")
    await eventually(lambda: flow.stats().backward.failed)
    assert [letter.payload for letter in await flow.dead_letters()] == [{"n": 1}]


async def test_each_device_behind_a_gateway_gets_an_order_of_its_own(scene):
    orders = []

    def receive(order, device):
        order["to"].append(device)
        orders.append(order)

    flow = await scene.flow("Push <~> same <~> Output")
    async with await AsyncGateway("gw", receive=receive).connect(flow) as gateway:
        await eventually(lambda: "gw" in flow.devices)
        await flow.send({"to": []}, to=["gw.a", "gw.b"])
        await eventually(lambda: len(orders) == 2)
        assert orders == [{"to": ["a"]}, {"to": ["b"]}]
        await gateway.close()


async def test_a_pushed_payload_may_be_changed_afterwards(scene, tmp_path):
    flow = await scene.flow("Push ~> gate ~> Output")
    scene.gate.open.clear()
    devices = [await scene.device(flow), await scene.device(flow, "kept", keep=tmp_path)]
    payload = {"rows": []}
    async with await AsyncGateway("gw").connect(flow) as gateway:
        devices += [gateway, gateway.device("t1")]
        for device in devices:
            payload["rows"].append(device.name)
            await device.push(payload)
            payload["rows"].clear()
        scene.gate.open.set()
        found = await arrived(flow, 4)
    assert sorted(found, key=str) == [{"rows": [name]} for name in ("gw", "gw.t1", "kept", "room1")]


async def test_a_result_that_can_not_travel_is_refused_at_output_as_before(scene):
    class Mixed:
        def process(self, reading):
            return {"n": reading} if reading % 2 else {"n": object}

    flow = await scene.flow("Push ~> Mixed ~> Output", namespace={"Mixed": Mixed})
    device = await scene.device(flow)
    for number in range(4):
        await device.push(number)
    assert await arrived(flow, 2) == [{"n": 1}, {"n": 3}]
    await flow.settled()
    letters = await flow.dead_letters()
    assert [letter.processor for letter in letters] == ["Output", "Output"]
    assert "{'n': <class 'object'>}" in letters[0].payload
