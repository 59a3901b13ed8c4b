"""State that follows its keys: counts are right after any change of the number of instances."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter, defaultdict

import pytest
from patience import eventually

from pratipad_nb import AsyncGateway, Deadband, FlowOptions, Keyed, Processor, Window
from pratipad_nb.errors import FlowError, ProcessorError

in_memory = pytest.mark.parametrize("scene", ["memory"], indirect=True)


def counts(instances, *, key=None, keyed=True):
    """Return a class of so many instances that counts messages by device, or by the payload's `key`."""

    class Counts(Processor):
        concurrency = instances
        partition_by = key or "device"

        def __init__(self):
            self.counts = {}

        def process(self, payload, message):
            by = payload[key] if key else message.device
            self.counts[by] = self.counts.get(by, 0) + 1
            return payload | {"count": self.counts[by]}

        def snapshot(self):
            return Keyed(self.counts) if keyed else self.counts

        def restore(self, state):
            assert type(state) is dict
            self.counts = state

    return Counts


def same(payload):
    return payload


class Load:
    """Devices, half of them behind a gateway, that push until they are told to stop."""

    def __init__(self, scene, flow, rooms=3):
        self._scene, self._flow, self._rooms = scene, flow, rooms
        self._stop = asyncio.Event()
        self.pushed = Counter()

    async def __aenter__(self):
        self._gateway = await AsyncGateway("roof").connect(self._flow)
        devices = [await self._scene.device(self._flow, f"room{n}") for n in range(6)]
        devices += [self._gateway.device(f"d{n}") for n in range(6)]
        self._tasks = [asyncio.create_task(self._push(device)) for device in devices]
        return self

    async def _push(self, device):
        for n in itertools.count():
            if self._stop.is_set():
                return
            await device.push({"room": n % self._rooms})
            self.pushed[device.name] += 1
            await asyncio.sleep(0.001)

    async def some(self, n=5):
        """Wait until every device has pushed `n` messages more."""
        before = self.pushed.copy()
        while len(self.pushed) < 12 or any(self.pushed[name] < before[name] + n for name in self.pushed):
            await asyncio.sleep(0.001)

    async def __aexit__(self, *error):
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self._gateway.close()


async def check(flow, pushed):
    """Check that every device's counts are those of its messages, in their order."""
    found = defaultdict(list)
    for message in await flow.take(sum(pushed.values()), timeout=30):
        found[message.device].append(message.payload["count"])
    assert found == {device: list(range(1, count + 1)) for device, count in pushed.items()}


@pytest.mark.parametrize("notation", ["Push ~> C ~> Output", "Push ~> [same, C] ~> {same, same} ~> Output"])
async def test_counts_by_device_are_right_at_2_5_1_and_3_instances_under_load(scene, notation):
    flow = await scene.flow(notation, namespace={"C": counts(2), "same": same})
    async with Load(scene, flow) as load:
        for instances in (5, 1, 3):
            await load.some()
            receipt = await flow.update(notation, {"C": counts(instances), "same": same})
            (move,) = receipt.states
            assert (move.processor, move.instances, move.lost) == ("C", instances, "")
            assert f"state of C: {move.keys} keys over {instances} instance" in repr(receipt)
        await load.some()
    await check(flow, load.pushed)
    assert sum(len(r.adapted.snapshot()) for r in flow.lines[0].runners_of("C")) == 12


@in_memory
@pytest.mark.parametrize("seed", range(3))
async def test_counts_are_right_after_any_changes_also_by_a_restart(scene, seed):
    some = random.Random(seed)
    notations = ["Push ~> C ~> Output", "Push ~> [same, C] ~> Output", "Push ~> {same, same} ~> C ~> Output"]
    flow = await scene.flow(notations[0], namespace={"C": counts(2)})
    async with Load(scene, flow) as load:
        for _ in range(8):
            await load.some(2)
            names = {"C": counts(some.randint(1, 6)), "same": same}
            if some.random() < 0.5:
                await flow.stop()
            await flow.update(some.choice(notations), names)
            await flow.start()
    await check(flow, load.pushed)


async def test_state_is_divided_anew_at_a_start_and_old_state_never_comes_back(scene):
    flow = await scene.flow("Push ~> C ~> Output", namespace={"C": counts(2)})
    async with Load(scene, flow) as load:
        for instances in (5, 1, 3, 2):
            await load.some()
            await flow.stop()
            await flow.update("Push ~> C ~> Output", {"C": counts(instances)})
            await flow.start()
        await load.some()
    await check(flow, load.pushed)


async def test_state_that_is_rebuilt_after_a_crash_is_rebuilt_at_another_number_of_instances(scene):
    flow = await scene.flow(
        "Push ~> C ~> Output", namespace={"C": counts(2)}, options=FlowOptions(checkpoint_seconds=60)
    )
    async with Load(scene, flow) as load:
        for instances in (5, 1, 3):
            await load.some()
            running = flow._running
            running.cancel()  # no checkpoint is made, as at a `kill -9`
            await asyncio.wait({running})
            await flow.update("Push ~> C ~> Output", {"C": counts(instances)})
            await flow.start()
        await load.some()
    await check(flow, load.pushed)


@in_memory
async def test_in_braces_state_follows_its_keys_too(scene):
    def notation(a, b):
        return {"A": counts(a), "B": counts(b, key="room")}

    flow = await scene.flow("Push ~> {A, B} ~> Output", namespace=notation(2, 3))
    async with Load(scene, flow) as load:
        for a, b in ((5, 2), (1, 1), (3, 4)):
            await load.some()
            await flow.update("Push ~> {A, B} ~> Output", notation(a, b))
    await flow.settled()
    by_device, by_room = (
        Counter(dict(pair for r in flow.lines[0].runners_of(key) for pair in r.adapted.snapshot().items()))
        for key in "AB"
    )
    assert by_device == load.pushed
    assert set(by_room) == {0, 1, 2}  # whole numbers, as they were
    assert by_room.total() == load.pushed.total()


@in_memory
async def test_a_processor_may_move_into_braces_and_out_of_them_with_its_state(scene):
    flow = await scene.flow("Push ~> C ~> Output", namespace={"C": counts(3), "same": same})
    async with Load(scene, flow) as load:
        for notation, instances in (("{same, C}", 3), ("C", 3), ("{same, C}", 2), ("C", 5)):
            await load.some()
            await flow.update(f"Push ~> {notation} ~> Output", {"C": counts(instances), "same": same})
    await flow.settled()
    found = dict(pair for r in flow.lines[0].runners_of("C") for pair in r.adapted.snapshot().items())
    assert found == load.pushed


@in_memory
@pytest.mark.parametrize("how", ["swap", "restart"])
async def test_state_that_is_not_keyed_refuses_another_number_of_instances_and_can_be_forgotten(scene, how):
    flow = await scene.flow("Push ~> C ~> Output", namespace={"C": counts(2, keyed=False)})
    device = await scene.device(flow)
    await device.push({})
    await flow.settled()
    refusal = (
        r"C: the state of 2 instances can't go to 5 instances: it is not Keyed\. Let snapshot return Keyed.*"
        r"keep concurrency = 2; or stop the flow .* flow\.forget_state\('C'\)"
    )
    with pytest.raises(FlowError, match=r"'flow.*' runs"):
        await flow.forget_state()
    if how == "swap":
        with pytest.raises(ProcessorError, match=refusal):
            await flow.update("Push ~> C ~> Output", {"C": counts(5, keyed=False)})
        await device.push({})
        assert [message.payload["count"] for message in await flow.take(2)] == [1, 2]
    await flow.stop()
    await flow.update("Push ~> C ~> Output", {"C": counts(5, keyed=False)})
    with pytest.raises(ProcessorError, match=refusal):
        await flow.start()
    assert await flow.forget_state("D") == ()
    assert await flow.forget_state("C") == ("C",)
    assert await flow.forget_state() == ()
    await flow.start()
    await device.push({})
    messages = await flow.take(2 if how == "restart" else 1)
    assert messages[-1].payload["count"] == 1


@in_memory
async def test_after_a_refused_start_the_old_number_of_instances_goes_on(scene):
    flow = await scene.flow("Push ~> C ~> Output", namespace={"C": counts(2, keyed=False)})
    device = await scene.device(flow)
    for instances in (2, 3, 1, 2):
        await flow.stop()
        await flow.update("Push ~> C ~> Output", {"C": counts(instances, keyed=False)})
        if instances == 2:
            await flow.start()
            await device.push({})
            await flow.settled()
        else:
            with pytest.raises(ProcessorError, match="can't go to"):
                await flow.start()
    assert [message.payload["count"] for message in await flow.take(2)] == [1, 2]


@in_memory
async def test_a_class_that_begins_to_return_keyed_takes_its_instances_with_it_in_the_same_change(scene):
    flow = await scene.flow("Push ~> C ~> Output", namespace={"C": counts(2, keyed=False)})
    async with Load(scene, flow) as load:
        await load.some()
        await flow.update("Push ~> C ~> Output", {"C": counts(5)})
        await load.some()
    await check(flow, load.pushed)


@in_memory
async def test_if_a_new_instance_cannot_take_its_share_the_old_ones_go_on_with_theirs(scene):
    class Picky(counts(5)):
        def restore(self, state):
            raise ValueError("not that")

    Picky.__name__ = "C"
    flow = await scene.flow("Push ~> C ~> Output", namespace={"C": counts(2)})
    async with Load(scene, flow) as load:
        await load.some()
        await flow.pause("C")
        with pytest.raises(ProcessorError, match="C: restore failed with ValueError: not that"):
            await flow.update("Push ~> C ~> Output", {"C": Picky})
        assert (flow.stats().processors["C"].state, flow.stats().processors["C"].version) == ("paused", 0)
        await flow.resume("C")
        await load.some()
    await check(flow, load.pushed)


@in_memory
async def test_ready_made_processors_keep_their_state_at_any_number_of_instances(scene):
    def names(instances):
        return {
            made.__name__: type(made.__name__, (made,), {"concurrency": instances})
            for made in (Deadband, Window)
        }

    flow = await scene.flow(
        'Push ~> Deadband(key="t", delta=1) ~> Window(count=4, key="n", aggregate="sum") ~> Output',
        namespace=names(2),
    )
    devices = [await scene.device(flow, f"room{n}") for n in range(6)]
    for number, instances in enumerate((2, 5, 1, 3), start=1):
        await flow.update(flow.notation, names(instances))
        for device in devices:
            await device.push({"t": number * 10, "n": number})
            await device.push({"t": number * 10, "n": 100})  # held back by the dead band, at every number
        await flow.settled()
    assert [message.payload["n"] for message in await flow.take(6)] == [10.0] * 6


@in_memory
async def test_in_partitions_each_divides_its_own_and_the_receipt_adds_them_up(scene):
    flow = await scene.flow(
        "Push ~> C ~> Output", namespace={"C": counts(2)}, options=FlowOptions(partitions=3)
    )
    async with Load(scene, flow) as load:
        for instances in (5, 1, 3):
            await load.some()
            receipt = await flow.update("Push ~> C ~> Output", {"C": counts(instances)})
            (move,) = receipt.states
            assert (move.keys, move.instances) == (12, 3 * instances)
        await flow.stop()
        await flow.update("Push ~> C ~> Output", {"C": counts(2)})
        await flow.start()
        await load.some()
    await check(flow, load.pushed)


@in_memory
async def test_a_key_that_expires_leaves_the_processors_own_mapping(scene):
    class Counts(counts(1)):
        def snapshot(self):
            return Keyed(self.counts, expire=0.3)

    flow = await scene.flow(
        "Push ~> C ~> Output", namespace={"C": Counts}, options=FlowOptions(checkpoint_seconds=0.05)
    )
    still, busy = await scene.device(flow, "still"), await scene.device(flow, "busy")
    await still.push({})
    (runner,) = flow.lines[0].runners_of("C")
    await eventually(lambda: "still" in runner.adapted.instance.counts)
    pushing = asyncio.create_task(_push_on(busy))
    await eventually(lambda: list(runner.adapted.instance.counts) == ["busy"])
    pushing.cancel()
    await flow.stop()
    await flow.start()
    await still.push({})
    await eventually(lambda: "still" in flow.lines[0].runners_of("C")[0].adapted.instance.counts)
    assert flow.lines[0].runners_of("C")[0].adapted.instance.counts["still"] == 1


async def _push_on(device):
    while True:
        await device.push({})
        await asyncio.sleep(0.01)
