"""Where a flow runs when its maker doesn't say: the state folder and the server of this process.

Owns these values. They are set by who reads files and the environment (the command line, the notebook), so that the same
program runs on a laptop and on a server without a line changed; and where a plain script runs, which nobody does that
for, `home_folder` looks at ``PRATIPAD_HOME`` itself. It is the only place in this room that reads the environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pratipad_nb.settings import checked_path

__all__ = ["Defaults", "defaults", "home_folder", "set_defaults"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a `Flow` takes for arguments that it isn't given.

    Attributes
    ----------
    home
        The state folder. None: what ``PRATIPAD_HOME`` says, or else ``.pratipad`` in the current folder.
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


def home_folder(home: str | Path | None = None) -> Path:
    """Return the state folder of a flow that is made now: `home`, the default, ``PRATIPAD_HOME``, ``.pratipad`` here.

    The environment is read when a flow is made and not when this is imported, so that a program may set it first. That
    the variable moves the folder is promised without a word of notebooks: a script that runs beside one on the same
    folder would otherwise make a second store, and find nothing of the first.

    Raises
    ------
    SettingsError
        If `home` can be no path.
    """
    if home is not None:
        return checked_path(home, "home").absolute()
    said = _defaults.home or os.environ.get("PRATIPAD_HOME") or ".pratipad"
    return checked_path(said, "PRATIPAD_HOME").absolute()


def set_defaults(values: Defaults) -> None:
    """Let `values` hold for flows made from now on."""
    global _defaults
    _defaults = values
