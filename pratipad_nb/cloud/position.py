"""The stored position of a reader, and the handle that holds the reader's name.

Owns the `StoredRead` in the log of the reader's position: storing the position, taking the name over, handing
the name over to a newer handle, and noticing that a newer handle has it. Fetching frames and acknowledging
them are for `log_source`.

* **One holder.** A handle takes the name over when it opens the output: it stores the position again, as its
  own. Every append is conditional on the position before it, so no older handle moves the position any more.
* **Told, not shared.** An older handle that finds another holder raises `TakenOver`, from then on at every
  call.
* **Sure for a while.** A loop hands messages out before their position is stored. It does so only while this
  handle is `sure` to hold the name: for `Patience.sure` seconds after a look at the stored position. So a
  process that was frozen looks again before it hands anything out.
* **Handed over.** Where the holder loops, a newer handle first names itself as the heir. The holder sees that
  within `Patience.sure`, and stores the position behind the messages that it has handed out, for the heir. A
  holder that doesn't answer within `Patience.handover`, as it is frozen or does nothing, loses the name. A
  holder that only takes needn't be asked: its position is stored before a `take` returns.
* **Not lost to the past.** If the log of the position goes back, as its server comes up with an older store,
  an older position is the newest again, maybe of an older handle. No handle loses its name to such a
  position: the handle takes the name over again.
* **Never guessed.** A stored position that can't be read says neither which messages are taken nor who holds
  the name, and the log of the position keeps the newest entry alone. So every handle of the name raises
  `FrameError`, until `seek` stores a position anew or the flow forgets the reader: a guess would skip
  messages, or hand them out twice. Other readers and the flow go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from pratipad_nb.backoff import Backoff
from pratipad_nb.errors import (
    Fenced,
    FrameError,
    LogFull,
    NotInvited,
    TakenOver,
    TransportClosed,
    TransportError,
    Unavailable,
    WaitTimeout,
)
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ReadFrame, StoredRead
from pratipad_nb.transport.origin import Origin
from pratipad_nb.transport.protocol import Connection, Log, Record
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Patience", "StoredPosition", "stored_read"]

#: First and longest pause before a save that got no answer is tried again, in seconds. An heir looks after
#: the first pause whether the name has been handed over.
_POLL, _LONGEST_PAUSE = 0.05, 0.5
#: Giving the name back at the end may take this long, in seconds; without that, the next handle may have to
#: wait `Patience.handover`.
_GIVE_BACK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a reader waits for its server, and for another handle of its name.

    Attributes
    ----------
    silence
        After so many seconds in which nothing arrived, the log itself is asked whether there is more.
    store
        Storing the position is tried for at least this long, in seconds, however little time is left: the
        messages have arrived already.
    sure
        For so many seconds after a look at the stored position, a handle is sure to hold the name.
    handover
        After so many seconds, a holder that doesn't hand the name over loses it.
    """

    silence: float = 2.0
    store: float = 1.0
    sure: float = 0.4
    handover: float = 5.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A handle's claim to its reader's name.

    Attributes
    ----------
    stored
        The stored position.
    made
        Whether the position was stored for the claim; else this handle held the name already.
    went_back
        Whether the position is older than the position that this handle stored last: its log went back.
    """

    stored: Record
    made: bool
    went_back: bool


def stored_read(stored: Record) -> StoredRead:
    """Return the position in `stored`.

    Raises
    ------
    FrameError
        If `stored` is no position; the error says what to do.
    """
    try:
        return decode(stored.data, StoredRead)
    except FrameError as error:
        raise FrameError(
            f"entry {stored.sequence} under {stored.subject} is no reader's position: {error} Which messages "
            "the reader has taken isn't known. Begin anew with seek('oldest') or seek('newest'), or have the "
            "flow forget_reader() the reader."
        ) from error


class StoredPosition:
    """The stored position of the reader `name`, as one handle knows it.

    Parameters
    ----------
    following
        Returns the position of the first message that the handle hasn't handed out.
    seen
        Returns the time of the newest frame of which messages before a position were taken; see `StoredRead`.

    Attributes
    ----------
    saved, at
        The position that was stored last, and its sequence in the log of the position.
    positions
        The log of the position; None: to be looked for.
    sure_until
        Until then, by the monotonic clock, messages may be handed out before their position is stored. A
        plain attribute, for it is read for every message of a loop.
    """

    def __init__(
        self,
        connection: Connection,
        flow: str,
        name: str,
        patience: Patience,
        following: Callable[[], ReadFrame],
        seen: Callable[[ReadFrame], float],
    ) -> None:
        self._connection = connection
        subjects = Subjects(flow)
        self._subject, self._stream = subjects.read(name), subjects.position_stream(name)
        self._flow = flow
        self._name = name
        self._patience = patience
        self._following = following
        self._seen = seen
        self._origin = Origin.here()
        self._has_held = False
        self._newer: Origin | None = None
        # Encoded positions that may be stored or not: their `save` was cancelled, or got no answer.
        self._doubtful: set[bytes] = set()
        self.saved = ReadFrame(0, 0)
        self.at = 0
        self.positions: Log | None = None
        self._sure_until = self.sure_until = -math.inf
        #: Whether this handle hands out messages before their position is stored, and whether that is stored.
        self._leads = self._leads_stored = False

    # -- holding the name ------------------------------------------------------------------------------------

    @property
    def sure(self) -> bool:
        """Whether this handle is sure to hold the name now."""
        return time.monotonic() < self._sure_until

    async def claim(
        self, positions: Log, first: int, *, went_back: bool, anew: bool = False, after_cut: bool = False
    ) -> Claim:
        """Take the name over, unless this handle holds it.

        Parameters
        ----------
        positions
            The log of the position.
        first
            Sequence of the frame at which a reader without a position begins.
        went_back
            Whether the output log is known to have gone back, and the log of the position with it.
        anew
            Whether the position is to be stored anew, so that a position that can't be read is none.
        after_cut
            Whether the link was down since this handle's position was stored: a position that is missing now
            was not forgotten then, but is of a store from before this reader came.

        Raises
        ------
        TakenOver
            If a newer handle holds the name, or is to.
        FrameError
            If the stored position can't be read.
        """
        asked_until: float | None = None
        made = False
        while True:
            self.check()
            began = time.monotonic()
            stored = await positions.latest(self._subject)
            if not made:
                missing = after_cut and stored is None and self.at > 0
                went_back = went_back or missing or await self._is_behind(stored, positions)
            try:
                found = stored_read(stored) if stored else StoredRead(first, 0)
            except FrameError:
                if not anew:
                    raise
                found = StoredRead(first, 0)
            if stored is not None and found.holder == self._origin:
                if not went_back:
                    await self._judge(stored)
                self._leads_stored = found.leads
                self._is_sure(began)
                return Claim(stored, asked_until is not None, went_back)
            has_to_ask = self._has_to_ask(found)
            self._check_newest(found, asked=has_to_ask and asked_until is not None, went_back=went_back)
            if has_to_ask and asked_until is not None and began < asked_until:
                await asyncio.sleep(_POLL)
                continue
            asks = has_to_ask and asked_until is None
            claim = await self._claim(stored, found, asks=asks)
            if claim is not None and not asks:
                self._leads_stored = self._leads
                self._is_sure(began)
                return Claim(claim, True, went_back)
            made = made or claim is not None
            if claim is not None:
                asked_until = time.monotonic() + self._patience.handover

    async def _claim(self, stored: Record | None, found: StoredRead, *, asks: bool) -> Record | None:
        """Store this handle as the holder, or, if it `asks`, as the heir; None if `stored` is old by now."""
        holder, heir = (found.holder, self._origin) if asks else (self._origin, None)
        leads = found.leads if asks else self._leads
        data = encode(StoredRead(found.sequence, found.offset, holder, leads, heir, found.seen))
        expect = stored.sequence if stored is not None else 0
        try:
            at = await self._connection.append(self._subject, data, expect=expect)
        except Fenced:  # the holder has moved on, or another handle is taking the name over
            return None
        return Record(self._subject, data, at, time.time())

    def _check_newest(self, found: StoredRead, *, asked: bool, went_back: bool) -> None:
        """Raise `TakenOver` if a handle that came after this handle has the name, or asks for it."""
        if self._has_held and not went_back and found.holder is not None:
            self._lose(found.holder)
        if asked and found.heir != self._origin:
            self._lose(found.heir or found.holder)

    def _has_to_ask(self, found: StoredRead) -> bool:
        """Return whether the name's holder may have messages handed out, and is to be asked to end."""
        holder = found.holder
        return found.leads and holder is not None and not holder.in_this_process and not holder.gone

    def _is_sure(self, began: float) -> None:
        """Note that this handle held the name at `began`, by the monotonic clock."""
        self._has_held = True
        self._sure_until = began + self._patience.sure
        self.sure_until = self._sure_until if self._leads_stored else -math.inf

    def check(self) -> None:
        """Raise `TakenOver` if this handle has lost the name."""
        if self._newer is not None:
            self._lose(self._newer)

    def _lose(self, newer: Origin | None) -> NoReturn:
        assert newer is not None
        self._newer = newer
        self._sure_until = self.sure_until = -math.inf
        raise TakenOver(
            f"{newer} reads {self._flow!r} as {self._name!r}, and has taken this reader's place: a reader's "
            "messages go to its newest handle alone. To read in both places, give each a reader's name of "
            "its own (reader=NAME, --reader NAME); to read here again, begin here anew.",
            reader=self._name,
            host=newer.host,
            pid=newer.pid,
            since=newer.since,
        )

    async def _judge(self, stored: Record | None) -> bool:
        """Return whether `stored` is this handle's; hand the name over if an heir waits for it.

        Raises
        ------
        TakenOver
            If the name is another handle's, or was handed over just now.
        """
        found = stored_read(stored) if stored is not None else None
        if stored is None or found is None or found.holder is None or stored.sequence < self.at:
            return False
        if found.holder != self._origin:
            self._lose(found.holder)
        if found.heir is not None:
            position = self._following()
            data = self._encoded(position, found.heir)
            with contextlib.suppress(TransportError, WaitTimeout):  # then the heir takes the name by itself
                await self._connection.append(self._subject, data, expect=stored.sequence)
            self._lose(found.heir)
        return True

    def _encoded(self, position: ReadFrame, holder: Origin | None, *, leads: bool = False) -> bytes:
        return encode(
            StoredRead(position.sequence, position.offset, holder, leads, seen=self._seen(position))
        )

    async def lead(self) -> None:
        """Make sure that this handle may hand out messages before their position is stored.

        Raises
        ------
        TakenOver, Fenced, WaitTimeout
            As `confirm` and `save`.
        """
        if self._leads_stored:
            await self.confirm()
        else:
            self._leads = True
            await self.save(self.saved, 0.0)

    async def confirm(self) -> None:
        """Look whether this handle still holds the name.

        Raises
        ------
        TakenOver
            If it doesn't.
        Fenced
            If no handle holds the name: the position was forgotten or went back, or another handle held the
            name and ended.
        """
        self.check()
        began = time.monotonic()
        if not await self._judge(await self._newest()):
            raise Fenced(f"the position of reader {self._name!r} of {self._flow!r} was moved elsewhere.")
        self._is_sure(began)

    async def give_back(self) -> None:
        """Store that no handle reads under the name, so that the next handle needn't ask this handle."""
        if not self._has_held or self._newer is not None or not self._connection.connected:
            return
        data = self._encoded(self.saved, None)
        self._sure_until = self.sure_until = -math.inf
        with contextlib.suppress(TransportError, WaitTimeout, TakenOver, FrameError):
            try:
                self.at = await self._connection.append(
                    self._subject, data, expect=self.at, timeout=_GIVE_BACK_SECONDS
                )
            except Fenced:  # an heir may be waiting
                await self._judge(await self._newest())

    # -- moving ----------------------------------------------------------------------------------------------

    @property
    def in_doubt(self) -> bool:
        """Whether another position than `saved` may be stored."""
        return bool(self._doubtful)

    def begin(self, stored: Record) -> None:
        """Go on from `stored`: no position in doubt can be stored any more."""
        self._adopt(stored)

    def adopt_own(self, stored: Record) -> None:
        """Adopt `stored` if it is an earlier position of this handle that was in doubt."""
        if stored.sequence != self.at and stored.data in self._doubtful:
            self._adopt(stored)

    async def save(self, position: ReadFrame, seconds: float) -> None:
        """Store `position`, trying for `seconds` and a little longer.

        A save that was cancelled, or got no answer, is in doubt, and the next save settles the doubt. Each
        save is conditional on the sequence of the stored position that it follows (`expect`). So either the
        next save is stored, and the earlier one can never be stored any more; or the next save is fenced, and
        the earlier one is found stored and adopted.

        Raises
        ------
        TakenOver
            If a newer handle holds the name.
        Fenced
            If no handle holds the name, and the position was moved or forgotten since, or went back.
        WaitTimeout
            If the server doesn't answer.
        """
        self.check()
        end = time.monotonic() + max(seconds, self._patience.store)
        backoff = Backoff(_POLL, _LONGEST_PAUSE)
        while position != self.saved or self._doubtful or self._leads != self._leads_stored:
            try:
                await self._store(position, max(0.1, end - time.monotonic()))
            except WaitTimeout:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(backoff.next())

    async def _store(self, position: ReadFrame, seconds: float) -> None:
        """Store `position`, or adopt an earlier position of this handle that turns out to be stored."""
        data = self._encoded(position, self._origin, leads=self._leads)
        began = time.monotonic()
        earlier = frozenset(self._doubtful)
        self._doubtful.add(data)
        try:
            at = await self._connection.append(self._subject, data, expect=self.at, timeout=seconds)
        except TransportError as error:
            self._doubtful = set(earlier)  # `position` is not stored, for certain
            if not isinstance(error, Fenced) and not await self._is_gone(error):
                raise
            newest = await self._newest()
            if not await self._judge(newest) or newest is None:
                self._doubtful.clear()
                raise Fenced(str(error)) from error
            self._adopt(newest)
        else:
            self.saved, self.at = position, at
            self._leads_stored = self._leads
            self._doubtful.clear()
        self._is_sure(began)

    async def _is_gone(self, error: TransportError) -> bool:
        """Return whether `error` came since the log of the position is gone: the reader was forgotten."""
        if isinstance(error, (LogFull, NotInvited, TransportClosed, Unavailable)):
            return False
        self.positions = None
        return await self._connection.find_log(self._stream) is None

    async def went_back(self) -> bool:
        """Return whether the stored position is older than the one that this handle has stored."""
        positions = self.positions or await self._connection.find_log(self._stream)
        return positions is None or await self._is_behind(await positions.latest(self._subject), positions)

    async def _is_behind(self, stored: Record | None, positions: Log) -> bool:
        # A position of this handle that is missing was forgotten, unless its log went back behind it.
        return (stored.sequence if stored is not None else (await positions.state()).last) < self.at

    async def _newest(self) -> Record | None:
        positions = self.positions or await self._connection.find_log(self._stream)
        return await positions.latest(self._subject) if positions is not None else None

    def _adopt(self, stored: Record) -> None:
        """Take `stored` as this handle's position: no other position in doubt can be stored any more."""
        read = stored_read(stored)
        self.saved, self.at = ReadFrame(read.sequence, read.offset), stored.sequence
        self._doubtful.clear()
