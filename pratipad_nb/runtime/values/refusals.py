"""Refusals: what other parties sent and this edge refused, counted and logged at a bounded rate.

Owns the count and the words. Which party may send what is for the callers. A party that sends
what is refused, again and again, must not fill the log.
"""

from __future__ import annotations

import logging

from pratipad_nb.seldom import Seldom

__all__ = ["Refusals"]

log = logging.getLogger(__name__)


class Refusals:
    """Counts what was refused.

    Attributes
    ----------
    count
        How much was refused so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._line = Seldom()

    def note(self, text: str) -> None:
        """Count a refusal; log `text`, and how many refusals came since, if the last line is old enough."""
        self.count += 1
        if told := self._line.note():
            more = f" ({told - 1:,} more refusals since the last line)" if told > 1 else ""
            log.warning("%s%s", text, more)
