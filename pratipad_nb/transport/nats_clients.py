"""The connected clients of an account, and what they listen to: questions to the server.

Owns the question, its pages, and the reading of the answers, of which each node of a cluster sends one. The
server tells who is connected under the same question in each account; the subject of the question says which
account is meant. Keeping a list up to date is for `nats_attendance`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from nats.aio.msg import Msg

from pratipad_nb.errors import TransportError
from pratipad_nb.transport.nats_link import NatsLink

__all__ = ["OWN_ACCOUNT", "Answered", "connections", "identity_in", "listening"]

#: The subject of the question about the asker's own account.
OWN_ACCOUNT = "$SYS.REQ.ACCOUNT.PING.CONNZ"
#: Connections on a page, which has some 200 kB. A client that speaks MQTT may have an id of 64 kB: of more
#: than 64 MB, a page of such clients, the server would cut the asker off.
_PAGE = 256
#: Pages overlap, for each connection that ends between two questions moves those behind it to the front.
_OVERLAP = 32
#: Seconds for the first answer.
_SECONDS = 2.0
#: The nodes of a cluster have all answered after so many seconds without a further answer.
_SILENCE = 0.3
#: A compressed list has a sixth of the size: names and numbers repeat.
_HEADERS = {"Accept-Encoding": "gzip"}


class _Connection(msgspec.Struct):
    cid: int
    authorized_user: str = ""
    kind: str = "Client"
    subscriptions_list: list[str] = []


class _Page(msgspec.Struct):
    server_id: str
    total: int = 0
    connections: list[_Connection] | None = None


class _Answer(msgspec.Struct):
    data: _Page | None = None


_decoder = msgspec.json.Decoder(_Answer)


@dataclass(slots=True)
class Answered:
    """The answers to one question.

    Attributes
    ----------
    clients
        By the id of each node that has answered, the identities of its clients by the clients' ids.
    bytes
        Size of the answers.
    """

    clients: dict[str, dict[int, str]] = field(default_factory=dict)
    bytes: int = 0


def identity_in(user: str) -> str:
    """Return the identity in a user's name, in which the certificate's serial number may follow ``#``."""
    return user.partition("#")[0]


async def connections(link: NatsLink, subject: str) -> Answered:
    """Ask on `subject` for all clients of an account.

    Raises
    ------
    NotInvited
        If this party may not ask.
    Unavailable
        If no server answers on `subject`.
    WaitTimeout
        If the link is down, or goes down meanwhile.
    """
    found = Answered()
    for page, size in await _ask(link, subject, {}, ()):
        found.bytes += size
        clients = found.clients.setdefault(page.server_id, {})
        for each in page.connections or ():
            if each.kind == "Client":
                clients[each.cid] = identity_in(each.authorized_user)
    return found


async def listening(
    link: NatsLink, subject: str, filter_subject: str, nodes: Collection[str]
) -> frozenset[str]:
    """Ask on `subject` for the subjects that match `filter_subject` and that clients listen to.

    The answers end once all `nodes` have answered. Raises the errors of `connections`.
    """
    options = {"filter_subject": filter_subject, "subscriptions": True}
    pages = await _ask(link, subject, options, nodes)
    return frozenset(
        heard
        for page, _ in pages
        for each in page.connections or ()
        for heard in each.subscriptions_list
        if "*" not in heard and ">" not in heard
    )


async def _ask(
    link: NatsLink, subject: str, options: dict[str, Any], nodes: Collection[str]
) -> list[tuple[_Page, int]]:
    """Return all pages of all nodes, each with the size of the answer."""
    pages: list[tuple[_Page, int]] = []
    offset, more = 0, True
    while more:
        some = await _ask_page(link, subject, {"offset": offset} | options, nodes)
        pages += some
        more = any(page.total > offset + _PAGE for page, _ in some)
        offset += _PAGE - _OVERLAP
    return pages


async def _ask_page(
    link: NatsLink, subject: str, options: dict[str, Any], nodes: Collection[str]
) -> list[tuple[_Page, int]]:
    pages: list[tuple[_Page, int]] = []

    def complete(answers: Sequence[Msg]) -> bool:
        pages.append((_page_of(answers[-1]), len(answers[-1].data)))
        told = {page.server_id for page, _ in pages}
        return not link.clustered or (bool(nodes) and told >= set(nodes))

    body = json.dumps({"auth": True, "limit": _PAGE} | options).encode()
    await link.request_all(subject, body, _HEADERS, timeout=_SECONDS, silence=_SILENCE, complete=complete)
    return pages


def _page_of(answer: Msg) -> _Page:
    data = answer.data
    if (answer.headers or {}).get("Content-Encoding") == "gzip":
        data = gzip.decompress(data)
    try:
        page = _decoder.decode(data).data
    except msgspec.DecodeError as error:
        raise TransportError(f"the server's list of clients can't be read: {error}") from error
    if page is None:
        raise TransportError(f"the server lists no clients: {data[:200]!r}")
    return page
