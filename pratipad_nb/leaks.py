"""Leaks: objects that a forked child may neither use nor clean up.

Owns keeping such an object alive to the end of the process. The end of a SQLite connection writes to its file
and deletes its log, in a child too, while the parent writes on; the end of a subprocess's handle may kill the
subprocess.
"""

from __future__ import annotations

# Imported here and not at a fork: another thread may be importing at that moment.
import ctypes

__all__ = ["leak"]


def leak(thing: object) -> None:
    """Keep `thing` alive for as long as this process lives, also while the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
