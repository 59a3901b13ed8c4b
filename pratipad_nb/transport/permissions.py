"""Who may publish and read what: users of the NATS server, derived from the table of subjects.

Owns the names by which parties are known (in their certificates, and as the server's users) and the least each needs.
Says nothing about how the server is told: that is `pratipad_nb.server.config`.

What NATS does not check, so that no receiver may rely on it: a *reply* subject (any party can make the server write
an acknowledgement, or a batch of its own stream, to a subject that it couldn't publish to itself), and the subjects that
a stream's owner lets it store. Every receiver validates its frames.

What its MQTT listener does differently, as measured on 2.15: a forbidden publish with QoS 1 or 2 is acknowledged all the
same, and goes nowhere; so is one that a full input log refuses. Client ids are one space for all devices of a server:
a second connection with the same one ends the first, whosever it is. It takes the first one's session over, but of the
subscriptions in it those alone that its own certificate allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pratipad_nb.settings import valid_name
from pratipad_nb.transport.subjects import Subjects

__all__ = [
    "CLOUD",
    "Listener",
    "Role",
    "User",
    "device_user",
    "edge_user",
    "identity_of",
    "inbox_prefix",
    "leaf_identity",
    "leaf_user",
    "reader_user",
]

Role = Literal["edge", "device", "reader"]
#: The listeners of the server: NATS' own, MQTT's, the one for leaf nodes.
Listener = Literal["STANDARD", "MQTT", "LEAFNODE"]

#: Poll for who is connected, in the asker's own account.
_CONNECTIONS = "$SYS.REQ.ACCOUNT.PING.CONNZ"
_API = "$JS.API"
#: JetStream's API of the server that the edge's one is a leaf of: that server's domain is `CLOUD`.
CLOUD = "cloud"
_CLOUD_API = f"$JS.{CLOUD}.API"


@dataclass(frozen=True, slots=True)
class User:
    """One party that the server lets in, and what it may do there.

    Attributes
    ----------
    identity
        What its certificate says it is (`identity_of`): the server maps one to the other.
    publish, subscribe
        Subjects and patterns that it may publish and subscribe to; everything else is denied.
    allow_responses
        Whether it may answer a request once, at whatever reply subject the request names. Off by default: edges
        answer below the flow's own inboxes, and nobody else needs to.
    listeners
        Where it may connect.
    """

    identity: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    allow_responses: bool = False
    listeners: tuple[Listener, ...] = ("STANDARD",)


def identity_of(flow: str, role: Role, name: str = "") -> str:
    """Return what a party of `flow` is called in its certificate, for example ``urn:pratipad:house:device:room1``.

    Parameters
    ----------
    flow
        Name of the flow.
    role
        ``"edge"``, ``"device"`` or ``"reader"``.
    name
        Name of the device or the reader; an edge has none.
    """
    return ":".join(("urn:pratipad", *_party(flow, role, name)))


def inbox_prefix(flow: str, role: Role, name: str = "") -> str:
    """Return the prefix of a party's own inboxes, without a dot at its end: `inbox_prefix` of ``nats.connect``.

    A party may subscribe to its own inboxes alone, so that it can't read what is answered to another. Tokens are parted
    by dots and not by underscores, since names may hold those: two parties never share a prefix.
    """
    return ".".join(("_INBOX", *_party(flow, role, name)))


def edge_user(flow: str) -> User:
    """Return the user of the edge of `flow`: all below the flow's subjects, and the JetStream API of its own streams."""
    subjects = Subjects(flow)
    return User(
        identity_of(flow, "edge"),
        publish=(
            subjects.everything,
            # The inboxes of everybody in the flow, to answer what they ask.
            f"_INBOX.{flow}.>",
            f"{_API}.INFO",
            *(pattern for stream in subjects.streams for pattern in _all_of(stream)),
            # Leads somewhere only where this server is a leaf of another.
            *_cloud_api(subjects),
            _CONNECTIONS,
        ),
        subscribe=(subjects.everything, f"{inbox_prefix(flow, 'edge')}.>"),
    )


def device_user(flow: str, name: str) -> User:
    """Return the user of the device `name`: its own uplink and its own downlink, and no JetStream rights.

    A publish into a stream is acknowledged by the server to the publisher's inbox, which needs no right but the inbox.
    It alone may come by MQTT: there, too, the server takes its certificate for its name.
    """
    subjects = Subjects(flow)
    return User(
        identity_of(flow, "device", name),
        publish=(subjects.up(name), subjects.hello(name)),
        subscribe=(
            subjects.down(name),
            subjects.plain(name),
            subjects.credit(name),
            subjects.credit_all,
            f"{inbox_prefix(flow, 'device', name)}.>",
        ),
        listeners=("STANDARD", "MQTT"),
    )


def reader_user(flow: str, name: str) -> User:
    """Return the user of the reader `name`: the output by a consumer of its own, its position, orders and requests."""
    subjects = Subjects(flow)
    out, mark = subjects.output_stream, subjects.mark_stream
    return User(
        identity_of(flow, "reader", name),
        publish=(
            subjects.order,
            subjects.control,
            subjects.read(name),
            f"{_API}.STREAM.INFO.{out}",
            f"{_API}.STREAM.INFO.{mark}",
            f"{_API}.CONSUMER.CREATE.{out}.{name}",
            # With one filter subject, the filter is part of the request's subject.
            f"{_API}.CONSUMER.CREATE.{out}.{name}.{subjects.out_all}",
            f"{_API}.CONSUMER.INFO.{out}.{name}",
            f"{_API}.CONSUMER.RESET.{out}.{name}",
            f"{_API}.CONSUMER.DELETE.{out}.{name}",  # to seek, it makes its own anew
            f"{_API}.CONSUMER.MSG.NEXT.{out}.{name}",
            f"$JS.ACK.{out}.{name}.>",
            # What a delivery that got lost held: it is read from the log.
            f"{_API}.DIRECT.GET.{out}",
            # Its own position. STREAM.MSG.GET can't be narrowed to a subject: it shows the positions of others, too.
            f"{_API}.DIRECT.GET.{mark}.{subjects.read(name)}",
            f"{_API}.STREAM.MSG.GET.{mark}",
        ),
        subscribe=(subjects.out_all, subjects.stats, f"{inbox_prefix(flow, 'reader', name)}.>"),
    )


def leaf_identity(site: str) -> str:
    """Return what the server of `site` is called in the certificate that it joins another with, as a leaf."""
    # No flow's name begins with an underscore, so that this is nobody else's.
    return f"urn:pratipad:_leaf:{valid_name(site, 'site')}"


def leaf_user(site: str, flows: Iterable[str]) -> User:
    """Return the user of a leaf: what may pass the link between the server of `site` and the cloud's, whose user it is.

    Up: results on their way to the cloud's store, what the edge asks of that, counters, fast flows' signals, answers to
    readers. Down: requests and orders of readers, answers to the edge. Of each flow in `flows`, and nothing else: no
    device's subjects, no positions, nothing of JetStream at the site.
    """
    publish: list[str] = []
    subscribe: list[str] = []
    for flow in flows:
        subjects = Subjects(flow)
        publish += [subjects.sent, subjects.stats, subjects.out_all, f"_INBOX.{flow}.reader.>"]
        publish += _cloud_api(subjects)
        subscribe += [subjects.order, subjects.control, f"{inbox_prefix(flow, 'edge')}.>"]
    return User(leaf_identity(site), tuple(publish), tuple(subscribe), listeners=("LEAFNODE",))


def _cloud_api(subjects: Subjects) -> list[str]:
    """Return the requests by which an edge keeps its store at the cloud's server."""
    return [
        f"{_CLOUD_API}.{request}"
        for stream in subjects.cloud_streams
        for request in (
            f"STREAM.*.{stream}",
            f"DIRECT.GET.{stream}",
            f"DIRECT.GET.{stream}.>",
            f"STREAM.MSG.DELETE.{stream}",
            f"CONSUMER.LIST.{stream}",
            f"CONSUMER.DELETE.{stream}.*",
        )
    ]


def _all_of(stream: str) -> tuple[str, ...]:
    """Return the requests about one stream and its consumers: the stream's name is always a token of its own."""
    return (
        f"{_API}.STREAM.*.{stream}",  # CREATE, UPDATE, INFO, PURGE, DELETE
        f"{_API}.STREAM.MSG.*.{stream}",  # GET, DELETE
        f"{_API}.DIRECT.GET.{stream}",
        f"{_API}.DIRECT.GET.{stream}.>",  # by last of a subject
        f"{_API}.CONSUMER.*.{stream}",  # NAMES, LIST, CREATE without a name
        f"{_API}.CONSUMER.*.{stream}.>",  # CREATE, INFO, DELETE, RESET, PAUSE
        f"{_API}.CONSUMER.DURABLE.CREATE.{stream}.*",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
    )


def _party(flow: str, role: Role, name: str) -> tuple[str, ...]:
    valid_name(flow, "flow")
    if role == "edge" and not name:
        return flow, role
    return flow, role, valid_name(name, role)
