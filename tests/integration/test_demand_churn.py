"""Demand while devices come, go and fail at random: no stall, nothing lost, doubled or overtaken.

The long run takes 12 s, or as long as the environment's ``PRATIPAD_CHURN_SECONDS`` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time

import pytest
from patience import eventually

SECONDS = float(os.environ.get("PRATIPAD_CHURN_SECONDS", "12"))
#: Demand is open, devices are ready, and nothing moves: the run fails after so many seconds of that.
STALL = 2.0
MAX_DEMAND = 40


class Party:
    """One run of a device: what it is told to do, and whether it could bring a message now."""

    def __init__(self, name, kind, serial):
        self.name, self.kind, self.serial = name, kind, serial
        self.numbers = itertools.count(1)
        self.works = asyncio.Event()
        self.works.set()
        self.fails = False
        self.device = None
        self.pushing = None

    async def read(self):
        await self.works.wait()
        if self.fails:
            raise OSError("no answer from the sensor")
        return [self.serial, next(self.numbers)]

    async def push_on(self):
        while True:
            await self.device.push([self.serial, next(self.numbers)])
            await asyncio.sleep(0.02)

    @property
    def ready(self):
        if self.kind == "pushes":
            return self.device.waiting > 0
        return self.works.is_set() and not self.fails


class Churn:
    """A crowd of devices, changed at random; `watch` fails when the flow stalls."""

    def __init__(self, scene, flow, chance):
        self.scene, self.flow, self.chance = scene, flow, chance
        self.parties = {}
        self.serials = itertools.count(1)
        self.taken = {}
        self.events = 0

    async def come(self):
        name = f"d{self.chance.randrange(12)}"
        if name in self.parties:
            await self.go(name)
        kind = self.chance.choice(["quick", "paced", "slow", "pushes"])
        party = Party(name, kind, f"{name}-{next(self.serials)}")
        every = {"paced": 0.03, "slow": 1.0}.get(kind)
        options = {} if kind == "pushes" else {"read": party.read, "every": every}
        party.device = await self.scene.device(self.flow, name, **options)
        if kind == "pushes":
            party.pushing = asyncio.create_task(party.push_on())
        self.parties[name] = party

    async def go(self, name):
        party = self.parties.pop(name)
        if party.pushing is not None:
            party.pushing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await party.pushing
        if self.chance.random() < 0.5:
            await self.scene.kill(party.device)
        with contextlib.suppress(Exception):  # what nobody asked for is given up, and the device says so
            await party.device.close(timeout=0)
        self.scene.gone(party.device)

    async def step(self):
        self.events += 1
        what = self.chance.choices(
            ["come", "go", "fall silent", "fail", "recover", "rate"], [6, 4, 3, 3, 6, 1]
        )[0]
        parties = list(self.parties.values())
        if what == "come" or not parties:
            await self.come()
        elif what == "rate":
            self.flow.rate = self.chance.choice([None, None, 50, 500])
        else:
            party = self.chance.choice(parties)
            if what == "go":
                await self.go(party.name)
            elif what == "fall silent":
                party.works.clear()
            elif what == "fail":
                party.fails = True
            else:
                party.works.set()
                party.fails = False

    async def watch(self):
        """Raise when nothing moves for `STALL` seconds though it could."""
        seen, since = -1, time.monotonic()
        while True:
            stats = self.flow.stats()
            ready = [party.name for party in self.parties.values() if party.ready]
            if stats.received != seen or not ready:
                seen, since = stats.received, time.monotonic()
            if time.monotonic() - since > STALL:
                accounts = {name: self.flow.edge.parts.ledger.accounts.get(name) for name in self.parties}
                raise AssertionError(
                    f"stalled after {self.events} events; ready: {ready}; {stats}; {accounts}"
                )
            assert stats.in_flight <= 2 * MAX_DEMAND
            await asyncio.sleep(0.02)

    async def take(self):
        """Take all that comes and see that each run's messages are consecutive."""
        while True:
            try:
                messages = await self.flow.take(1, timeout=1)
            except TimeoutError:
                continue
            for message in messages:
                serial, number = message.payload
                assert number == self.taken.get(serial, 0) + 1, (serial, number)
                self.taken[serial] = number


async def ends(*tasks):
    """Cancel tasks and raise what one of them has raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def run(scene, seconds, seed):
    async def varying(payload):
        await asyncio.sleep(0.001)
        return payload

    flow = await scene.flow(
        "Demand ~> varying ~> Output", max_demand=MAX_DEMAND, namespace={"varying": varying}
    )
    churn = Churn(scene, flow, random.Random(seed))
    watching = asyncio.create_task(churn.watch())
    taking = asyncio.create_task(churn.take())
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until and not watching.done() and not taking.done():
            await churn.step()
            await asyncio.sleep(churn.chance.uniform(0.01, 0.2))
    finally:
        await ends(watching, taking)
    for name in list(churn.parties):
        await churn.go(name)
    return churn


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("scene", ["nats"], indirect=True)
async def test_demand_never_stalls_while_devices_come_go_and_fail(scene):
    churn = await run(scene, SECONDS, seed=3)
    assert churn.events > SECONDS * 3
    assert sum(churn.taken.values()) > SECONDS * 20
    stats = churn.flow.stats()
    print(
        f"{churn.events} events, {len(churn.taken)} device runs, {stats.received} messages, "
        f"{stats.repeats} repeats"
    )


@pytest.mark.parametrize("scene", ["memory"], indirect=True)
async def test_demand_never_stalls_in_memory_either(scene):
    await run(scene, 3, seed=4)


async def test_a_new_devices_first_message_is_there_before_the_slow_ones_next(scene):
    """Whoever else is slow, silent or quick: nobody's turn is waited for."""

    async def silent():
        await asyncio.Event().wait()

    flow = await scene.flow("Demand ~> same ~> Output", max_demand=100)
    await scene.device(flow, "slow", read=itertools.repeat("slow"), every=20)
    await scene.device(flow, "silent", read=silent)
    await scene.device(flow, "quick", read=itertools.repeat("quick"))
    await flow.take(100)
    await eventually(lambda: received(flow, "slow") == 1)
    for number in range(5):
        name = f"new{number}"
        await scene.device(flow, name, read=itertools.repeat(name))
        await eventually(lambda name=name: received(flow, name))
    assert received(flow, "slow") == 1
    assert received(flow, "silent") == 0


def received(flow, device):
    found = flow.stats().devices.get(device)
    return found.received if found else 0


async def test_a_slow_device_does_not_take_up_the_room(scene):
    flow = await scene.flow("Demand ~> same ~> Output", max_demand=10)
    await scene.device(flow, "slow", read=itertools.count(), every=0.4)
    await eventually(lambda: received(flow, "slow") >= 2)
    await scene.device(flow, "quick", read=itertools.count())
    await flow.take(500, timeout=5)
    assert received(flow, "slow") >= 2


async def test_devices_that_are_equally_quick_get_equal_shares(scene):
    flow = await scene.flow("Demand ~> gate ~> Output", max_demand=12)
    for name in ("a", "b", "c"):
        await scene.device(flow, name, read=itertools.repeat(name))
    await eventually(lambda: len(flow.devices) == 3)
    taken = [message.payload for message in await flow.take(1200)][300:]
    counts = [taken.count(name) for name in "abc"]
    assert min(counts) > 0.5 * max(counts), counts


async def test_a_change_of_the_rate_acts_at_once(scene):
    flow = await scene.flow("Demand ~> same ~> Output", rate=2)
    await scene.device(flow, read=itertools.count())
    await flow.take(2)
    flow.rate = 400
    await flow.take(100, timeout=25)  # at two a second, 100 would take 50 s
    flow.rate = 2
    assert flow.rate == 2
    # Readings that were asked for at the old rate still come.
    await eventually(lambda: not any(a.outstanding for a in flow.edge.parts.ledger.accounts.values()))
    await flow.settled()
    before = flow.stats().received
    await asyncio.sleep(0.6)
    assert flow.stats().received - before <= 3
    flow.rate = None
    await flow.take(1000)


async def test_a_silent_device_is_not_asked_for_ever_more(scene):
    """After its return it owes what it was first asked for, not that times the seconds of its silence."""
    works = asyncio.Event()
    numbers = itertools.count()

    async def read():
        if next(numbers) == 200:
            await works.wait()
        return "odd"

    flow = await scene.flow("Demand ~> same ~> Output", max_demand=8)
    odd = await scene.device(flow, "odd", read=read)
    await scene.device(flow, "even", read=itertools.repeat("even"), every=0.01)
    await eventually(lambda: received(flow, "odd") == 200)
    await asyncio.sleep(1.6)  # late after one; twenty askings a second would follow
    assert odd._credit.total - odd.sent <= 8
    works.set()
    await eventually(lambda: received(flow, "odd") > 300)
