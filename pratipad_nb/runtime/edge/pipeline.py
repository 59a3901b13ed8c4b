"""The forward pipeline: input → stages → output, with bounded queues between them.

Owns the tasks, the pump and the drain. Each stage is a task of its own, so that a stage works on a batch
while the next stage works on the batch before. Admission is for `gatekeeper`, work on a batch for `stage`,
and making results safe for `outputs`.

The drain: `_pump` ends, under `_entrance`, by putting None into the first queue. Each stage passes None on
after its last batch, and the writer ends at None. Queues keep their order, and `inject` puts nothing in once
`_ended` is set. So None is the last item of every queue, and all earlier items are stored when the writer
ends.

Barriers: where a stage has one instance, a barrier passes it in the order of its queue. The state that the
stage adds to the barrier is then that of exactly the batches before the barrier. A stage of several shards
gets the same, where a state is kept, by waiting until every shard has finished its queue (`_at_one_point`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from pratipad_nb.runtime.positions.dead_letters import LATE_STEP
from pratipad_nb.runtime.positions.gatekeeper import Admitted, Gatekeeper
from pratipad_nb.runtime.positions.inputs import Input
from pratipad_nb.runtime.positions.outputs import Writer
from pratipad_nb.runtime.stages.gathering import Gathering
from pratipad_nb.runtime.stages.member import dead_letter
from pratipad_nb.runtime.stages.shards import Splitter
from pratipad_nb.runtime.stages.stage import Stage
from pratipad_nb.runtime.values.batch import Barrier, Batch, Item, Source
from pratipad_nb.runtime.values.metrics import InFlight
from pratipad_nb.runtime.values.sampling import Sampler
from pratipad_nb.settings import FlowOptions
from pratipad_nb.transport.frames import FailureNote
from pratipad_nb.transport.protocol import Delivery

T = TypeVar("T")

__all__ = ["BatchQueue", "Pipeline"]

#: Batches that may wait before a stage: one to go on with while the next is made. More only add latency.
_QUEUE = 2
#: Messages, and batches, that may wait before one instance of several: room for the other instances to go on
#: while this instance is slow, or stuck. Messages are counted first: a few may come in many batches.
_SHARD_MESSAGES = 4096
_SHARD_BATCHES = 256
#: While fewer deliveries wait for room, further ones are taken in: those of other devices may have room.
_ARRIVED = 64
#: So often the server is told that deliveries in flight are still being worked on, in seconds: a third of the
#: 30 s after which the server would deliver again.
_HOLD_SECONDS = 10.0
#: Seconds between two looks whether an instance that a barrier waits for hangs.
_HANG_LOOK = 0.5


_VOID = (
    "LateReading: {device} sent this reading after it had been asked of another device, and as many readings "
    "had been passed on as pull() asked for. Pass it on, too, with retry_dead_letters(), or drop it with "
    "clear_dead_letters()."
)


def _without_void(source: Source, admitted: Sequence[Admitted]) -> Batch:
    """Return the batch of `admitted`, with dead letters in the place of messages that are not to pass."""
    payloads = [payload for each in admitted for payload in each.payloads]
    whole = Batch(source, payloads, range(source.size), source.size)
    void = [
        row
        for each, start in zip(admitted, source.starts, strict=True)
        for row in range(start + len(each.payloads) - each.void, start + len(each.payloads))
    ]
    dead = []
    for row in void:
        note = FailureNote("Pull", _VOID.format(device=source.device(row)), "")
        dead.append((LATE_STEP, dead_letter(whole, row, payloads[row], [note])[1]))
    kept = sorted(set(range(source.size)).difference(void))
    return Batch(source, [payloads[row] for row in kept], kept, source.size, dead=dead)


class BatchQueue(asyncio.Queue[Item]):
    """A bounded queue that counts the messages of its batches; None ends the queue."""

    messages = 0

    def _put(self, item: Item) -> None:
        self.messages += len(item) if isinstance(item, Batch) else 0
        super()._put(item)

    def _get(self) -> Item:
        item: Item = super()._get()
        self.messages -= len(item) if isinstance(item, Batch) else 0
        return item


class ShardQueue(BatchQueue):
    """A queue before one instance of several, bounded by messages."""

    def __init__(self) -> None:
        super().__init__(_SHARD_BATCHES)
        self._room = asyncio.Event()

    def _get(self) -> Item:
        item = super()._get()
        self._room.set()
        return item

    async def put(self, item: Item) -> None:
        """Put `item` in; wait while the queue holds too many messages."""
        while self.messages >= _SHARD_MESSAGES:
            self._room.clear()
            await self._room.wait()
        await super().put(item)


class Pipeline:
    """Moves messages from the input through the stages to the output until it is drained.

    Parameters
    ----------
    room
        Set while new messages may be admitted.
    """

    def __init__(
        self,
        flow: str,
        stages: Sequence[Stage],
        source: Input,
        gate: Gatekeeper,
        writer: Writer,
        in_flight: InFlight,
        options: FlowOptions,
        room: asyncio.Event,
    ) -> None:
        self._flow = flow
        self._stages = stages
        self._input = source
        self._gate = gate
        self._writer = writer
        self._in_flight = in_flight
        self._options = options
        self._room = room
        self.queues = [BatchQueue(_QUEUE) for _ in range(len(stages) + 1)]
        self._shards: dict[int, list[ShardQueue]] = {}
        self._draining = asyncio.Event()
        self._leaving = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        #: Held while an item is injected, so that no item gets behind the None that ends the first queue.
        self._entrance = asyncio.Lock()
        self._ended = False
        #: Gets the next deliveries. Lives longer than a single wait: a `get` that is cut off may lose them.
        self._coming: asyncio.Task[list[Delivery]] | None = None
        self._sampler = Sampler()

    # -- controls --------------------------------------------------------------------------------------------

    def drain(self, *, leaving: bool = False) -> None:
        """Take no more messages in; `run` returns once all messages in flight are safe.

        `leaving`: deliveries that aren't admitted yet are left to the next pipeline.
        """
        self._leaving = leaving
        self._draining.set()

    def pause(self) -> None:
        """Take no more messages in until `resume`."""
        self._flowing.clear()

    def resume(self) -> None:
        """Take messages in again."""
        self._flowing.set()

    @property
    def paused(self) -> bool:
        """Whether `pause` holds."""
        return not self._flowing.is_set()

    async def inject(self, item: Batch | Barrier, step: str | None = None) -> bool:
        """Put in an item that doesn't come from the input: dead letters, recorded inputs, or a barrier.

        Return whether the item is in: once the pipeline has ended, the item has to go to the next pipeline. A
        batch passes all stages, or, with a `step`, the stage of that processor and the stages behind it.

        Raises
        ------
        LookupError
            If the pipeline has no processor `step`.
        """
        async with self._entrance:
            if self._ended:
                return False
            if isinstance(item, Batch):
                item.stage = 0 if step is None else self._stage_of(step)
                self._in_flight.taken += item.source.size
            await self.queues[0].put(item)
            return True

    def _stage_of(self, step: str) -> int:
        if step == LATE_STEP:
            return 0
        for stage in self._stages:
            if any(member.key == step for member in stage.members):
                return stage.index
        raise LookupError(step)

    def waiting(self, stage: int) -> int:
        """Return how many messages wait before a stage."""
        return self.queues[stage].messages + sum(shard.messages for shard in self._shards.get(stage, ()))

    # -- tasks -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Move messages until drained."""
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(self._hold(), name=f"{self._flow}: hold")
            for stage, queue, following in zip(self._stages, self.queues, self.queues[1:], strict=False):
                group.create_task(
                    self._run_stage(stage, queue, following), name=f"{self._flow}: stage {stage.index}"
                )
            group.create_task(self._pump(), name=f"{self._flow}: pump")
            await self._writer.run(self.queues[-1])
            holding.cancel()

    async def _hold(self) -> None:
        while True:
            await asyncio.sleep(_HOLD_SECONDS)
            self._input.hold()

    async def _pump(self) -> None:
        """Admit frames and make batches of them, of about `batch_messages` each."""
        try:
            while not self._draining.is_set() or (self._gate.arrived and not self._leaving):
                if not self._gate.arrived:
                    await self._admission()
                    await self._deliveries()
                await self._admission()
                await self._admit()
        finally:
            await self._stop_coming()
        async with self._entrance:
            self._ended = True
            await self.queues[0].put(None)

    async def _admit(self) -> None:
        """Admit what has arrived, as far as there is room; while the pipeline drains, wait for room, too."""
        first, gate = self.queues[0], self._gate
        admitted: list[Admitted] = []
        size = 0
        while gate.arrived and not self._leaving and (self._room.is_set() or self._draining.is_set()):
            delivery = gate.next()
            if delivery is None:
                if admitted:  # else their completion would be waited for here
                    await first.put(self._batch(admitted))
                    admitted, size = [], 0
                await self._until_room()
                if not self._draining.is_set():
                    return  # the pipeline may be paused by now
                continue
            new = await gate.admit(delivery)
            if new is None:
                continue
            if admitted and new.kind != admitted[0].kind:
                await first.put(self._batch(admitted))
                admitted, size = [], 0
            admitted.append(new)
            size += len(new.payloads)
            if size >= self._options.batch_messages:
                await first.put(self._batch(admitted))
                admitted, size = [], 0
        if admitted:
            await first.put(self._batch(admitted))

    def _batch(self, admitted: list[Admitted]) -> Batch:
        kind = admitted[0].kind
        followed = failed = None
        if kind == "rebuild":
            failed = self._gate.rebuild.failed
        else:
            followed = self._sampler.choose(sum(len(each.payloads) for each in admitted))
        source = Source(
            self._flow, [each.frame for each in admitted], followed=followed, kind=kind, failed=failed
        )
        if any(each.void for each in admitted):
            return _without_void(source, admitted)
        payloads = admitted[0].payloads
        if len(admitted) > 1:
            payloads = [payload for each in admitted for payload in each.payloads]
        return Batch(source, payloads, range(source.size), source.size)

    async def _until_room(self) -> None:
        """Wait until messages in flight have made room, or deliveries of other devices have come."""
        progress = self._in_flight.progress(self._in_flight.completed)
        if self._draining.is_set():  # nothing but the messages in flight is waited for
            await progress
        elif len(self._gate.arrived) < _ARRIVED:
            await self._deliveries(progress)
        else:
            await self._unless_draining(progress)

    async def _deliveries(self, beside: Coroutine[Any, Any, None] | None = None) -> None:
        """Wait for deliveries, or until `beside` ends, or the pipeline drains; take in what has come."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._input.get())
        others = [asyncio.ensure_future(each) for each in (self._draining.wait(), beside) if each is not None]
        try:
            await asyncio.wait({self._coming, *others}, return_when=asyncio.FIRST_COMPLETED)
            self._take_in()
        finally:
            for each in others:
                each.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def _take_in(self) -> None:
        coming = self._coming
        if coming is not None and coming.done():
            self._coming = None
            self._gate.take(coming.result())

    async def _stop_coming(self) -> None:
        """Get no more deliveries; those that have come are for the next pipeline."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
            if not self._coming.cancelled() and self._coming.exception() is None:
                self._take_in()

    async def _admission(self) -> None:
        """Wait while the pipeline is paused, or has no room for dead letters; not once it drains."""
        waits = (self._flowing, self._room)
        while not self._draining.is_set() and not all(each.is_set() for each in waits):
            for each in waits:
                await self._unless_draining(each.wait())

    async def _unless_draining(self, waiting: Coroutine[Any, Any, T]) -> T | None:
        task = asyncio.ensure_future(waiting)
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({task, draining}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, draining):
                each.cancel()
            await asyncio.gather(task, draining, return_exceptions=True)

    async def _run_stage(self, stage: Stage, queue: BatchQueue, following: BatchQueue) -> None:
        if stage.shards > 1:
            await self._run_shards(stage, queue, following)
            return
        get = self._getter(stage, queue, following)
        while (item := await get()) is not None:
            if isinstance(item, Barrier):
                await self._pass(item, stage, following)
            else:
                await stage.process(item, following.put)
        await following.put(None)

    async def _pass(self, barrier: Barrier, stage: Stage, following: BatchQueue) -> None:
        """Add the states of `stage` to `barrier`, and hand the barrier on."""
        if stage.keeps_state:
            barrier.behind_state = True
            await stage.snapshot(barrier.states)
        await following.put(barrier)

    async def _at_one_point(self, stage: Stage, shards: Sequence[ShardQueue]) -> bool:
        """Wait until every shard has finished its queue; return False if a call of a shard hangs."""
        joined = asyncio.gather(*(shard.join() for shard in shards))
        try:
            while not joined.done():
                await asyncio.wait({joined}, timeout=_HANG_LOOK)
                if not joined.done() and any(runner.hangs for runner in stage.runners):
                    return False
            return True
        finally:
            joined.cancel()
            await asyncio.gather(joined, return_exceptions=True)

    def _getter(
        self, stage: Stage, queue: BatchQueue, following: BatchQueue, shard: int = 0
    ) -> Callable[[], Awaitable[Item]]:
        """Return the function that takes the next item from `queue`.

        Where a processor gathers (`batch_timeout`), the function lets it gather first.
        """
        if not stage.gathers:
            return queue.get
        gathering = Gathering(stage, shard, following.put)
        return lambda: gathering.get(queue)

    async def _run_shards(self, stage: Stage, queue: BatchQueue, following: BatchQueue) -> None:
        shards = self._shards[stage.index] = [ShardQueue() for _ in range(stage.shards)]
        splitter = Splitter(len(shards))

        async def run_shard(shard: int) -> None:
            get = self._getter(stage, shards[shard], following, shard)
            while (item := await get()) is not None:
                if isinstance(item, Batch):
                    await stage.process(item, following.put, shard)
                shards[shard].task_done()

        async with asyncio.TaskGroup() as group:
            for shard in range(len(shards)):
                group.create_task(run_shard(shard), name=f"{self._flow}: stage {stage.index} shard {shard}")
            while (item := await queue.get()) is not None:
                if isinstance(item, Barrier):
                    if stage.keeps_state or item.behind_state:
                        # All shards have to be at the same point, or a state would hold more than is stored.
                        for shard_queue in shards:
                            await shard_queue.put(item)
                        if not await self._at_one_point(stage, shards):
                            item.outcome = False  # no checkpoint this time
                            continue
                    await self._pass(item, stage, following)
                    continue
                for shard_queue, part in zip(shards, splitter.split(item), strict=True):
                    if part is not None:
                        await shard_queue.put(part)
            for shard_queue in shards:
                await shard_queue.put(None)
        await following.put(None)
