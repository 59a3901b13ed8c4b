"""The line of processors: the stages that a dataflow's notation becomes when the dataflow runs.

Owns the instances of all processors: making, setting up, swapping and closing them, with their meters and
logs. Knows nothing of where messages come from, nor of the queues between stages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from pratipad_nb.dataflow import Dataflow, Step
from pratipad_nb.processors.adapter import makes_instances
from pratipad_nb.runtime.stages.member import Member
from pratipad_nb.runtime.stages.moving import Scratch, StateMove, carry_over, check_movable, moved, shares
from pratipad_nb.runtime.stages.runner import Bequest, Runner
from pratipad_nb.runtime.stages.stage import Stage
from pratipad_nb.runtime.stages.states import stored_states
from pratipad_nb.runtime.values.logs import ProcessorLog
from pratipad_nb.runtime.values.metrics import Meter
from pratipad_nb.runtime.values.samples import Samples
from pratipad_nb.runtime.values.stats import FlowState
from pratipad_nb.settings import FlowOptions

__all__ = ["Line"]

log = logging.getLogger(__name__)


class Line:
    """The stages of a running dataflow."""

    def __init__(self, dataflow: Dataflow, options: FlowOptions) -> None:
        self.dataflow = dataflow
        self.options = options
        self.stages: list[Stage] = []
        self.meters = {step.key: Meter() for step in dataflow.steps}
        self.logs = {step.key: ProcessorLog() for step in dataflow.steps}
        self.samples = {step.key: Samples() for step in dataflow.steps}

    async def open(self, states: Mapping[str, bytes]) -> None:
        """Make and set up all instances, with the stored `states` that earlier instances left.

        Raises
        ------
        ProcessorError
            If an instance can't be set up, or the state can't follow to another number of instances. The
            instances before are torn down again.
        """
        try:
            for model in self.dataflow.stages:
                concurrent = model.kind == "concurrent"
                groups = [model.steps] if concurrent else [(step,) for step in model.steps]
                for steps in groups:
                    members = [await self._restored(step, states, discard=concurrent) for step in steps]
                    self._add(members, concurrent=concurrent)
        except BaseException:
            await self.close()
            raise

    def _add(self, members: Sequence[Member], *, concurrent: bool) -> None:
        """Add a stage of `members`, with the reason if their replies can't pass to devices."""
        final = members[-1].key == self.dataflow.steps[-1].key
        one_way, hop = "", self.dataflow.first_one_way_hop
        if hop is not None and not self.dataflow.replies_from(members[0].key):
            one_way = (
                f"a reply can't pass arrow {hop + 1} of `{self.dataflow.notation}`: it is `~>`, forward "
                "only. Write `<~>` there."
            )
        self.stages.append(
            Stage(len(self.stages), members, concurrent=concurrent, one_way=one_way, final=final)
        )

    async def prepare(self, dataflow: Dataflow, kept: Sequence[str]) -> Line:
        """Return the line of `dataflow`, with the instances of `kept` steps, and new ones for all others.

        The new instances are set up.

        Raises
        ------
        ProcessorError
            If a new instance can't be set up, or the state of the old instances can't follow to another
            number of instances; nothing has changed then.
        """
        line = Line(dataflow, self.options)
        old = {member.key: member for stage in self.stages for member in stage.members}
        discards = {m.key: stage.concurrent for stage in self.stages for m in stage.members}
        made: list[Member] = []
        try:
            for model in dataflow.stages:
                concurrent = model.kind == "concurrent"
                groups = [model.steps] if concurrent else [(step,) for step in model.steps]
                for steps in groups:
                    members = []
                    for step in steps:
                        if step.key in old:  # the counts of a changed processor go on, too: `version` tells
                            line._take_over(self, step.key)
                        if step.key in kept and discards[step.key] == concurrent:
                            members.append(old[step.key])
                            continue
                        made.append(await line._member(step, discard=concurrent))
                        members.append(made[-1])
                        await line._check_state(old.get(step.key), made[-1], step, discard=concurrent)
                    line._add(members, concurrent=concurrent)
        except BaseException:
            for member in made:
                await _close(member.runners)
            raise
        return line

    async def _check_state(self, before: Member | None, after: Member, step: Step, *, discard: bool) -> None:
        if before is not None:
            await check_movable(before, after, self._scratch(step, discard=discard))

    def _take_over(self, before: Line, key: str) -> None:
        """Go on with the counters, the log and the samples of the processor `key` in the line `before`."""
        self.meters[key], self.logs[key] = before.meters[key], before.logs[key]
        self.samples[key] = before.samples[key]

    async def carry_over(self, line: Line) -> tuple[StateMove, ...]:
        """Give the states of replaced instances to the instances of `line` that replace them.

        Raises
        ------
        ProcessorError
            If a new instance can't take its state over; the instances of this line are as before.
        """
        old = {member.key: member for stage in self.stages for member in stage.members}
        replaced = [
            (old[member.key], member, line._scratch(line.dataflow.step(member.key), discard=stage.concurrent))
            for stage in line.stages
            for member in stage.members
            if member.key in old and old[member.key] is not member
        ]
        moves = [await carry_over(*each) for each in replaced]
        for _, member, _ in replaced:
            member.meter.version += 1
            member.meter.newer = False
        return tuple(moves)

    async def close_all_but(self, line: Line) -> None:
        """Tear down the instances that are not part of `line`."""
        goes_on = {id(runner) for stage in line.stages for runner in stage.runners}
        for stage in self.stages:
            for runner in stage.runners:
                if id(runner) not in goes_on:
                    await runner.close()
        self.stages = []

    @property
    def keeps_state(self) -> bool:
        """Whether a processor has state to carry over a restart."""
        return any(stage.keeps_state for stage in self.stages)

    @property
    def shape(self) -> list[object]:
        """The shapes of all stages: equal shapes let instances be exchanged while the pipeline goes on."""
        return [stage.shape for stage in self.stages]

    async def exchange(self, line: Line, changed: Sequence[str]) -> tuple[float, tuple[StateMove, ...]]:
        """Put the instances of `line` in the place of those of the `changed` processors, all at one moment.

        Returns for how long, in seconds, the changed processors stood still, and what became of their states.

        Raises
        ------
        ProcessorError
            If a new instance can't take over the state of the old one; then all instances are as before.
        """
        fresh = {member.key: member for stage in line.stages for member in stage.members}
        pairs = [
            pair for key in changed for pair in zip(self.runners_of(key), fresh[key].runners, strict=True)
        ]
        began = time.monotonic()
        try:
            handed = await asyncio.gather(
                *(old.hand_over_to(new) for old, new in pairs), return_exceptions=True
            )
            bequests: dict[str, list[Bequest]] = {}
            for (old, _), found in zip(pairs, handed, strict=True):
                if isinstance(found, BaseException):
                    raise found
                bequests.setdefault(old.step.key, []).append(found)
            moves = tuple(moved(bequests[key], fresh[key].runners) for key in changed)
            for old, new in pairs:
                old.become(new)
            for key in changed:
                self.meters[key].version += 1
                self.meters[key].newer = False
        finally:
            for old, _ in pairs:
                old.go_on()
            pause = time.monotonic() - began
            for _, replaced in pairs:
                await replaced.close()
        self.dataflow = line.dataflow
        return pause, moves

    async def _restored(self, step: Step, states: Mapping[str, bytes], *, discard: bool) -> Member:
        """Return the processor of `step`, its instances with their share of the stored `states`."""
        member = await self._member(step, discard=discard)
        try:
            stored = stored_states(states, step.key)
            for runner, state in zip(
                member.runners,
                await shares(stored, member.runners, self._scratch(step, discard=discard)),
                strict=True,
            ):
                if state is not None:
                    await runner.restore(state)
        except BaseException:
            await _close(member.runners)
            raise
        return member

    async def _member(self, step: Step, *, discard: bool) -> Member:
        meter, output = self.meters[step.key], self.logs[step.key]
        runners: list[Runner] = []
        try:
            while not runners or len(runners) < runners[0].adapted.concurrency:
                runner = self._runner(step, meter, output, discard=discard)
                await runner.open()
                runners.append(runner)
        except BaseException:
            await _close(runners)
            raise
        return Member(step.key, meter, runners, self.samples[step.key])

    def _runner(self, step: Step, meter: Meter, output: ProcessorLog, *, discard: bool) -> Runner:
        return Runner(
            step,
            meter,
            output,
            discard=discard,
            slice_seconds=self.options.slice_seconds,
            setup_seconds=self.options.setup_seconds,
            hang_seconds=self.options.hang_seconds,
        )

    def _scratch(self, step: Step, *, discard: bool) -> Scratch:
        return lambda: self._runner(step, Meter(), ProcessorLog(), discard=discard)

    async def close(self) -> None:
        """Tear all instances down, the last instance first."""
        while self.stages:
            for runner in reversed(self.stages.pop().runners):
                await runner.close()

    async def snapshot(self) -> dict[str, bytes]:
        """Return the state of every instance that keeps one."""
        states: dict[str, bytes] = {}
        for stage in self.stages:
            await stage.snapshot(states)
        return states

    async def tick(self, key: str) -> None:
        """Run the timers of all instances of the processor `key` until cancelled."""
        async with asyncio.TaskGroup() as group:
            for runner in self.runners_of(key):
                group.create_task(runner.tick(), name=f"timers of {key}")

    def shared_with(self, other: Line) -> set[str]:
        """Return the keys of the processors whose instances belong to the `other` line, too."""
        theirs = {id(member) for stage in other.stages for member in stage.members}
        return {m.key for stage in self.stages for m in stage.members if id(m) in theirs}

    def runners_of(self, key: str) -> list[Runner]:
        """Return the instances of the processor `key`.

        Raises
        ------
        ProcessorError
            If there is no such processor.
        """
        self.dataflow.step(key)
        return [
            r
            for stage in self.stages
            for member in stage.members
            if member.key == key
            for r in member.runners
        ]

    def pause(self, key: str) -> None:
        """Let the processor `key` begin no further message."""
        for runner in self.runners_of(key):
            runner.pause()
        self.meters[key].state = "paused"

    @property
    def paused(self) -> list[str]:
        """The keys of the processors that are paused."""
        return [key for key, meter in self.meters.items() if meter.state == "paused"]

    def paused_from(self, step: str) -> list[str]:
        """Return the keys of the paused processors that a message from the processor `step` on passes."""
        passed = False
        keys: list[str] = []
        for stage in self.stages:
            members = [member.key for member in stage.members]
            passed = passed or step in members
            keys += members if passed else ()
        return [key for key in self.paused if key in keys]

    def set_state(self, state: FlowState) -> None:
        """Set the state of every processor in the statistics."""
        for meter in self.meters.values():
            meter.state = state

    def resume(self, key: str | None = None) -> None:
        """Let the paused processor `key` go on; None: every paused processor."""
        for each in self.meters if key is None else (key,):
            for runner in self.runners_of(each):
                runner.resume()
            if self.meters[each].state == "paused":
                self.meters[each].state = "running"

    @property
    def hanging(self) -> list[Runner]:
        """The instances whose call in progress hangs."""
        return [runner for stage in self.stages for runner in stage.runners if runner.hangs]

    def leave_hanging(self, line: Line, changed: Sequence[str]) -> None:
        """Leave instances behind whose call hangs: messages in flight have to be finished before `line` runs.

        If the processor is `changed`, the messages of the call go to an instance of the new code. If the
        processor is unchanged, the same code would hang again, and if it is gone, there is no code: the
        messages of the call, and the messages behind them, become dead letters. So do the messages of an
        instance in whose place no instance of the new code can be made.
        """
        steps = {step.key: step for step in line.dataflow.steps if step.key in changed}
        for runner in [each for stage in self.stages for each in stage.runners if each.hangs or each.stalled]:
            if runner.refuses:
                continue
            why = runner.at_work if runner.hangs else f"{runner.step.key} has no instance to go on with"
            log.warning("%s; it is left behind, for the flow is being changed.", why)
            step = steps.get(runner.step.key)
            if step is None or not makes_instances(step.target) or (runner.stalled and runner.step is step):
                runner.leave(refused=f"ProcessorError: {why}, while the flow was changed.")
            else:
                runner.leave(step=step)

    def stalled(self, key: str) -> bool:
        """Return whether the processor `key` is paused for want of an instance to go on with."""
        return any(runner.stalled for runner in self.runners_of(key))

    def accept(self) -> None:
        """Let every instance take messages again."""
        for stage in self.stages:
            for runner in stage.runners:
                runner.accept()

    def sample(self) -> None:
        """Note the current counts of all processors, for their rates."""
        for meter in self.meters.values():
            meter.sample()


async def _close(runners: Sequence[Runner]) -> None:
    for runner in runners:
        await runner.close()
