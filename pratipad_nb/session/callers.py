"""What is visible where a function of this package is called.

Owns the one look at a caller's frame.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["callers_namespace"]


def callers_namespace(depth: int) -> Mapping[str, Any]:
    """Return the names that are visible `depth` calls up, locals before globals."""
    frame = sys._getframe(depth + 1)  # noqa: SLF001 - the documented way to a caller's names
    return {**frame.f_globals, **frame.f_locals}
