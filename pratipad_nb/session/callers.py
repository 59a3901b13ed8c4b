"""Callers: the names that are visible where a function of this package is called.

Owns the only look at a caller's frame, and the check of a namespace given in its place. Looking up processors
in the names is for `pratipad_nb.dataflow`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pratipad_nb.errors import SettingsError

__all__ = ["names_for"]


def names_for(namespace: Mapping[str, Any] | None, depth: int = 1) -> Mapping[str, Any]:
    """Return `namespace`; if it is None, the names that are visible `depth` calls up, locals before globals.

    Raises
    ------
    SettingsError
        If `namespace` is neither None nor a mapping.
    """
    if namespace is None:
        frame = sys._getframe(depth + 1)  # noqa: SLF001 - the documented way to a caller's names
        return {**frame.f_globals, **frame.f_locals}
    if not isinstance(namespace, Mapping):
        raise SettingsError(
            f"namespace is {namespace!r:.100}; it must be a mapping of names to what they stand for, such as "
            "globals(), or None for what is visible where this is called."
        )
    return namespace
