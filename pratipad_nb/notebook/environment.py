"""The environment variables that the notebook reads; no other module of this room reads the environment.

Owns the names of the variables. The variables say where a flow runs that says nothing itself, neither by
``--server`` and ``--certs`` nor as arguments of `Flow`.

``PRATIPAD_HOME``
    The state folder; default: ``.pratipad`` beside the notebook.
``PRATIPAD_SERVER``, ``PRATIPAD_CERTS``
    An existing NATS server, and the edge's certificate folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pratipad_nb.session.defaults import Defaults, defaults

__all__ = ["surroundings"]


def surroundings(environment: Mapping[str, str] | None = None) -> Defaults:
    """Return the defaults, replaced by the environment's variables; an empty variable is ignored."""
    found = os.environ if environment is None else environment
    said = defaults()
    if home := found.get("PRATIPAD_HOME"):
        said = replace(said, home=Path(home).expanduser().resolve())
    if server := found.get("PRATIPAD_SERVER"):
        said = replace(said, server=server)
    if certs := found.get("PRATIPAD_CERTS"):
        said = replace(said, certs=Path(certs).expanduser().resolve())
    return said
