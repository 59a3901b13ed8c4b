"""The permissions of every party: users of the NATS server, derived from the table of subjects.

Owns the names by which parties are known (in their certificates, and as the server's users), and the least
permissions that each party needs. Writing them into the server's configuration is for
`pratipad_nb.server.config`.

NATS does not check two kinds of subject, so no receiver may rely on them: a *reply* subject (any party can
make the server write an acknowledgement, or a batch of the party's own stream, to a subject that the party
couldn't publish to), and the subjects that a stream's owner lets the stream store. Every receiver validates
its frames.

The server's MQTT listener differs, as measured on 2.15. A forbidden publish with QoS 1 or 2 is acknowledged
all the same, and goes nowhere; so does a publish that a full input log refuses. Client ids are one space for
all devices of a server: a second connection with the same client id ends the first connection, whichever
device either is. The second connection takes the first connection's session over, but only those of its
subscriptions that the second connection's certificate allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pratipad_nb.settings import valid_name
from pratipad_nb.transport.nats_account import QUESTION
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
    "own_api",
    "reader_user",
]

Role = Literal["edge", "device", "reader"]
#: The listeners of the server: for NATS clients, for MQTT clients, for leaf nodes.
Listener = Literal["STANDARD", "MQTT", "LEAFNODE"]

#: The request for the list of connected clients, in the asker's own account.
_CONNECTIONS = "$SYS.REQ.ACCOUNT.PING.CONNZ"
_API = "$JS.API"
#: JetStream's domain of the cloud's server, which the edge's server is a leaf of.
CLOUD = "cloud"
_CLOUD_API = f"$JS.{CLOUD}.API"


@dataclass(frozen=True, slots=True)
class User:
    """A party that the server lets in, and its permissions there.

    Attributes
    ----------
    identity
        The party's name in its certificate (`identity_of`), which the server maps to the user.
    publish, subscribe
        Subjects and patterns that the party may publish and subscribe to; all other subjects are denied.
    allow_responses
        Whether the party may answer a request once, at the reply subject of the request, whichever that is.
        Off by default: edges answer below the flow's own inboxes, and other parties don't answer.
    listeners
        The listeners that the party may connect to.
    """

    identity: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    allow_responses: bool = False
    listeners: tuple[Listener, ...] = ("STANDARD",)


def identity_of(flow: str, role: Role, name: str = "") -> str:
    """Return a party's name in its certificate, for example ``urn:pratipad:house:device:room1``.

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
    """Return the prefix of a party's own inboxes, without a dot at its end.

    ``nats.connect`` takes it as `inbox_prefix`. A party may subscribe to its own inboxes alone, so that it
    can't read the answers to another party. Tokens are parted by dots and not by underscores, since names may
    hold underscores: two parties never share a prefix.
    """
    return ".".join(("_INBOX", *_party(flow, role, name)))


def edge_user(flow: str) -> User:
    """Return the user of the edge of `flow`: the flow's subjects, and the JetStream API of its streams."""
    subjects = Subjects(flow)
    return User(
        identity_of(flow, "edge"),
        publish=(
            subjects.everything,
            # The inboxes of all parties of the flow, to answer their requests.
            f"_INBOX.{flow}.>",
            f"{_API}.INFO",
            # The logs of readers' positions: no pattern stands for their names alone.
            f"{_API}.STREAM.NAMES",
            *(f"{_API}.STREAM.{verb}.*" for verb in ("CREATE", "UPDATE", "INFO", "DELETE")),
            f"{_API}.DIRECT.GET.*.{subjects.read_all}",
            *(p for s in (*subjects.streams, subjects.former_input_stream) for p in _all_of(s)),
            # These subjects lead to a server only where the edge's server is a leaf of it.
            *_cloud_api(subjects),
            _CONNECTIONS,
        ),
        subscribe=(subjects.everything, f"{inbox_prefix(flow, 'edge')}.>"),
    )


def device_user(flow: str, name: str) -> User:
    """Return the user of the device `name`: its own uplink and its own downlink, and no JetStream rights.

    The server acknowledges a publish into a stream to the publisher's inbox, so a device needs no right but
    its inbox. Devices alone may come by MQTT: there, too, the server takes the name from the certificate.
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
    """Return the user of the reader `name`: the output by its consumer, its position, orders, requests."""
    subjects = Subjects(flow)
    out, position = subjects.output_stream, subjects.position_stream(name)
    return User(
        identity_of(flow, "reader", name),
        publish=(
            subjects.order(name),
            subjects.control(name),
            subjects.read(name),
            QUESTION,
            f"{_API}.STREAM.INFO.{out}",
            # A reader makes and deletes no consumer: a consumer may be told to deliver to any subject.
            f"{_API}.CONSUMER.INFO.{out}.{name}",
            f"{_API}.CONSUMER.RESET.{out}.{name}",
            f"{_API}.CONSUMER.MSG.NEXT.{out}.{name}",
            f"$JS.ACK.{out}.{name}.>",
            # The entry of a delivery that got lost is read from the log.
            f"{_API}.DIRECT.GET.{out}",
            f"{_API}.STREAM.INFO.{position}",
            f"{_API}.DIRECT.GET.{position}.{subjects.read(name)}",
        ),
        subscribe=(subjects.out_all, subjects.stats, f"{inbox_prefix(flow, 'reader', name)}.>"),
    )


def own_api(flow: str) -> str:
    """Return the prefix of the calls to the JetStream of `flow` in a reader's own account.

    Not ``$JS.API``: there the reader's own account answers, too, and says that it has no JetStream.
    """
    return f"$JS.{flow}.API"


def leaf_identity(site: str) -> str:
    """Return the name of `site`'s server in the certificate with which it joins another server as a leaf."""
    # No flow's name begins with an underscore, so no other party has this name.
    return f"urn:pratipad:_leaf:{valid_name(site, 'site')}"


def leaf_user(site: str, flows: Iterable[str]) -> User:
    """Return the user, of the cloud's server, for the leaf that the server of `site` is.

    Its permissions are the subjects that may pass the link between the two servers. Up: results on their way
    to the cloud's store, the edge's requests to that store, counters, signals of fast flows, answers to
    readers. Down: requests and orders of readers, answers to the edge. These subjects of each flow in `flows`
    pass, and no others: no device's subjects, no positions, no subject of the JetStream at the site.
    """
    publish: list[str] = []
    subscribe: list[str] = []
    for flow in flows:
        subjects = Subjects(flow)
        publish += [subjects.sent, subjects.stats, subjects.out_all, f"_INBOX.{flow}.reader.>"]
        publish += _cloud_api(subjects)
        subscribe += [subjects.order_all, subjects.control_all, f"{inbox_prefix(flow, 'edge')}.>"]
    return User(leaf_identity(site), tuple(publish), tuple(subscribe), listeners=("LEAFNODE",))


def _cloud_api(subjects: Subjects) -> list[str]:
    """Return the requests by which an edge keeps its store at the cloud's server."""
    return [
        f"{_CLOUD_API}.{request}"
        for request in (
            "STREAM.NAMES",
            *(f"STREAM.{verb}.*" for verb in ("CREATE", "UPDATE", "INFO", "DELETE")),
            f"DIRECT.GET.*.{subjects.read_all}",
        )
    ] + [
        f"{_CLOUD_API}.{request}"
        for stream in (*subjects.cloud_streams, subjects.mark_stream)
        for request in (
            f"STREAM.*.{stream}",
            f"DIRECT.GET.{stream}",
            f"DIRECT.GET.{stream}.>",
            f"STREAM.MSG.DELETE.{stream}",
            f"CONSUMER.*.{stream}",
            f"CONSUMER.*.{stream}.*",
        )
    ]


def _all_of(stream: str) -> tuple[str, ...]:
    """Return the requests about `stream` and its consumers: the stream's name is always a whole token."""
    return (
        f"{_API}.STREAM.*.{stream}",  # CREATE, UPDATE, INFO, PURGE, DELETE
        f"{_API}.STREAM.MSG.*.{stream}",  # GET, DELETE
        f"{_API}.DIRECT.GET.{stream}",
        f"{_API}.DIRECT.GET.{stream}.>",  # the last entry of a subject
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
