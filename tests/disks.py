"""A disk without room, as far as this process can tell: a limit on the size of the files that it writes."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

__all__ = ["limit_files", "small_files_only"]


def limit_files(size: int = resource.RLIM_INFINITY) -> None:
    """Let no file of this process be written beyond `size` bytes; by default, lift the limit.

    The error is EFBIG. Python ignores the signal that comes with it.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextlib.contextmanager
def small_files_only(size: int = 1) -> Iterator[None]:
    """Hold the limit of `limit_files` for the length of a ``with`` block."""
    limit_files(size)
    try:
        yield
    finally:
        limit_files()
