"""The stored position of a reader, and the handle that holds the reader's name.

Owns the `StoredRead` under ``read.<reader>``: storing the position, taking the name over, handing the name
over to a newer handle, and noticing that a newer handle has it. Fetching frames and acknowledging them are
for `log_source`.

* **One holder.** A handle takes the name over when it opens the output: it stores the position again, as its
  own. Every append is conditional on the position before it, so no older handle moves the position any more.
* **Told, not shared.** An older handle that finds another holder raises `TakenOver`, from then on at every
  call.
* **Sure for a while.** A loop hands messages out before their position is stored. It does so only while this
  handle is `sure` to hold the name: for `Patience.sure` seconds after a look at the stored position. So a
  process that was frozen looks again before it hands anything out.
* **Handed over.** A newer handle first names itself as the heir. The holder sees that within `Patience.sure`
  and stores the position behind the messages that it has handed out, for the heir. A holder that doesn't
  answer within `Patience.handover`, as it was killed or does nothing, loses the name.
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
from pratipad_nb.errors import Fenced, TakenOver, TransportError, WaitTimeout
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ReadFrame, StoredRead
from pratipad_nb.transport.origin import Origin
from pratipad_nb.transport.protocol import Connection, Log, Record
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Patience", "StoredPosition"]

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
    handover: float = 1.0


class StoredPosition:
    """The stored position of the reader `name`, as one handle knows it.

    Parameters
    ----------
    following
        Returns the position of the first message that the handle hasn't handed out.

    Attributes
    ----------
    saved, at
        The position that was stored last, and its sequence in the log of positions.
    marks
        The log of positions; None: to be looked for.
    sure_until
        This handle is sure to hold the name until then, by the monotonic clock.
    """

    def __init__(
        self,
        connection: Connection,
        flow: str,
        name: str,
        patience: Patience,
        following: Callable[[], ReadFrame],
    ) -> None:
        self._connection = connection
        self._subjects = Subjects(flow)
        self._subject = self._subjects.read(name)
        self._flow = flow
        self._name = name
        self._patience = patience
        self._following = following
        self._origin = Origin.here()
        self._has_held = False
        self._newer: Origin | None = None
        # Encoded positions that may be stored or not: their `save` was cancelled, or got no answer.
        self._doubtful: set[bytes] = set()
        self.saved = ReadFrame(0, 0)
        self.at = 0
        self.marks: Log | None = None
        self.sure_until = -math.inf

    # -- holding the name ------------------------------------------------------------------------------------

    @property
    def sure(self) -> bool:
        """Whether this handle is sure to hold the name now."""
        return time.monotonic() < self.sure_until

    async def claim(self, marks: Log, first: int) -> tuple[Record, bool]:
        """Take the name over, unless this handle holds it; return the stored position.

        Parameters
        ----------
        marks
            The log of positions.
        first
            Sequence of the frame at which a reader without a position begins.

        Returns
        -------
        tuple of Record and bool
            The stored position, and whether this call has stored it.

        Raises
        ------
        TakenOver
            If a newer handle holds the name, or is to.
        """
        asked_until: float | None = None
        while True:
            self.check()
            began = time.monotonic()
            stored = await marks.latest(self._subject)
            found = decode(stored.data, StoredRead) if stored else StoredRead(first, 0)
            if stored is not None and found.holder == self._origin:
                await self._judge(stored)
                self._is_sure(began)
                return stored, asked_until is not None
            has_to_ask = self._has_to_ask(found)
            self._check_newest(found, asked=has_to_ask and asked_until is not None)
            if has_to_ask and asked_until is not None and began < asked_until:
                await asyncio.sleep(_POLL)
                continue
            asks = has_to_ask and asked_until is None
            claim = await self._claim(stored, found, asks=asks)
            if claim is not None and not asks:
                self._is_sure(began)
                return claim, True
            if claim is not None:
                asked_until = time.monotonic() + self._patience.handover

    async def _claim(self, stored: Record | None, found: StoredRead, *, asks: bool) -> Record | None:
        """Store this handle as the holder, or, if it `asks`, as the heir; None if `stored` is old by now."""
        holder, heir = (found.holder, self._origin) if asks else (self._origin, None)
        data = encode(StoredRead(found.sequence, found.offset, holder, heir))
        expect = stored.sequence if stored is not None else 0
        try:
            at = await self._connection.append(self._subject, data, expect=expect)
        except Fenced:  # the holder has moved on, or another handle is taking the name over
            return None
        return Record(self._subject, data, at, time.time())

    def _check_newest(self, found: StoredRead, *, asked: bool) -> None:
        """Raise `TakenOver` if a handle that came after this handle has the name, or asks for it."""
        if self._has_held and found.holder is not None:
            self._lose(found.holder)
        if asked and found.heir != self._origin:
            self._lose(found.heir or found.holder)

    def _has_to_ask(self, found: StoredRead) -> bool:
        """Return whether the name's holder may be handing messages out, and is to be asked to end."""
        holder = found.holder
        return holder is not None and not holder.in_this_process and not holder.gone

    def _is_sure(self, began: float) -> None:
        """Note that this handle held the name at `began`, by the monotonic clock."""
        self._has_held = True
        self.sure_until = began + self._patience.sure

    def check(self) -> None:
        """Raise `TakenOver` if this handle has lost the name."""
        if self._newer is not None:
            self._lose(self._newer)

    def _lose(self, newer: Origin | None) -> NoReturn:
        assert newer is not None
        self._newer = newer
        self.sure_until = -math.inf
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
        found = decode(stored.data, StoredRead) if stored is not None else None
        if stored is None or found is None or found.holder is None:
            return False
        if found.holder != self._origin:
            self._lose(found.holder)
        if found.heir is not None:
            position = self._following()
            data = encode(StoredRead(position.sequence, position.offset, found.heir))
            with contextlib.suppress(TransportError, WaitTimeout):  # then the heir takes the name by itself
                await self._connection.append(self._subject, data, expect=stored.sequence)
            self._lose(found.heir)
        return True

    async def confirm(self) -> None:
        """Look whether this handle still holds the name.

        Raises
        ------
        TakenOver
            If it doesn't.
        Fenced
            If no handle holds the name: the position was forgotten, or another handle held it and ended.
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
        data = encode(StoredRead(self.saved.sequence, self.saved.offset))
        self.sure_until = -math.inf
        with contextlib.suppress(TransportError, WaitTimeout, TakenOver):
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

    def begin(self, stored: Record, *, lost_from: int | None = None) -> None:
        """Go on from `stored`, or from `lost_from`, the first frame that is lost, if that comes first."""
        self._adopt(stored)
        if lost_from is not None and self.saved.sequence > lost_from:
            self.saved = ReadFrame(lost_from, 0)

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
            If no handle holds the name, and the position was moved or forgotten since.
        WaitTimeout
            If the server doesn't answer.
        """
        self.check()
        end = time.monotonic() + max(seconds, self._patience.store)
        backoff = Backoff(_POLL, _LONGEST_PAUSE)
        while position != self.saved or self._doubtful:
            try:
                await self._store(position, max(0.1, end - time.monotonic()))
            except WaitTimeout:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(backoff.next())

    async def _store(self, position: ReadFrame, seconds: float) -> None:
        """Store `position`, or adopt an earlier position of this handle that turns out to be stored."""
        data = encode(StoredRead(position.sequence, position.offset, self._origin))
        began = time.monotonic()
        earlier = frozenset(self._doubtful)
        self._doubtful.add(data)
        try:
            at = await self._connection.append(self._subject, data, expect=self.at, timeout=seconds)
        except TransportError as error:
            self._doubtful = set(earlier)  # `position` is not stored, for certain
            if not isinstance(error, Fenced):
                raise
            newest = await self._newest()
            if not await self._judge(newest) or newest is None:
                self._doubtful.clear()
                raise
            self._adopt(newest)
        else:
            self.saved, self.at = position, at
            self._doubtful.clear()
        self._is_sure(began)

    async def _newest(self) -> Record | None:
        marks = self.marks or await self._connection.find_log(self._subjects.mark_stream)
        return await marks.latest(self._subject) if marks is not None else None

    def _adopt(self, stored: Record) -> None:
        """Take `stored` as this handle's position: no other position in doubt can be stored any more."""
        self.saved, self.at = decode(stored.data, ReadFrame), stored.sequence
        self._doubtful.clear()
