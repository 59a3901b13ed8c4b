"""Moving: the state of a processor's instances goes to new instances, as many as before or another number.

Owns which new instance gets which state, the refusal where state can't follow, and what a receipt says of
it. The state of one instance, and the division by keys, are in `states`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pratipad_nb.errors import ProcessorError
from pratipad_nb.processors.adapter import makes_instances
from pratipad_nb.runtime.stages.member import Member
from pratipad_nb.runtime.stages.runner import Bequest, Runner
from pratipad_nb.runtime.stages.states import State, Undividable, divided
from pratipad_nb.wording import counted

__all__ = ["Scratch", "StateMove", "carry_over", "check_movable", "moved", "shares", "together"]

log = logging.getLogger(__name__)

#: Makes a runner of a processor's new code, whose instance never works: it reads and writes states alone.
Scratch = Callable[[], Runner]


@dataclass(frozen=True, slots=True)
class StateMove:
    """What became of a changed processor's state; ``str()`` says it in words, and nothing of unkeyed state.

    Attributes
    ----------
    processor
        The processor's key.
    keys
        How many keys were carried over; None if the state isn't keyed, or there was none.
    instances
        Over how many instances.
    lost
        Why state was not carried over; empty if it was.
    """

    processor: str
    keys: int | None
    instances: int
    lost: str = ""

    def __str__(self) -> str:
        if self.lost:
            return f"state of {self.processor} not carried over: {self.lost}"
        if self.keys is None:
            return ""
        keys, instances = counted(self.keys, "key"), counted(self.instances, "instance")
        return f"state of {self.processor}: {keys} over {instances}"


async def carry_over(before: Member, after: Member, scratch: Scratch) -> StateMove:
    """Give the state of the instances of `before` to the instances of `after`.

    Raises
    ------
    ProcessorError
        If the state can't follow, or `restore` raises.
    """
    bequests = [await runner.bequest() for runner in before.runners]
    _check_known(before, after, bequests)
    states = await shares([bequest.state for bequest in bequests], after.runners, scratch)
    for runner, state in zip(after.runners, states, strict=True):
        if state is not None:
            await runner.restore(state)
    return moved(bequests, after.runners)


async def check_movable(before: Member, after: Member, scratch: Scratch) -> None:
    """Check that the state of `before`, as it is now, can go to the instances of `after`.

    Nothing is checked where each instance's state goes to the instance of its number.

    Raises
    ------
    ProcessorError
        If the state can't follow.
    """
    if len(before.runners) == len(after.runners) and before.partition_by == after.partition_by:
        return
    known = [await runner.known() for runner in before.runners]
    _check_known(before, after, known)
    await shares([bequest.state for bequest in known], after.runners, scratch)


def _check_known(before: Member, after: Member, bequests: Sequence[Bequest]) -> None:
    lost = next((bequest.lost for bequest in bequests if bequest.lost), "")
    old, new = len(before.runners), len(after.runners)
    if lost and old != new:
        raise ProcessorError(_refusal(after.key, old, new, lost, after.partition_by))


async def shares(
    states: Sequence[State | None], runners: Sequence[Runner], scratch: Scratch
) -> list[State | None]:
    """Return the state for each of `runners`, out of the `states` of the instances before.

    Raises
    ------
    ProcessorError
        If the state can't follow.
    """
    adapted, count = runners[0].adapted, len(runners)
    if not any(state is not None for state in states) or adapted.restore is None:
        return [None] * count
    if len(states) == count and (count == 1 or _spread_alike(states, adapted.partition_by)):
        return list(states)
    try:
        keyed = [await _keyed(state, scratch) for state in states]
        return divided(keyed, adapted.partition_by, count)
    except Undividable as error:
        key = runners[0].step.key
        raise ProcessorError(_refusal(key, len(states), count, str(error), adapted.partition_by)) from error


def _spread_alike(states: Sequence[State | None], by: str) -> bool:
    return all(state is None or state.by in ("", by) for state in states)


async def _keyed(state: State | None, scratch: Scratch) -> State | None:
    """Return `state` as the new code keeps it, if `state` isn't keyed: the new code may be the first that is.

    Raises
    ------
    Undividable
        If the new code doesn't return `Keyed`, or can't take `state` over.
    """
    if state is None or state.keyed:
        return state
    runner = scratch()
    if not makes_instances(runner.step.target):
        raise Undividable("it is not Keyed")
    try:
        await runner.open(state)
        state = await runner.snapshot()
    except ProcessorError as error:
        raise Undividable(f"it is not Keyed, and the new code can't read it: {error}") from error
    finally:
        await runner.close()
    if state is None or not state.keyed:
        raise Undividable("it is not Keyed")
    return state


def _refusal(key: str, old: int, new: int, reason: str, by: str) -> str:
    return (
        f"{key}: the state of {counted(old, 'instance')} can't go to {counted(new, 'instance')}: "
        f"{reason.rstrip('.')}. Let snapshot return Keyed({{key: state}}), whose keys are values of "
        f"partition_by = {by!r}, so that state follows its keys; or keep concurrency = {old}; or stop the "
        f"flow and begin without the state: flow.stop(), then flow.forget_state({key!r})."
    )


def moved(bequests: Sequence[Bequest], runners: Sequence[Runner]) -> StateMove:
    """Return what became of the `bequests` that `runners` were given; log that a state is unknown."""
    key = runners[0].step.key
    lost = next((bequest.lost for bequest in bequests if bequest.lost), "")
    if lost:
        log.warning("state of %s is not carried over: %s", key, lost)
    states = [bequest.state for bequest in bequests if bequest.state is not None]
    if states and runners[0].adapted.restore is None:
        lost = lost or "the new class has no `restore`"
    keys = [state.keys for state in states]
    known = [count for count in keys if count is not None]
    return StateMove(key, sum(known) if known else None, len(runners), lost)


def together(moves: Iterable[StateMove]) -> tuple[StateMove, ...]:
    """Return the moves of states in several partitions, those of one processor as one."""
    found: dict[str, list[StateMove]] = {}
    for move in moves:
        found.setdefault(move.processor, []).append(move)
    return tuple(map(_added, found.values()))


def _added(moves: Sequence[StateMove]) -> StateMove:
    known = [move.keys for move in moves if move.keys is not None]
    return StateMove(
        moves[0].processor,
        sum(known) if known else None,
        sum(move.instances for move in moves),
        next((move.lost for move in moves if move.lost), ""),
    )
