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
from pratipad_nb.transport.nats_events import event_in
from pratipad_nb.transport.nats_link import NatsLink
from pratipad_nb.transport.protocol import News, Signal, Subscription
from pratipad_nb.transport.subjects import Subjects

__all__ = ["NatsAttendance", "Roll", "Table"]

log = logging.getLogger(__name__)

#: Seconds between two lists where events tell of changes. Lists of very many clients, or of clients with very
#: long names, come less often: by so many bytes a second, and after so many seconds at last.
_LIST_SECONDS, _LIST_BYTES_A_SECOND, _LONGEST_LIST_SECONDS = 60.0, 1 << 16, 600.0
#: Seconds until the next list where no account of devices has answered.
_UNANSWERED_SECONDS = 10.0
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
_KINDS = frozenset({"devices", "mqtt"})
#: The kind of all clients where all parties share an account.
_SHARED = ""
#: The accounts of flows' edges begin with this, after the tenant.
_ACCOUNT = "F_"


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


class _Reader:
    """One iteration over the news: what has been told since the iteration's last step."""

    def __init__(self, devices: Callable[[], Iterable[str]]) -> None:
        self.devices = devices
        #: Set whenever there may be news, or the roll may have nobody to keep it.
        self.woken = asyncio.Event()
        self._identities: set[str] = set()
        self._asked: float | None = None

    def tell(self, identities: Iterable[str], asked: float | None) -> None:
        self._identities.update(identities)
        self._asked = asked if asked is not None else self._asked
        self.woken.set()

    def take(self) -> News | None:
        if not self._identities and self._asked is None:
            return None
        news = News(frozenset(self._identities), self._asked)
        self._identities, self._asked = set(), None
        return news


class NatsAttendance:
    """An `Attendance` of the devices of a flow."""

    def __init__(self, roll: Roll, devices: Callable[[], Iterable[str]]) -> None:
        self._roll = roll
        self._devices = devices

    @property
    def connections(self) -> Mapping[str, int]:
        """How many connections each identity has now."""
        return self._roll.table.counts

    @property
    def live(self) -> bool:
        """Whether the server sends events."""
        return self._roll.live

    def refresh(self) -> None:
        """Let the server be asked for a list soon: as often as the size of lists permits."""
        self._roll.refresh()

    async def listening(self, subjects: Collection[str]) -> frozenset[str]:
        """Return those of `subjects` that a client listens to now."""
        return await self._roll.listening(subjects)

    def news(self) -> AsyncGenerator[News, None]:
        """Iterate over the news, without end."""
        return self._roll.news(_Reader(self._devices))


class Roll:
    """Which devices of `flow` are connected, for all attendances of one connection.

    The edges of a flow's partitions share a connection, and the roll is kept once for all of them: at any
    time one of the readers keeps it, and tells the others.
    """

    def __init__(self, link: NatsLink, flow: str) -> None:
        self.table = Table()
        self.live = False
        self._link = link
        self._subjects = Subjects(flow)
        self._readers: list[_Reader] = []
        #: Held by the reader that keeps the roll.
        self._keeping = asyncio.Lock()
        self._undo: contextlib.AsyncExitStack | None = None
        #: By kind, the subjects of the questions that the server has answered last; None: none yet.
        self._asked: dict[str, str] | None = None
        #: When the last list was asked for.
        self._asked_at = 0.0
        #: When to find out anew which accounts the server has, where all parties share an account.
        self._reconsider = 0.0
        #: Shortest time between two lists, by the size of the last list.
        self._pause = _SHORTEST
        self._listed, self._due, self._wanted = 0.0, 0.0, False
        #: Grows with each reconnect.
        self._era = 0
        self._wake = asyncio.Event()

    def refresh(self) -> None:
        """See `NatsAttendance.refresh`."""
        self._wanted = True
        self._wake.set()

    async def listening(self, subjects: Collection[str]) -> frozenset[str]:
        """See `NatsAttendance.listening`."""
        if not subjects:
            return frozenset()
        if self._asked is None:
            raise Unavailable("the server has not said yet which devices are connected")
        root = next(iter(subjects)).rpartition(".")[0]
        filters = list(subjects) if len(subjects) <= _ONE_BY_ONE else [f"{root}.*"]
        found: set[str] = set()

        async def ask(kind: str, subject: str, wanted: str) -> None:
            found.update(await listening(self._link, subject, wanted, self.table.nodes(kind)))

        await _all_of(
            [
                partial(ask, kind, subject, wanted)
                for kind, subject in self._asked.items()
                for wanted in filters
                # Where a device has an account of its own, the kind is the device's name.
                if kind in _KINDS or kind == _SHARED or wanted in (f"{root}.{kind}", f"{root}.*")
            ]
        )
        return frozenset(found & set(subjects))

    # -- news ------------------------------------------------------------------------------------------------

    async def news(self, reader: _Reader) -> AsyncGenerator[News, None]:
        """Iterate over the news, and keep the roll where no other reader does."""
        if self._asked is not None:
            reader.tell(self.table.counts, self._asked_at)
        self._readers.append(reader)
        try:
            while True:
                reader.woken.clear()
                if (news := reader.take()) is not None:
                    yield news
                elif self._keeping.locked():
                    await reader.woken.wait()
                else:
                    await self._keep()
        finally:
            self._readers.remove(reader)
            if not self._readers:
                await self._close()

    async def _keep(self) -> None:
        """Wait for events, or for the time of the next list, and tell all readers."""
        try:
            async with self._keeping:
                await self._open()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_to_list):
                        await self._wake.wait()
                self._wake.clear()
                asked = time.monotonic() if self._seconds_to_list <= 0 else None
                if asked is not None:
                    asked = asked if await self._list() else None
                    self._asked_at = asked or self._asked_at
                if self._asked is not None and (asked is not None or self.table.changed):
                    changed = self.table.take()
                    for reader in self._readers:
                        reader.tell(changed, asked)
        finally:
            for reader in self._readers:
                reader.woken.set()  # another reader may have to keep the roll

    async def _open(self) -> None:
        if self._undo is not None:
            return
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(self._link.on_reconnect(self._on_reconnect))
            for subject in (self._subjects.connected("*"), self._subjects.disconnected("*")):
                undo.push_async_callback((await self._subscribed(subject)).close)
            self._undo = undo.pop_all()
        self._due = 0.0

    async def _close(self) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            await undo.aclose()

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
            event = event_in(signal.data)
        except msgspec.DecodeError as error:
            log.info("an event of the server's can't be read: %s", error)
            return
        if event.client.kind != "Client":
            return
        tell = self.table.came if happened == "connected" else self.table.went
        tell(kind, event.server.id, event.client.id, identity_in(event.client.user))
        if self._asked is not None and kind not in self._asked:
            self._wanted = True  # the account is new, and may be asked who listens from now on
        self._wake.set()

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
        self.table.begin()
        try:
            answers = await self._answers()
        except (TransportError, WaitTimeout) as error:
            log.debug("the server doesn't say which devices are connected: %s", error)
            denied = isinstance(error, (NotInvited, Unavailable))
            self._plan(_LIST_SECONDS if denied else _SHORTEST, era)
            return False
        except BaseException:
            self._wanted = True  # another reader keeps the roll from now on
            raise
        complete = True
        for kind in {*answers, *self.table.kinds}:
            clients = answers[kind].clients if kind in answers else {}
            alone = kind in answers and not self._link.clustered
            complete = self.table.listed(kind, clients, alone=alone) and complete
        size = sum(answered.bytes for answered in answers.values())
        self._pause = min(_LIST_SECONDS, max(_SHORTEST, size / _BYTES_A_SECOND))
        period = self._pause
        if self.live:  # without any answer, an account of devices may be in the making
            period = min(_LONGEST_LIST_SECONDS, max(_LIST_SECONDS, size / _LIST_BYTES_A_SECOND))
            period = period if answers else _UNANSWERED_SECONDS
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
        if self.live or time.monotonic() >= self._reconsider:
            answers = await self._answers_of(_KINDS)
            self.live = bool(answers)
            if "devices" not in answers and await self._in_account_of_flow():
                self.live = True
            if self.live and self._has_each_device(answers):
                answers |= await self._answers_of(self._names())
            if self.live:
                self._asked = {kind: self._subjects.presence(kind) for kind in answers}
                return answers
            self._reconsider = time.monotonic() + _LIST_SECONDS
        answered = await connections(self._link, OWN_ACCOUNT)
        self._asked = {_SHARED: OWN_ACCOUNT}
        return {_SHARED: answered}

    def _has_each_device(self, answers: Collection[str]) -> bool:
        """Return whether each device may have an account of its own: one of them may be called `devices`."""
        return "devices" not in answers or bool(self._names() & _KINDS or self._told_of())

    def _names(self) -> set[str]:
        """Return the devices that events or readers have named."""
        return self._told_of().union(*(reader.devices() for reader in self._readers))

    def _told_of(self) -> set[str]:
        return self.table.kinds - _KINDS - {_SHARED}

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
