"""Where a flow runs when its maker doesn't say: the state folder and the server of this process.

Owns these values alone. They are set by who reads files and the environment (the command line, the notebook), so that
the same program runs on a laptop and on a server without a line changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Defaults", "defaults", "set_defaults"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a `Flow` takes for arguments that it isn't given.

    Attributes
    ----------
    home
        The state folder. None: ``.pratipad`` in the current folder.
    server, certs
        An existing server's URL and the edge's certificate folder. None: the embedded server of the state folder.
    """

    home: Path | None = None
    server: str | None = None
    certs: Path | None = None


_defaults = Defaults()


def defaults() -> Defaults:
    """Return the values that hold now, for flows made from now on."""
    return _defaults


def set_defaults(values: Defaults) -> None:
    """Let `values` hold for flows made from now on."""
    global _defaults
    _defaults = values
