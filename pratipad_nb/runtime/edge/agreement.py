"""The agreement: the settings that must be the same at all edges of a flow, stored with the flow.

Owns these settings (the *terms*), the record of them, and the refusals. Two kinds of setting must agree:
those by which messages are stored, as the number of partitions; and those that are the flow's and not an
edge's, as how long results are kept, for whichever edge runs the first partition acts by its own. Other
settings may differ from edge to edge, the processors' code as well: so edges are replaced by edges with new
code one by one.

* An edge that starts compares its terms with the record before its first heartbeat. The record of a flow that
  runs nowhere is replaced, but for the partitions of stored messages.
* A record is stored under the condition that no other edge has stored one meanwhile. So of two edges that
  start at the same moment with different terms, exactly one wins.
* Which edges run is asked, and not concluded from heartbeats: an edge that was killed doesn't answer.
* A record that can't be read is none: an edge that starts goes by the terms of an edge that runs, or, if none
  runs, by the number of partitions that have checkpoints, and stores its own. Edges that run go on.
* A record's sequence is in each heartbeat. An edge that hears of another record reads it: so an edge that was
  frozen meanwhile ends, and doesn't run beside edges that go by other terms.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pratipad_nb.errors import Fenced, FlowError, FrameError, WaitTimeout
from pratipad_nb.runtime.values.plan import EdgeSettings, log_specs
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame, MarkFrame, TermsFrame
from pratipad_nb.transport.origin import Origin
from pratipad_nb.transport.protocol import Connection, Log
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Agreement", "alone", "partitions_of", "refuse_a_second", "who_runs"]

log = logging.getLogger(__name__)

_MARK = "edges"
#: The mark of the number of partitions in a store of version 0.1; without the mark, a flow had one partition.
_PARTITIONS = "partitions"
#: The edge that stored a flow in version 0.1, whose stores don't name it.
_UNKNOWN = Origin("", "an unknown host", 0, 0.0)
#: How long an edge that runs may take to answer, in seconds.
_ANSWER = 1.0

#: How each term is given, and what it is called in an error.
_NAMES = {
    "partitions": "FlowOptions(partitions=…)",
    "delivery": "delivery",
    "input": "the notation's input",
    "keep_seconds": "Keep(seconds=…)",
    "keep_bytes": "Keep(bytes=…)",
    "input_bytes": "FlowOptions(input_bytes=…)",
    "order_bytes": "FlowOptions(order_bytes=…)",
    "order_seconds": "FlowOptions(order_seconds=…)",
    "dead_letter_bytes": "FlowOptions(dead_letter_bytes=…)",
    "reader_expiry": "FlowOptions(reader_expiry=…)",
    "on_lag": "FlowOptions(on_lag=…)",
    "uplink": "FlowOptions(uplink=…)",
}


def _terms(settings: EdgeSettings, input: str) -> dict[str, Any]:  # noqa: A002 - as the dataflow's attribute
    """Return the settings that all edges agree on."""
    given = {
        "delivery": settings.delivery,
        "input": input,
        "keep_seconds": settings.keep.seconds,
        "keep_bytes": settings.keep.bytes,
    }
    return {name: given.get(name, getattr(settings.options, name, None)) for name in _NAMES}


class Agreement:
    """The terms that one edge goes by; made by `reached`.

    Attributes
    ----------
    origin
        The edge.
    number
        The sequence of the stored record.
    """

    def __init__(
        self,
        connection: Connection,
        settings: EdgeSettings,
        marks: Log,
        origin: Origin,
        terms: dict[str, Any],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._subjects = Subjects(settings.name)
        self._subject = self._subjects.mark(_MARK)
        self._marks = marks
        self.origin = origin
        self._terms = terms
        self.number = 0

    @classmethod
    async def reached(
        cls,
        connection: Connection,
        settings: EdgeSettings,
        input: str,  # noqa: A002 - as above
        origin: Origin,
    ) -> Agreement:
        """Agree with the edges that run the flow, or store this edge's terms if none runs.

        Raises
        ------
        FlowError
            If the terms differ from those of edges that run, or `partitions` from the stored messages'.
        """
        subjects = Subjects(settings.name)
        marks = await connection.open_log(log_specs(settings)[subjects.mark_stream])
        agreement = cls(connection, settings, marks, origin, _terms(settings, input))
        await agreement._reach()
        return agreement

    async def _reach(self) -> None:
        overtaken = False
        while True:
            stored = await self._stored()
            found = stored.terms
            differences = _differences(found.terms, self._terms)
            if stored.sequence and stored.readable and not differences:
                self.number = stored.sequence
                return
            if differences or not stored.readable:
                # An edge that has stored its terms just now may not answer yet.
                asks = not overtaken or not stored.readable
                runs = await who_runs(self._connection, self._subjects) if asks else found
                if runs is not None and not stored.readable:
                    found, differences = runs, _differences(runs.terms, self._terms)
                await self._check(found.terms, differences, runs.edge if runs is not None else None)
            if await self._store(stored.sequence):
                return
            overtaken = True

    async def _stored(self) -> _Stored:
        """Return the stored record; of a store of version 0.1, the partitions alone."""
        found = await _stored_terms(self._marks, self._subjects)
        return found if found is not None else _Stored(0, TermsFrame({}, _UNKNOWN))

    async def _check(self, theirs: Mapping[str, Any], differences: list[str], runs: Origin | None) -> None:
        """Raise `FlowError` if the flow runs with other terms, or is stored in other partitions."""
        name, n = self._settings.name, self._settings.options.partitions
        if "partitions" in differences:
            before = theirs["partitions"]
            where = f" It runs in {runs}." if runs is not None else ""
            if runs is not None or await self._stores_messages():
                raise FlowError(
                    f"flow {name!r} has run in {before} partitions, and {n} are given; its stored messages "
                    f"are divided so, and all its edges have the same number.{where} Give {before}, or "
                    "forget() the flow first."
                )
        if runs is not None and differences:
            raise FlowError(
                f"flow {name!r} runs in {runs}, with other settings: {_told(theirs, self._terms)}. Edges of "
                "a flow may differ in their code and their rate, but not in these. Give the same settings, "
                "or stop all edges of the flow first."
            )

    async def _stores_messages(self) -> bool:
        """Return whether the flow has run with durable delivery: its input is divided into partitions."""
        logs = (self._subjects.input_stream, self._subjects.former_input_stream)
        return any([await self._connection.find_log(log) is not None for log in logs])

    async def _store(self, expect: int) -> bool:
        """Store this edge's terms; return False if another edge has stored terms since."""
        data = encode(TermsFrame(self._terms, self.origin))
        try:
            self.number = await self._connection.append(self._subject, data, expect=expect)
        except Fenced:
            return False
        return True

    async def hold(self) -> None:
        """Make sure that the edges still go by this edge's terms.

        Raises
        ------
        FlowError
            If the flow was started elsewhere with other terms, while this edge was frozen or cut off.
        """
        stored = await self._stored()
        found = stored.terms
        if stored.readable and _differences(found.terms, self._terms):
            raise FlowError(
                f"flow {self._settings.name!r} was started in {found.edge} with other settings: "
                f"{_told(found.terms, self._terms)}. This edge was silent then, and ends. Start it anew with "
                "the same settings."
            )
        self.number = stored.sequence or self.number

    @property
    def input(self) -> str:
        """The input of the notation that the edges agree on."""
        return str(self._terms["input"])

    def answer(self, notation: str) -> dict[str, Any]:
        """Return the answer to the question who runs the flow, as a control frame's arguments."""
        answer: dict[str, Any] = msgspec.to_builtins(TermsFrame(self._terms, self.origin, notation))
        return answer

    async def change_input(self, input: str) -> None:  # noqa: A002 - as above
        """Store another input: the dataflow is being changed, and no other edge runs.

        Raises
        ------
        FlowError
            If another edge has stored other terms since.
        """
        self._terms = self._terms | {"input": input}
        while not await self._store(self.number):
            await self.hold()


async def alone(connection: Connection, settings: EdgeSettings, input: str) -> Agreement:  # noqa: A002 - as above
    """Return the agreement of a flow in one partition, which one edge runs.

    Raises
    ------
    FlowError
        If the flow runs already, or is stored in several partitions.
    """
    await refuse_a_second(connection, settings)
    return await Agreement.reached(connection, settings, input, Origin.here())


async def refuse_a_second(connection: Connection, settings: EdgeSettings) -> None:
    """Refuse to go on while an edge runs the flow.

    Raises
    ------
    FlowError
        If the flow runs already.
    """
    runs = await who_runs(connection, Subjects(settings.name))
    if runs is not None:
        n = runs.terms.get("partitions", 1)
        more = (
            f" It has {n} partitions: with FlowOptions(partitions={n}) this is one more edge."
            if n != 1
            else ""
        )
        raise FlowError(
            f"flow {settings.name!r} runs already, in {runs.edge}; partitions is 1 here, for one edge alone."
            f"{more} Stop the flow there first, or give this one another name."
        )


async def partitions_of(marks: Log, subjects: Subjects) -> int:
    """Return how many partitions a stored flow is divided into."""
    found = await _stored_terms(marks, subjects)
    return int(found.terms.terms.get("partitions", 1)) if found is not None else 1


@dataclass(frozen=True, slots=True)
class _Stored:
    """The record of a flow's terms: its sequence (0: there is none), the terms, and whether it was read."""

    sequence: int
    terms: TermsFrame
    readable: bool = True


async def _stored_terms(marks: Log, subjects: Subjects) -> _Stored | None:
    """Return the record of a flow's terms; None if nothing is stored.

    A store of version 0.1 has no such record, and knows the partitions alone. Of a record that can't be read,
    the partitions are those that have checkpoints.
    """
    record = await marks.latest(subjects.mark(_MARK))
    sequence = record.sequence if record is not None else 0
    try:
        if record is not None:
            return _Stored(sequence, decode(record.data, TermsFrame))
        before = await marks.latest(subjects.mark(_PARTITIONS))
        if before is not None:
            terms = {"partitions": decode(before.data, MarkFrame).sequence}
            return _Stored(0, TermsFrame(terms, _UNKNOWN))
    except FrameError as error:
        log.warning("the settings of flow %s in %s can't be read: %s", subjects.flow, marks.spec.name, error)
        partitions = 0
        while await marks.latest(subjects.mark(f"partition-{partitions}")) is not None:
            partitions += 1
        terms = {"partitions": partitions} if partitions else {}
        return _Stored(sequence, TermsFrame(terms, _UNKNOWN), readable=False)
    if await marks.latest(subjects.mark("partition-0")) is not None:
        return _Stored(0, TermsFrame({"partitions": 1}, _UNKNOWN))
    return None


def _differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """Return the terms that differ; a term that one of the two doesn't know is none."""
    return [name for name in mine if name in theirs and theirs[name] != mine[name]]


def _told(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{_NAMES[name]} is {theirs[name]!r} there and {mine[name]!r} here"
        for name in _differences(theirs, mine)
    )


async def who_runs(connection: Connection, subjects: Subjects) -> TermsFrame | None:
    """Return the answer of an edge that runs the flow now; None if no edge answers."""
    question = encode(ControlFrame("who"))
    try:
        answer = decode(await connection.request(subjects.edges, question, _ANSWER), ControlFrame)
        return msgspec.convert(answer.arguments, TermsFrame)
    except (WaitTimeout, FrameError, msgspec.ValidationError):
        return None
