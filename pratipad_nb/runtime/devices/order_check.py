"""The check of orders: which entries of the order log pass, and which are refused.

Owns the conditions. Arrows are law: an entry whose way to the devices the notation closes is refused, whoever
stored the entry. So is a reader's entry that pretends to be a processor's reply, which no processor's
`backward` would see. The server lets each reader store orders under the reader's own subject alone, so the
subject tells whose the entry is. Passing orders on is for `backward`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pratipad_nb.dataflow import Dataflow
from pratipad_nb.errors import FrameError, OneWayError, PayloadError, SettingsError
from pratipad_nb.runtime.positions.unreadable import Unreadable
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.refusals import Refusals
from pratipad_nb.settings import valid_address
from pratipad_nb.transport.codec import MAX_ORDER_BYTES, decode, order_payload
from pratipad_nb.transport.frames import MAX_MESSAGES, OrderFrame, is_time
from pratipad_nb.transport.protocol import Delivery
from pratipad_nb.transport.subjects import Subjects, is_guests

__all__ = ["MOST_TARGETS", "OrderCheck", "check_open"]

#: Most devices that the orders of one entry name, all orders taken together: each is an order in memory.
MOST_TARGETS = 1 << 16


class OrderCheck:
    """Checks the entries of the order log.

    Parameters
    ----------
    log
        Name of the order log.
    line
        Returns the current line of processors.
    known
        Returns how many devices an order to all goes to.
    unreadable, refusals
        Count the entries that are no frames, and those that are refused.
    """

    def __init__(
        self,
        subjects: Subjects,
        log: str,
        *,
        line: Callable[[], Line],
        known: Callable[[], int],
        unreadable: Unreadable,
        refusals: Refusals,
    ) -> None:
        self._subjects = subjects
        self._log = log
        self._line = line
        self._known = known
        self._unreadable = unreadable
        self._refusals = refusals

    def accepted(self, delivery: Delivery) -> OrderFrame:
        """Return the frame of an entry of the log; without orders if the entry is no frame, or refused."""
        try:
            frame = decode(delivery.data, OrderFrame)
        except FrameError as error:
            self._unreadable.note(self._log, delivery, error, shared=True)
            return OrderFrame(delivery.time, [])
        try:
            self._check(delivery.subject, frame)
            _check_size(frame, len(delivery.data))
        except (FrameError, OneWayError, PayloadError) as error:
            self._refusals.note(
                f"flow {self._subjects.flow!r} refuses entry {delivery.sequence} of its order log, stored "
                f"under {delivery.subject!r}: {error}"
            )
            return OrderFrame(delivery.time, [])
        for order in frame.orders:
            if order.to is not None:
                order.to = self._addresses(order.to, delivery)
        return frame

    def _addresses(self, targets: Sequence[str], delivery: Delivery) -> list[str]:
        """Return those of `targets` that can be devices, each once."""
        addresses, dropped = [], ""
        for target in dict.fromkeys(targets):
            try:
                addresses.append(valid_address(target))
            except SettingsError as error:
                dropped = f"{error}"
        if dropped:
            self._refusals.note(
                f"flow {self._subjects.flow!r} drops targets of an order in entry {delivery.sequence} of its "
                f"order log, stored under {delivery.subject!r}: {dropped}"
            )
        return addresses

    def _check(self, subject: str, frame: OrderFrame) -> None:
        """Raise `FrameError` or `OneWayError` if the orders of `frame`, stored under `subject`, may not pass.

        Replies that version 0.1 stored have the subject of its readers' orders: today no party stores under
        that subject.
        """
        if len(frame.orders) > MAX_MESSAGES:
            raise FrameError(f"a frame has {len(frame.orders)} orders; {MAX_MESSAGES} at most.")
        if (targets := self._targets(frame)) > MOST_TARGETS:
            raise FrameError(f"the orders of a frame are for {targets:,} devices; {MOST_TARGETS:,} at most.")
        if not is_time(frame.time):
            raise FrameError(f"a frame of orders has the time {frame.time}; it is in seconds since 1970.")
        if is_guests(subject):
            raise FrameError(
                f"the flow is shared with the reader {self._subjects.reader_of(subject)!r} to be read, and "
                "not to be sent orders."
            )
        dataflow = self._line().dataflow
        if not frame.reply:
            check_open(dataflow)
            return
        if subject not in (self._subjects.edge_order, self._subjects.former_order):
            raise FrameError(
                f"reader {self._subjects.reader_of(subject)!r} has stored an order as a processor's reply, "
                "which passes no processor. Replies come from the edge alone."
            )
        if dataflow.first_one_way_hop == 0:
            raise OneWayError(
                f"a reply can't pass arrow 1 of `{dataflow.notation}`: it is `~>`, forward only. Write `<~>` "
                "there."
            )

    def _targets(self, frame: OrderFrame) -> int:
        """Return for how many devices the orders of `frame` are; a single order to all doesn't count."""
        to_all = sum(order.to is None for order in frame.orders)
        named = sum(len(order.to) for order in frame.orders if order.to is not None)
        return named + (to_all * self._known() if len(frame.orders) > 1 and to_all else 0)


def _check_size(frame: OrderFrame, size: int) -> None:
    """Raise `PayloadError` if an order of `frame`, which came in `size` bytes, is too large to be sent on."""
    if size > MAX_ORDER_BYTES:
        for order in frame.orders:
            order_payload(order.payload)


def check_open(dataflow: Dataflow) -> None:
    """Raise `OneWayError` if orders of the cloud can't reach devices."""
    hop = dataflow.first_one_way_hop
    if hop is not None:
        raise OneWayError(
            f"an order can't pass arrow {hop + 1} of `{dataflow.notation}`: it is `~>`, forward only. "
            "Write `<~>` there."
        )
