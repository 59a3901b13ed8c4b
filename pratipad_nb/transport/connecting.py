"""From an endpoint to a connection: the choice of the transport, and of the name to connect under.

Owns the two choices alone; connecting is for `nats` and `memory`. Each transport is imported when it is first
used, so that a program loads only the transport that it uses.
"""

from __future__ import annotations

import secrets

from pratipad_nb.errors import SettingsError
from pratipad_nb.settings import Endpoint
from pratipad_nb.transport.parties import Party, Role
from pratipad_nb.transport.protocol import Connection

__all__ = ["connect"]


async def connect(endpoint: Endpoint, *, role: Role, name: str) -> Connection:
    """Open a connection to `endpoint` as the party `name`.

    Parameters
    ----------
    endpoint
        The server's URL, the flow and the credentials.
    role
        ``"device"``, ``"reader"`` or ``"edge"``: decides the party's permissions at the server.
    name
        Name of the device or reader; an edge has none (``""``).

    Raises
    ------
    ConnectionRefused
        If no server answers at the URL.
    NotInvited, CertificateError
        If the server, or this side, doesn't accept the other side's certificate.
    SettingsError
        If the URL is of no transport, or credentials are missing.
    WaitTimeout
        If the server lets a reader in, and then doesn't answer.
    """
    scheme = endpoint.url.partition("://")[0]
    called = f"{role} {name}".rstrip()
    party = Party(endpoint.flow, role, "" if role == "edge" else name, endpoint.tenant)
    if scheme == "memory":
        from pratipad_nb.transport.memory import connect_memory

        # Tenants share no account of a server, and so no memory.
        url = f"{endpoint.url}~{endpoint.tenant}" if endpoint.tenant else endpoint.url
        return await connect_memory(url, name=called, identity=party.identity)
    if scheme != "tls":
        raise SettingsError(
            f"{endpoint.url!r} can't be connected to. Pass 'tls://HOST:PORT' (several separated by commas), "
            "or 'memory://NAME' in tests. There is no connection without TLS."
        )
    if endpoint.credentials is None:
        raise SettingsError(
            f"{endpoint.url} needs certificates, which are missing. Pass certs=FOLDER, a folder that "
            "`flow.invite(name, folder)` has written."
        )
    from pratipad_nb.transport.nats import NatsConnection

    # Two connections of one party, a predecessor and its successor, must not read each other's answers.
    inbox = f"{party.inbox}.{secrets.token_hex(8)}"
    connection = await NatsConnection.connect(
        endpoint.url,
        endpoint.credentials,
        name=called,
        inbox_prefix=inbox,
        whereabouts=endpoint.whereabouts,
        disk=endpoint.disk,
        renewed=endpoint.renewed,
    )
    if role == "reader":
        try:
            await connection.use_account(endpoint.flow)
        except BaseException:
            await connection.close()
            raise
    return connection
