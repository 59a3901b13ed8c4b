"""Checks of the arguments of a flow's handle.

Owns the arguments that only sessions take. Names, numbers and paths, which other rooms take too, are checked
by `pratipad_nb.settings`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast, get_args

from pratipad_nb.dataflow.names import nearest
from pratipad_nb.errors import ProcessorError, SettingsError
from pratipad_nb.settings import checked_count, checked_number, checked_path
from pratipad_nb.transport.parties import Role
from pratipad_nb.transport.rights import Verb

__all__ = [
    "Demand",
    "UnknownStep",
    "checked_demand",
    "checked_mqtt",
    "checked_rate",
    "checked_record",
    "checked_role",
    "checked_server",
    "checked_speed",
    "checked_subject",
    "checked_verb",
]

_ABOVE_ZERO = math.ulp(0.0)


class UnknownStep(ProcessorError, KeyError):
    """No processor has that key. Also a `KeyError`, as a mapping raises for an unknown key."""

    __str__ = Exception.__str__  # a KeyError shows its message's repr

    def __init__(self, key: object, keys: Sequence[str]) -> None:
        near = " or ".join(map(repr, nearest(str(key), list(keys))))
        hint = f" Did you mean {near}?" if near else ""
        super().__init__(
            f"{key!r:.100} is no processor of this; there are: {', '.join(keys) or 'none'}.{hint}"
        )


class Demand(TypedDict):
    """Both bounds of a demand."""

    max_demand: int
    min_demand: int


def checked_rate(value: object) -> float | None:
    """Return `value` if it is a rate, else raise `SettingsError`."""
    try:
        return None if value is None else checked_number(value, "rate", least=_ABOVE_ZERO)
    except SettingsError:
        raise SettingsError(
            f"rate is {value!r:.100}; it is messages a second, a number above 0, or None for no limit."
        ) from None


def checked_demand(most: object, least: object = None) -> Demand:
    """Return both bounds, else raise `SettingsError`; a `least` of None is half of `most`."""
    try:
        most = checked_count(most, "max_demand")
        least = most // 2 if least is None else checked_count(least, "min_demand", least=0, most=most - 1)
    except SettingsError:
        raise SettingsError(
            f"max_demand={most!r:.100}, min_demand={least!r:.100}: whole numbers with 0 <= min_demand < "
            "max_demand; min_demand=None is half of max_demand."
        ) from None
    return {"max_demand": most, "min_demand": least}


def checked_speed(value: object) -> float | None:
    """Return a number above 0, or None for a `value` of None or "max"; else raise `SettingsError`."""
    try:
        return None if value in (None, "max") else checked_number(value, "speed", least=_ABOVE_ZERO)
    except SettingsError:
        raise SettingsError(
            f"speed is {value!r:.100}; it is 1.0 for the tape's own pace, 2.0 for twice as fast, or 'max' "
            "(or None) for as fast as the processors take it."
        ) from None


def checked_record(n: object, seconds: object, max_bytes: object) -> None:
    """Raise `SettingsError` unless the arguments are bounds of a recording."""
    if n is None and seconds is None:
        raise SettingsError("record() needs n=… (messages), seconds=…, or both: then it ends with the first.")
    if n is not None:
        checked_count(n, "record: n")
    if seconds is not None:
        checked_number(seconds, "record: seconds", least=0.001)
    checked_count(max_bytes, "record: max_bytes")


def checked_role(value: object) -> Role:
    """Return `value` if it is the role of a party, else raise `SettingsError`."""
    roles = [role for role in get_args(Role) if role != "leaf"]  # a server's role, and no flow's to invite
    if not isinstance(value, str) or value not in roles:
        raise SettingsError(f"role is {value!r:.100}; it can be {' or '.join(map(repr, roles))}.")
    return cast("Role", value)


def checked_mqtt(value: object, role: Role) -> bool:
    """Return whether a party of `role` speaks MQTT."""
    if not isinstance(value, bool):
        raise SettingsError(f"invite: mqtt is {value!r:.100}; it is True or False.")
    if value and role != "device":
        raise SettingsError(f"a {role} speaks NATS; mqtt=True is for devices.")
    return value


def checked_server(server: object, certs: object) -> tuple[str | None, Path | None]:
    """Return an existing server's URL and the edge's certificate folder, both None for the embedded server.

    Raises
    ------
    SettingsError
        If `server` is no URL or `certs` no path, or if one is given without the other.
    """
    if server is not None and not _is_url(server):
        raise SettingsError(
            f"server is {server!r:.100}; it is 'tls://HOST:PORT' (several separated by commas), or "
            "'memory://NAME' in tests. There is no connection without TLS."
        )
    folder = None if certs is None else checked_path(certs, "certs")
    in_memory = isinstance(server, str) and server.startswith("memory://")
    if (server is None) != (folder is None) and not in_memory:
        raise SettingsError(
            "server= and certs= go together: the server's URL (tls://HOST:PORT) and the folder with the "
            "edge's ca.pem, cert.pem and key.pem. Leave out both for the embedded server."
        )
    return cast("str | None", server), folder


def _is_url(server: object) -> bool:
    if not isinstance(server, str):
        return False
    name = server.removeprefix("memory://")
    return name not in ("", server) or all(
        each.strip().removeprefix("tls://") not in ("", each.strip()) for each in server.split(",")
    )


def checked_verb(value: object) -> Verb:
    """Return `value` if it is a verb of rights, else raise `SettingsError`."""
    if value not in get_args(Verb):
        raise SettingsError(f"{value!r:.100} is no right; the rights are {' and '.join(get_args(Verb))}.")
    return cast("Verb", value)


def checked_subject(value: object) -> str:
    """Return `value` if it is a subject, or a pattern of subjects, else raise `SettingsError`."""
    if not isinstance(value, str) or not all(value.split(".")) or value != "".join(value.split()):
        raise SettingsError(
            f"{value!r:.100} is no subject: a subject is names with dots between them, below the flow "
            "('up.room1') or whole ('$JS.API.STREAM.INFO.OUT_house')."
        )
    return value
