"""Which devices are connected to a NATS server: a list now and then, and the server's events in between.

Owns the table of connections, its upkeep, and the choice of the questions, which depends on the accounts that
the server has. The questions themselves are for `nats_clients`.

* A server with accounts of ours tells the flow's account who is connected to the accounts of its devices, and
  sends an event for each connection that begins or ends. Events get lost, with a link or a node, so a list
  is asked for once a minute, too.
* A server where all parties share an account sends no events. There the list alone tells who is connected,
  and is asked for as often as its size permits.
* A server of others may deny both. Then there is no news.

A client's id is unique among all clients that a node ever had. So an event of a connection that has ended
says nothing of another connection of the same device, and what events said while a list was on its way
outweighs the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from pratipad_nb.errors import NotInvited, TransportError, Unavailable, WaitTimeout
from pratipad_nb.transport.nats_account import account_of
from pratipad_nb.transport.nats_clients import OWN_ACCOUNT, Answered, connections, identity_in, listening
from pratipad_nb.transport.nats_link import NatsLink
from pratipad_nb.transport.protocol import News, Signal, Subscription
from pratipad_nb.transport.subjects import Subjects

__all__ = ["NatsAttendance", "Table"]

log = logging.getLogger(__name__)

#: Seconds between two lists where events tell of changes.
_LIST_SECONDS = 60.0
#: Bytes of lists a second, at most: a list of 300 devices has some 40 kB, and comes every ten seconds then.
_BYTES_A_SECOND = 4096
#: Shortest pause between two lists, in seconds.
_SHORTEST = 1.0
#: Seconds until a list that a node of the cluster is missing from is asked for again.
_MISSING_SECONDS = 2.0
#: Lists in a row that a node may be missing from before the node's clients count as gone.
_MISSED_LISTS = 2
#: Accounts that are asked at the same time, where each device has an account of its own.
_AT_ONCE = 32
#: Subjects that are asked about one by one: of more, all listeners of all devices are asked for at once.
_ONE_BY_ONE = 8
#: The kinds of devices whose accounts are asked.
_KINDS = ("devices", "mqtt")
#: The kind of all clients where all parties share an account.
_SHARED = ""
#: The accounts of flows' edges begin with this, after the tenant.
_ACCOUNT = "F_"


class _Client(msgspec.Struct):
    id: int
    user: str = ""
    kind: str = "Client"


class _Node(msgspec.Struct):
    id: str


class _Event(msgspec.Struct):
    server: _Node
    client: _Client


_events = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class Table:
    """The connections, by kind and node, and how many each identity has.

    Attributes
    ----------
    counts
        How many connections each identity has; identities without any are left out.
    changed
        The identities that events or lists have spoken of since `take`.
    """

    counts: dict[str, int] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    _parts: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)
    #: What events said since `begin`: the connections that began, and those that ended.
    _begun: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)
    _ended: set[tuple[str, int]] = field(default_factory=set)
    _missed: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def kinds(self) -> set[str]:
        """The kinds that connections are of."""
        return {kind for kind, _ in self._parts}

    def nodes(self, kind: str) -> set[str]:
        """Return the nodes that have told of connections of `kind`."""
        return {node for each, node in self._parts if each == kind}

    def take(self) -> frozenset[str]:
        """Return the identities that were spoken of, and forget them."""
        changed, self.changed = frozenset(self.changed), set()
        return changed

    def came(self, kind: str, node: str, client: int, identity: str) -> None:
        """Take note of an event: a connection has begun."""
        part = self._parts.setdefault((kind, node), {})
        if client not in part:
            part[client] = identity
            self._count(identity, 1)
        self._begun.setdefault((kind, node), {})[client] = identity
        self.changed.add(identity)

    def went(self, kind: str, node: str, client: int, identity: str) -> None:
        """Take note of an event: a connection has ended. The event that it began may be lost."""
        known = self._parts.get((kind, node), {}).pop(client, None)
        if known is not None:
            self._count(known, -1)
        self._ended.add((node, client))
        self.changed.add(identity)

    def begin(self) -> None:
        """Take note that a list is asked for: events outweigh the list from now on."""
        self._begun.clear()
        self._ended.clear()

    def listed(self, kind: str, clients: Mapping[str, Mapping[int, str]], *, alone: bool) -> bool:
        """Take a list over; return whether all known nodes are in the list.

        Nodes that are missing keep their connections for a while, for an answer may be late. `alone`: there
        is one node only, so that a node that is missing is the same server before a restart.
        """
        for node, found in clients.items():
            begun = self._begun.get((kind, node), {})
            ended = {client for at, client in self._ended if at == node}
            self._replace((kind, node), {c: i for c, i in {**found, **begun}.items() if c not in ended})
        complete = True
        for part in [(each, node) for each, node in self._parts if each == kind and node not in clients]:
            missed = self._missed[part] = self._missed.get(part, 0) + 1
            if alone or missed >= _MISSED_LISTS:
                self._drop(part)
            else:
                complete = False
        return complete

    def keep_to(self, kinds: Collection[str]) -> None:
        """Drop the connections of other kinds than `kinds`: the server doesn't know these any more."""
        for part in [part for part in self._parts if part[0] not in kinds]:
            self._drop(part)

    def _drop(self, part: tuple[str, str]) -> None:
        self._replace(part, {})
        del self._parts[part]
        self._missed.pop(part, None)

    def _replace(self, part: tuple[str, str], clients: dict[int, str]) -> None:
        before = self._parts.get(part, {})
        for client in before.keys() - clients.keys():
            self._count(before[client], -1)
        for client in clients.keys() - before.keys():
            self._count(clients[client], 1)
        self._parts[part] = clients
        self._missed.pop(part, None)

    def _count(self, identity: str, by: int) -> None:
        count = self.counts.get(identity, 0) + by
        if count > 0:
            self.counts[identity] = count
        else:
            self.counts.pop(identity, None)
        self.changed.add(identity)


class NatsAttendance:
    """An `Attendance` of the devices of `flow`."""

    def __init__(self, link: NatsLink, flow: str, devices: Callable[[], Iterable[str]]) -> None:
        self._link = link
        self._subjects = Subjects(flow)
        self._devices = devices
        self._table = Table()
        #: By kind, the subjects of the questions that the server has answered last; None: none yet.
        self._asked: dict[str, str] | None = None
        self._live = False
        #: When to find out anew which accounts the server has, where all parties share an account.
        self._reconsider = 0.0
        #: Shortest time between two lists, by the size of the last list.
        self._pause = _SHORTEST
        self._listed, self._due, self._wanted = 0.0, 0.0, False
        #: Grows with each reconnect.
        self._era = 0
        self._wake = asyncio.Event()

    @property
    def connections(self) -> Mapping[str, int]:
        """How many connections each identity has now."""
        return self._table.counts

    @property
    def live(self) -> bool:
        """Whether the server sends events."""
        return self._live

    def refresh(self) -> None:
        """Let the server be asked for a list soon: as often as the size of lists permits."""
        self._wanted = True
        self._wake.set()

    async def listening(self, subjects: Collection[str]) -> frozenset[str]:
        """Return those of `subjects` that a client listens to now."""
        if not subjects:
            return frozenset()
        if self._asked is None:
            raise Unavailable("the server has not said yet which devices are connected")
        root = next(iter(subjects)).rpartition(".")[0]
        filters = list(subjects) if len(subjects) <= _ONE_BY_ONE else [f"{root}.*"]
        found: set[str] = set()

        async def ask(kind: str, subject: str, wanted: str) -> None:
            found.update(await listening(self._link, subject, wanted, self._table.nodes(kind)))

        await _all_of(
            [
                partial(ask, kind, subject, wanted)
                for kind, subject in self._asked.items()
                for wanted in filters
                # Where a device has an account of its own, the kind is the device's name.
                if kind in (*_KINDS, _SHARED) or wanted in (f"{root}.{kind}", f"{root}.*")
            ]
        )
        return frozenset(found & set(subjects))

    # -- news ------------------------------------------------------------------------------------------------

    async def news(self) -> AsyncGenerator[News, None]:
        """Iterate over the news, without end."""
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(self._link.on_reconnect(self._on_reconnect))
            for subject in (self._subjects.connected("*"), self._subjects.disconnected("*")):
                undo.push_async_callback((await self._subscribed(subject)).close)
            while True:
                self._wake.clear()
                if self._seconds_to_list <= 0:
                    asked = time.monotonic()
                    if await self._list():
                        yield News(self._table.take(), asked)
                if self._table.changed and self._asked is not None:
                    yield News(self._table.take())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_to_list):
                        await self._wake.wait()

    async def _subscribed(self, subject: str) -> Subscription:
        while True:
            try:
                return await self._link.subscribe(subject, self._on_event)
            except (TransportError, WaitTimeout) as error:
                log.debug("the server's events can't be subscribed to now: %s", error)
                await asyncio.sleep(_SHORTEST)

    def _on_event(self, signal: Signal) -> None:
        _, happened, kind = signal.subject.rsplit(".", 2)
        try:
            event = _events.decode(signal.data)
        except msgspec.DecodeError as error:
            log.info("an event of the server's can't be read: %s", error)
            return
        if event.client.kind == "Client":
            tell = self._table.came if happened == "connected" else self._table.went
            tell(kind, event.server.id, event.client.id, identity_in(event.client.user))
            self._wake.set()
            if self._asked is not None and kind not in self._asked:
                # The account was made after the last list, as for a flow's first device that speaks MQTT.
                self.refresh()

    def _on_reconnect(self) -> None:
        # Events got lost, and the server may be another one.
        self._era += 1
        self._due = self._reconsider = 0.0
        self._wake.set()

    # -- lists -----------------------------------------------------------------------------------------------

    @property
    def _seconds_to_list(self) -> float:
        due = min(self._due, self._listed + self._pause) if self._wanted else self._due
        return max(0.0, due - time.monotonic())

    async def _list(self) -> bool:
        """Ask the server for a list; return whether the server has answered."""
        era, self._wanted = self._era, False
        self._table.begin()
        try:
            answers = await self._answers()
        except (TransportError, WaitTimeout) as error:
            log.debug("the server doesn't say which devices are connected: %s", error)
            denied = isinstance(error, (NotInvited, Unavailable))
            self._plan(_LIST_SECONDS if denied else _SHORTEST, era)
            return False
        complete = True
        for kind, answered in answers.items():
            listed = self._table.listed(kind, answered.clients, alone=not self._link.clustered)
            complete = complete and listed
        self._table.keep_to(answers)
        size = sum(answered.bytes for answered in answers.values())
        self._pause = min(_LIST_SECONDS, max(_SHORTEST, size / _BYTES_A_SECOND))
        # Without any answer from an account of devices, that account may be being made.
        period = _LIST_SECONDS if self._live and answers else self._pause
        self._plan(period if complete else min(period, _MISSING_SECONDS), era)
        return True

    def _plan(self, seconds: float, era: int) -> None:
        self._listed = time.monotonic()
        self._due = self._listed + seconds if era == self._era else 0.0

    async def _answers(self) -> dict[str, Answered]:
        """Return the answers by kind; find out first how the server's accounts are laid out.

        Raises
        ------
        NotInvited, Unavailable
            If the server doesn't allow the question.
        WaitTimeout
            If the link is down, or the server doesn't answer.
        """
        if self._live or time.monotonic() >= self._reconsider:
            answers = await self._answers_of(_KINDS)
            self._live = bool(answers)
            if "devices" not in answers and await self._in_account_of_flow():
                self._live = True
                answers |= await self._answers_of(self._table.kinds.union(self._devices()).difference(_KINDS))
            if self._live:
                self._asked = {kind: self._subjects.presence(kind) for kind in answers}
                return answers
            self._reconsider = time.monotonic() + _LIST_SECONDS
        answered = await connections(self._link, OWN_ACCOUNT)
        self._asked = {_SHARED: OWN_ACCOUNT}
        return {_SHARED: answered}

    async def _in_account_of_flow(self) -> bool:
        # Where each device has an account of its own, no account is there before the first device.
        return (await account_of(self._link)).rpartition("~")[2].startswith(_ACCOUNT)

    async def _answers_of(self, kinds: Iterable[str]) -> dict[str, Answered]:
        """Return the answers of those `kinds` that the server knows."""
        answers: dict[str, Answered] = {}

        async def ask(kind: str) -> None:
            with contextlib.suppress(NotInvited, Unavailable):
                answers[kind] = await connections(self._link, self._subjects.presence(kind))

        await _all_of([partial(ask, kind) for kind in kinds])
        return answers


async def _all_of(questions: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Ask `questions`, some at a time; raise the first error, after the others have been answered."""
    errors: list[TransportError | WaitTimeout] = []

    async def ask(question: Callable[[], Awaitable[None]]) -> None:
        try:
            await question()
        except (TransportError, WaitTimeout) as error:
            errors.append(error)

    for at in range(0, len(questions), _AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for question in questions[at : at + _AT_ONCE]:
                group.create_task(ask(question))
    if errors:
        raise errors[0]
