"""The meaning of ``pratipad server --leaf-of``: the server to join, and the folder that lets our server in.

Owns reading that option. Joining belongs to `pratipad_nb.server`, keeping and forwarding results to
`pratipad_nb.runtime.positions.forwarding`.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from pratipad_nb.errors import SettingsError
from pratipad_nb.pki.invitation import invitation_in

if TYPE_CHECKING:
    from pratipad_nb.settings import Leaf

__all__ = ["leaf_from"]


def leaf_from(leaf_of: str | None, certs: Path | None) -> Leaf | None:
    """Return the server to join, from a URL and a certificate folder, or from a folder that says the URL.

    Raises
    ------
    SettingsError
        If URL or folder is missing, the folder is another party's, or the URL is without TLS.
    """
    from pratipad_nb.settings import Credentials, Leaf

    if leaf_of is None:
        if certs is not None:
            raise SettingsError("--certs goes with --leaf-of; the server makes its own certificate itself.")
        return None
    url, folder = _split(leaf_of, certs)
    said = invitation_in(folder)
    if said is not None and said.role != "leaf":
        raise SettingsError(
            f"{folder} lets the {said.role} {said.name!r} in, and no leaf. Issue one beside the server to "
            "join: pratipad certs issue leaf NAME --flow FLOW"
        )
    # Sorted, so that the server's name, which follows from the first, stays the same.
    found = sorted(path.parent for path in folder.expanduser().glob("*/cert.pem"))
    try:
        credentials = [Credentials.in_folder(each) for each in found]
    except SettingsError as error:
        raise _no_leaf(folder) from error
    if not credentials:
        raise _no_leaf(folder)
    url = url or (said.server if said is not None else "")
    if not url:
        raise SettingsError(
            f"{folder} doesn't say where to join. Pass both: --leaf-of tls://HOST:7422 --certs "
            f"{quote(str(folder))}"
        )
    return Leaf(url, credentials)


def _no_leaf(folder: Path) -> SettingsError:
    return SettingsError(
        f"{folder} is no certificate folder of a leaf: it lacks a folder for each flow, with ca.pem, "
        "cert.pem and key.pem. Issue one beside the server to join, and carry it here: pratipad certs issue "
        "leaf NAME --flow FLOW"
    )


def _split(leaf_of: str, certs: Path | None) -> tuple[str, Path]:
    """Return the URL (perhaps empty) and the folder."""
    if "://" not in leaf_of:
        if certs is not None:
            raise SettingsError(
                f"--leaf-of {leaf_of} is a folder, and --certs another. Pass one folder, or a URL."
            )
        return "", Path(leaf_of)
    if certs is None:
        raise SettingsError(
            f"--leaf-of {leaf_of} goes with --certs DIR: the folder that `pratipad certs issue leaf` has "
            "written there."
        )
    return leaf_of, certs
