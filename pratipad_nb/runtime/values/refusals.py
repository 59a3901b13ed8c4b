"""Refusals: what other parties sent and this edge refused, counted and logged at a bounded rate.

Owns the count and the pace of the log lines. Which party may send what is for the callers. A party that sends
what is refused, again and again, must not fill the log.
"""

from __future__ import annotations

import logging
import math
import time

__all__ = ["Refusals"]

log = logging.getLogger(__name__)

#: Least time between two log lines, in seconds.
_PAUSE = 10.0


class Refusals:
    """Counts what was refused.

    Attributes
    ----------
    count
        How much was refused so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._told = 0
        self._logged = -math.inf

    def note(self, text: str) -> None:
        """Count a refusal; log `text`, and how many refusals came since, if the last line is old enough."""
        self.count += 1
        now = time.monotonic()
        if now - self._logged < _PAUSE:
            return
        since = self.count - self._told
        self._logged, self._told = now, self.count
        more = f" ({since - 1:,} more refusals since the last line)" if since > 1 else ""
        log.warning("%s%s", text, more)
