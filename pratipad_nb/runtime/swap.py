"""The receipt of a change to a running flow.

Owns the value alone; the change itself is in `pratipad_nb.runtime.edge`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SwapReceipt"]


@dataclass(frozen=True, slots=True)
class SwapReceipt:
    """What a change to a running flow did, as counted.

    Attributes
    ----------
    added, removed, changed, kept
        Keys of the processors.
    in_hand
        Messages that were in the pipeline when the change began; they were finished by the old processors.
    pause
        Seconds for which no message was taken in.
    lost, doubled
        Messages that were accepted before the change and are not at Output, and positions at Output that were never
        accepted: both 0, or something is badly wrong.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    in_hand: int
    pause: float
    lost: int
    doubled: int

    def __str__(self) -> str:
        parts = [
            f"{what} {', '.join(keys)}"
            for what, keys in (("added", self.added), ("removed", self.removed), ("swapped", self.changed))
            if keys
        ]
        return (
            f"{'; '.join(parts) or 'rearranged'}: {self.in_hand} messages in hand, pause {self.pause * 1000:.0f} ms, "
            f"lost {self.lost}, doubled {self.doubled}"
        )
