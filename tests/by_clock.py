"""Lets credit go by a clock of the test's own."""

from pratipad_nb.runtime.devices import account, credit, pull, rate_limit

__all__ = ["by_clock"]


def by_clock(patch, clock):
    """Let accounts, grants and the limit of the rate go by `clock`, which stands in for the `time` module."""
    for module in (account, credit, pull, rate_limit):
        patch.setattr(module, "time", clock)
