"""The state folder: made private, ignored by git, and searched for the flows that have run in it.

Owns the folder itself and its ``.gitignore``, and no other file in it: a project's own folder may serve as a
state folder. The files in ``pki`` and ``server`` belong to `pratipad_nb.pki` and `pratipad_nb.server`.
"""

from __future__ import annotations

from pathlib import Path

from pratipad_nb.errors import ServerError
from pratipad_nb.files import guarded_folder
from pratipad_nb.settings import key_of_file

__all__ = ["flows_in", "ignore_in_git", "prepare"]

_OURS = ("pki", "server")
_FILES = frozenset({".gitignore", "public-url", "public-leaves-url"})
_IGNORE_ALL = "*\n"


def prepare(home: Path) -> None:
    """Make the state folder unless it exists, readable by its owner only, and keep it out of git.

    Raises
    ------
    ServerError
        If the folder can't be written.
    SettingsError
        If others may write to the folder.
    """
    try:
        guarded_folder(home)
        ignore_in_git(home)
    except OSError as error:
        raise ServerError(
            f"the state folder {home} can't be written: {error.strerror}. Make it writable, or set "
            "PRATIPAD_HOME to another folder."
        ) from error


def ignore_in_git(home: Path) -> None:
    """Let git ignore our files in `home`, keys above all.

    Git ignores all of `home`, unless a file of the user's is in it: then only our folders ignore themselves.
    An existing ``.gitignore`` is never changed.
    """
    own = home / ".gitignore"
    if own.exists():
        ignored = own.read_text(errors="replace") == _IGNORE_ALL
    else:
        ignored = all(path.name in _FILES or path.name in _OURS for path in home.iterdir())
        if ignored:
            _write(own)
    for name in () if ignored else _OURS:
        (home / name).mkdir(mode=0o700, exist_ok=True)
        _write(home / name / ".gitignore")


def _write(path: Path) -> None:
    if not path.exists():
        path.write_text(_IGNORE_ALL)


def flows_in(home: Path) -> list[str]:
    """Return the keys of the flows that have ever run on the embedded server of `home`, sorted.

    A key is a flow's name, of a tenant's flow ``TENANT/NAME``.
    """
    return sorted(key_of_file(path.parent.name) for path in (home / "pki" / "edge").glob("*/cert.pem"))
