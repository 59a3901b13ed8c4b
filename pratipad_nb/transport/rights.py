"""The rights of every party: the one table of who may publish and subscribe to what.

Owns the table. From it come the server's accounts (`pratipad_nb.server.accounts`), the permissions where all
parties share an account, the page of documentation, and `Flow.who_can`.

Every flow has an account of its own, with JetStream, for its edges. The flow's devices have another account,
and every reader one of its own. A party reaches the flow's account only where the table lets it: what a party
may publish is a service that the flow's account exports, and what it may subscribe to is a stream. So what a
party makes the server send on its behalf, as an acknowledgement to a reply subject, stays in the party's own
account.

A server that others run may have one account for all parties. There a party has the same permissions, but
NATS checks no *reply* subject: any party can make the server write an acknowledgement, or a batch of the
party's own stream, to a subject that the party couldn't publish to.

The server's MQTT listener differs, as measured on 2.15. A forbidden publish with QoS 1 or 2 is acknowledged
all the same, and goes nowhere; so does a publish that a full input log refuses. Client ids are one space for
all MQTT devices of a flow: a second connection with the same client id ends the first connection, whichever
device either is. The second connection takes the first connection's session over, but only those of its
subscriptions that the second connection's certificate allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.subjects import Subjects

__all__ = ["API", "CLOUD", "USER_INFO", "Arrows", "Right", "Verb", "own_api", "rights_of", "who_can"]

#: JetStream's domain of the cloud's server, which the edge's server is a leaf of.
CLOUD = "cloud"
#: The prefix of JetStream's calls.
API = "$JS.API"
#: Where the server tells a party its account. Each node answers for its own clients, so there is one answer.
USER_INFO = "$SYS.REQ.USER.INFO"

Verb = Literal["publish", "subscribe"]

#: Seconds after which a request of a device that nobody answers is forgotten by the server.
DEVICE_THRESHOLD = "5s"


@dataclass(frozen=True, slots=True)
class Arrows:
    """The ways back that the notation of a flow has.

    Attributes
    ----------
    orders
        Whether orders of readers reach the devices.
    downlink
        Whether anything reaches the devices: orders of readers, or replies of processors.
    """

    orders: bool = True
    downlink: bool = True


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that a party may do.

    Attributes
    ----------
    verb
        ``"publish"`` or ``"subscribe"``.
    subject
        The subject, or pattern, in the flow's account.
    own
        The name of `subject` in the party's own account.
    imported
        The pattern that the party's account imports: wider than `subject` where an account is several
        parties'. Empty: the right is no import, for it concerns the party's own account alone.
    answers
        ``"many"``: a request has several answers, or several messages in its answer.
    traced
        Whether the flow's account learns from the server which party a request comes from.
    patience
        How long the server keeps the way back for an answer; empty: as long as the server does by default.
    """

    verb: Verb
    subject: str
    own: str
    imported: str = ""
    answers: Literal["one", "many"] = "one"
    traced: bool = False
    patience: str = ""


def own_api(flow: str) -> str:
    """Return the prefix of the calls to the JetStream of `flow` in a reader's own account.

    Not `API`: there the reader's own account answers, too, and says that it has no JetStream.
    """
    return f"$JS.{flow}.API"


def rights_of(party: Party, arrows: Arrows = Arrows()) -> tuple[Right, ...]:
    """Return the rights of `party`, for its own account; of edges and leaves, for the flow's account."""
    return (*_ROWS[party.role](party, arrows), _local("subscribe", f"{party.inbox}.>"))


def who_can(verb: Verb, subject: str, parties: Iterable[tuple[Party, Arrows]]) -> tuple[str, ...]:
    """Return the identities of those `parties` that may publish, or subscribe to, `subject`, sorted.

    `subject`, perhaps a pattern, is one of the flow's account, or a reader's own name for the same call.
    """
    return tuple(
        sorted(
            {
                party.identity
                for party, arrows in parties
                for right in rights_of(party, arrows)
                if right.verb == verb and (_covers(right.subject, subject) or _covers(right.own, subject))
            }
        )
    )


def _covers(pattern: str, subject: str) -> bool:
    """Return whether every subject that `subject` (perhaps a pattern) means is one that `pattern` means."""
    wanted, asked = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(asked) > position
        if position >= len(asked) or asked[position] == ">" or part not in ("*", asked[position]):
            return False
    return len(wanted) == len(asked)


# -- the table -----------------------------------------------------------------------------------------------


def _device(party: Party, arrows: Arrows) -> Iterator[Right]:
    """A device: its own uplink, hello and requests for a new certificate; its credit; and its own orders.

    Orders pass where the notation lets any. The server acknowledges a publish into a stream to the inbox of
    the publisher, so that a device needs no right to JetStream.
    """
    subjects, name = Subjects(party.flow), party.name
    yield _asked(subjects.up(name), subjects.up_all, patience=DEVICE_THRESHOLD)
    yield _asked(subjects.hello(name), subjects.hello_all, patience=DEVICE_THRESHOLD, traced=True)
    yield _asked(subjects.renew(name), subjects.renew_all, patience=DEVICE_THRESHOLD)
    if arrows.downlink:
        yield _heard(subjects.down(name), subjects.down_all)
        yield _heard(subjects.plain(name), subjects.plain_all)
    yield _heard(subjects.credit(name), subjects.every_credit)
    yield _heard(subjects.credit_all, subjects.every_credit)


def _reader(party: Party, arrows: Arrows) -> Iterator[Right]:
    """A reader: the output by its own consumer, its own position, requests, and orders where some pass.

    A reader makes and deletes no consumer: a consumer may be told to deliver to any subject. Whoever issues
    the reader's certificate makes the consumer.
    """
    subjects, name = Subjects(party.flow), party.name
    output, position = subjects.output_stream, subjects.position_stream(name)
    if arrows.orders and not party.is_guest:
        yield _asked(subjects.order(name), subjects.order_all)
    yield _asked(subjects.control(name), subjects.control_all)
    yield _asked(subjects.read(name), subjects.read_all)
    for call in (
        f"STREAM.INFO.{output}",
        f"CONSUMER.INFO.{output}.{name}",
        f"CONSUMER.RESET.{output}.{name}",
        f"STREAM.INFO.{position}",
    ):
        yield _called(party.flow, call)
    for call in (
        f"CONSUMER.MSG.NEXT.{output}.{name}",
        # The entry of a delivery that got lost is read from the log.
        f"DIRECT.GET.{output}",
        f"STREAM.MSG.GET.{output}",
        f"DIRECT.GET.{position}.{subjects.read(name)}",
        f"STREAM.MSG.GET.{position}",
    ):
        yield _called(party.flow, call, "many")
    acknowledgement = f"$JS.ACK.{output}.{name}.>"
    yield _asked(acknowledgement, acknowledgement)
    yield _heard(subjects.stats, subjects.stats)
    yield _heard(subjects.out_all, subjects.out_all)
    yield _local("publish", USER_INFO)


def _edge(party: Party, arrows: Arrows) -> Iterator[Right]:  # noqa: ARG001 - a row of the table
    """An edge: the whole account of its flow, and the store at the cloud where its server is a leaf."""
    subjects = Subjects(party.flow)
    yield _local("publish", subjects.everything)
    yield _local("subscribe", subjects.everything)
    # Answers to requests: of other accounts, of other edges, and of readers by way of a leaf.
    yield _local("publish", "_R_.>")
    yield _local("publish", f"_INBOX.{party.flow}.>")
    yield _local("publish", f"{API}.>")
    yield _local("publish", "$JS.ACK.>")
    yield _local("publish", f"$JS.{CLOUD}.API.>")
    yield _local("publish", USER_INFO)


def _leaf(party: Party, arrows: Arrows) -> Iterator[Right]:
    """A leaf: the subjects of its flow that may pass the link between two servers.

    Up: results on their way to the cloud's store, the edge's requests to that store, counters, signals of
    fast flows, answers to readers. Down: requests and orders of readers, answers to the edge. No device's
    subjects pass, no positions of the edge, and no subject of the JetStream at the site.
    """
    subjects = Subjects(party.flow)
    for subject in (
        subjects.sent,
        subjects.stats,
        subjects.out_all,
        "_R_.>",
        f"_INBOX.{party.flow}.reader.>",
        f"$JS.{CLOUD}.API.>",
    ):
        yield _local("publish", subject)
    if arrows.orders:
        yield _local("subscribe", subjects.order_all)
    yield _local("subscribe", subjects.control_all)
    yield _local("subscribe", f"{Party(party.flow, 'edge', tenant=party.tenant).inbox}.>")


_ROWS: dict[str, Callable[[Party, Arrows], Iterator[Right]]] = {
    "device": _device,
    "reader": _reader,
    "edge": _edge,
    "leaf": _leaf,
}


def _asked(subject: str, imported: str, *, patience: str = "", traced: bool = False) -> Right:
    return Right("publish", subject, subject, imported, patience=patience, traced=traced)


def _called(flow: str, call: str, answers: Literal["one", "many"] = "one") -> Right:
    subject = f"{API}.{call}"
    return Right("publish", subject, f"{own_api(flow)}.{call}", subject, answers)


def _heard(subject: str, imported: str) -> Right:
    return Right("subscribe", subject, subject, imported)


def _local(verb: Verb, subject: str) -> Right:
    return Right(verb, subject, subject)
