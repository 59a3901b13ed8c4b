"""What ``pratipad server --leaf-of`` means: the server to join, and the folder that lets ours in there.

Owns that reading. Joining is the server's, keeping and forwarding results is `pratipad_nb.runtime.positions.forwarding`'s.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from pratipad_nb.cli.local_state import invitation_in
from pratipad_nb.errors import SettingsError

if TYPE_CHECKING:
    from pratipad_nb.settings import Leaf

__all__ = ["leaf_from"]


def leaf_from(leaf_of: str | None, certs: Path | None) -> Leaf | None:
    """Return the server to join: its URL and a certificate folder, or the folder alone, which says the URL.

    Raises
    ------
    SettingsError
        If one is missing, the folder is somebody else's, or there is no TLS in the URL.
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
            f"{folder} lets the {said.role} {said.name!r} in, and no leaf. Issue one beside the server to join: "
            "pratipad certs issue leaf NAME --flow FLOW"
        )
    try:
        credentials = Credentials.in_folder(folder)
    except SettingsError as error:
        raise SettingsError(
            f"{folder} is no certificate folder of a leaf: it lacks ca.pem, cert.pem or key.pem. Issue one beside the server "
            "to join, and carry it here: pratipad certs issue leaf NAME --flow FLOW"
        ) from error
    url = url or (said.server if said is not None else "")
    if not url:
        raise SettingsError(
            f"{folder} doesn't say where to join. Pass both: --leaf-of tls://HOST:7422 --certs {quote(str(folder))}"
        )
    return Leaf(url, credentials)


def _split(leaf_of: str, certs: Path | None) -> tuple[str, Path]:
    """Return URL (perhaps empty) and folder."""
    if "://" not in leaf_of:
        if certs is not None:
            raise SettingsError(
                f"--leaf-of {leaf_of} is a folder, and --certs another. Pass one folder, or a URL."
            )
        return "", Path(leaf_of)
    if certs is None:
        raise SettingsError(
            f"--leaf-of {leaf_of} goes with --certs DIR: the folder that `pratipad certs issue leaf` has written there."
        )
    return leaf_of, certs
