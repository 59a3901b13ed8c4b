"""Unreadable entries: entries of the flow's own logs that are no frames of the kind that belongs there.

Owns their count, and the log lines that name them. Whoever reads a log skips the entry, and says here that it
was skipped. What a device has sent is for `malformed`: it becomes a dead letter. What a start does without a
checkpoint that can be read is for `chain`.
"""

from __future__ import annotations

import logging

from pratipad_nb.errors import FrameError
from pratipad_nb.seldom import Seldom
from pratipad_nb.transport.protocol import Record

__all__ = ["Unreadable"]

log = logging.getLogger(__name__)


class Unreadable:
    """The unreadable entries that one run has come across.

    Parameters
    ----------
    counts_shared
        Whether entries of logs that all partitions read are counted here: of all runs of a flow, one counts
        them.

    Attributes
    ----------
    count
        How many entries were skipped.
    """

    def __init__(self, *, counts_shared: bool = True) -> None:
        self._counts_shared = counts_shared
        #: The newest entry that was counted, by its subject: some logs are read more than once.
        self._newest: dict[str, int] = {}
        self._line = Seldom()
        self.count = 0

    def note(self, name: str, record: Record, error: FrameError, *, shared: bool = False) -> None:
        """Count an entry of the log `name` once, however often it is read.

        Parameters
        ----------
        shared
            Whether all partitions read the log.
        """
        if record.sequence <= self._newest.get(record.subject, 0):
            return
        self._newest[record.subject] = record.sequence
        if shared and not self._counts_shared:
            return
        self.count += 1
        if told := self._line.note():
            log.warning(
                "entry %d of log %s (%s) can't be read and is skipped: %s; %d entries since the last line",
                record.sequence,
                name,
                record.subject,
                error,
                told,
            )
