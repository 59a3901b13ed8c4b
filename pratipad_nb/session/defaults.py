"""Defaults: the state folder and the server of a flow whose arguments name neither.

Owns these values of the process. The command line and the notebook, which read files and the environment, set
them, so that the same program runs on a laptop and on a server without a line changed. In a plain script
nobody sets them, so `home_folder` reads ``PRATIPAD_HOME`` itself. No other function of this room reads the
environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pratipad_nb.settings import checked_path

__all__ = ["Defaults", "defaults", "home_folder", "set_defaults"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The values of a `Flow` for arguments that aren't given.

    Attributes
    ----------
    home
        The state folder. None: the folder that ``PRATIPAD_HOME`` names, or else ``.pratipad`` in the current
        folder.
    server, certs
        An existing server's URL and the edge's certificate folder. None: the embedded server of the state
        folder.
    """

    home: Path | None = None
    server: str | None = None
    certs: Path | None = None


_defaults = Defaults()


def defaults() -> Defaults:
    """Return the values for flows that are made from now on."""
    return _defaults


def home_folder(home: str | Path | None = None) -> Path:
    """Return the state folder of a flow that is made now.

    The first that is set of `home`, `Defaults.home`, ``PRATIPAD_HOME``, and ``.pratipad`` in the current
    folder.

    The environment is read when a flow is made and not when this module is imported, so that a program may
    set the variable first. ``PRATIPAD_HOME`` holds for scripts as for notebooks: a script beside a notebook
    would otherwise make a second state folder, and find nothing of the first.

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
    """Let `values` be the defaults of flows that are made from now on."""
    global _defaults
    _defaults = values
