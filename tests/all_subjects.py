"""All that a party may try: the subjects of flows, and all calls to JetStream and to the server.

The flows are ``house``, ``garden`` and ``yard``, and ``nowhere``, which doesn't exist. A tenant's flow has
the same subjects as another flow of its name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

__all__ = ["SUBJECTS", "TARGETS", "WHOLE_SUBJECTS", "subjects_of"]


def words(text: str) -> list[str]:
    return text.split()


NAMES = ("room1", "room2", "lamp", "archive", "viewer", "archive@globex", "stranger")
FLOWS = ("house", "garden", "yard", "nowhere")
STREAMS = ("UP", "OUT", "ORDER", "MARK", "DEAD", "IN", "READ:archive", "READ:viewer", "READ:archive@globex")
OF_A_NAME = (
    "up",
    "hello",
    "renew",
    "down",
    "plain",
    "credit",
    "mark",
    "order",
    "control",
    "read",
    "presence",
)
OTHERS = words("""
    credit._all order reply sent out.0 out.1 in.0.room1 moving.m1.room1 retired dead.clean edges
    edge.e1 stats presence.devices presence.mqtt connected.devices disconnected.devices
    connected.mqtt
""")
OF_A_STREAM = words("""
    STREAM.INFO STREAM.CREATE STREAM.UPDATE STREAM.DELETE STREAM.PURGE STREAM.MSG.GET
    STREAM.MSG.DELETE STREAM.SNAPSHOT STREAM.RESTORE STREAM.PEER.REMOVE STREAM.LEADER.STEPDOWN
    DIRECT.GET CONSUMER.NAMES CONSUMER.LIST CONSUMER.CREATE
""")
OF_A_CONSUMER = words("""
    CONSUMER.INFO CONSUMER.MSG.NEXT CONSUMER.DELETE CONSUMER.RESET CONSUMER.PAUSE CONSUMER.UNPIN
    CONSUMER.LEADER.STEPDOWN CONSUMER.CREATE CONSUMER.DURABLE.CREATE
""")
OF_THE_SERVER = words("""
    $SYS.REQ.USER.INFO $SYS.REQ.SERVER.PING $SYS.REQ.SERVER.PING.CONNZ $SYS.REQ.ACCOUNT.PING.CONNZ
    $SYS.REQ.ACCOUNT.D_house.CONNZ $SYS.REQ.ACCOUNT.acme~D_house.CONNZ $SYS.ACCOUNT.D_house.CONNECT
    $SYS.ACCOUNT.D_house.DISCONNECT $SYS.REQ.CLAIMS.UPDATE $SYS.REQ.SERVER.any.KICK
    $SYS.REQ.SERVER.any.RELOAD $JS.API.INFO $JS.API.STREAM.NAMES $JS.API.STREAM.LIST
    $JS.API.META.LEADER.STEPDOWN $JS.API.ACCOUNT.PURGE.F_house $JS.house.API.INFO
    $JS.house.API.STREAM.LIST $JS.garden.API.STREAM.LIST $JS.cloud.API.INFO
    $JS.cloud.API.STREAM.LIST $JS.cloud.API.STREAM.DELETE.OUT_house
    $JS.cloud.API.STREAM.INFO.OUT_house $JS.edge.API.INFO $JSC.R.x $MQTT.msgs.x $MQTT.sub.x $KV.x
    $O.x _R_.x.y _INBOX.x _void.down.room1 _void.x pratipad other other.subject
""")
PATTERNS = words("""
    > * *.> pratipad.> pratipad.*.up.* _INBOX.> _INBOX.* _INBOX.*.device.> $JS.> $JS.API.> $SYS.>
    $MQTT.> _R_.> _void.> $JS.EVENT.ADVISORY.> $SYS.ACCOUNT.>
""")
PATTERNS_OF_A_FLOW = words("""
    pratipad.{flow}.> pratipad.{flow}.* pratipad.{flow}.*.* pratipad.{flow}.*.room1
    pratipad.{flow}.up.* pratipad.{flow}.down.* pratipad.{flow}.plain.* pratipad.{flow}.credit.*
    pratipad.{flow}.out.* pratipad.{flow}.out.> pratipad.{flow}.read.* pratipad.{flow}.order.*
    _INBOX.{flow}.> _INBOX.{flow}.device.> _INBOX.{flow}.*.room1.> _INBOX.{flow}.reader.*.>
""")


def subjects_of(flow: str, names: tuple[str, ...] = NAMES) -> Iterator[str]:
    """Yield the subjects of a flow that are no calls, and a subject in each inbox."""
    for kind, name in itertools.product(OF_A_NAME, names):
        yield f"pratipad.{flow}.{kind}.{name}"
    for subject in OTHERS:
        yield f"pratipad.{flow}.{subject}"
    yield f"_INBOX.{flow}.edge.x"
    for name in names:
        yield f"_INBOX.{flow}.device.{name}.x"
        yield f"_INBOX.{flow}.reader.{name}.x"


def calls(flow: str, streams: tuple[str, ...] = STREAMS, names: tuple[str, ...] = NAMES) -> Iterator[str]:
    """Yield the calls to JetStream that concern a flow's streams, without their prefix."""
    for kind in streams:
        stream = f"{kind.partition(':')[0]}_{flow}{kind[kind.index(':') :] if ':' in kind else ''}"
        for call in OF_A_STREAM:
            yield f"{call}.{stream}"
        for call, name in itertools.product(OF_A_CONSUMER, names):
            yield f"{call}.{stream}.{name}"
        yield f"CONSUMER.CREATE.{stream}.archive.pratipad.{flow}.out.*"
        for name in names:
            yield f"DIRECT.GET.{stream}.pratipad.{flow}.read.{name}"


def everything() -> list[str]:
    """Return every subject that the parties try to publish to."""
    subjects = list(OF_THE_SERVER)
    for flow in FLOWS:
        subjects += subjects_of(flow)
        if flow == "nowhere":
            continue
        # A tenant's flow and the other flow of the name have the same subjects.
        names = (
            ("archive", "viewer", "archive@globex", "stranger") if flow == "house" else ("archive", "edge")
        )
        for call in calls(flow, STREAMS if flow == "house" else STREAMS[:7], names):
            subjects += (f"$JS.API.{call}", f"$JS.{flow}.API.{call}")
        for stream, name in itertools.product(("OUT", "UP", "ORDER"), names):
            subjects.append(f"$JS.ACK.{stream}_{flow}.{name}.1.1.1.1.0")
    return list(dict.fromkeys(subjects))


def targets() -> list[str]:
    """Return the subjects that the parties give as where an answer, or a trace, is to go."""
    subjects = list(OF_THE_SERVER)
    for flow in ("house", "garden", "yard"):
        subjects += subjects_of(flow, ("room1", "room2", "archive", "viewer"))
        for stream in ("UP", "OUT", "ORDER", "MARK", "READ"):
            subjects.append(f"$JS.API.STREAM.DELETE.{stream}_{flow}" + ":viewer" * (stream == "READ"))
    for call in calls("house", ("OUT",), ("viewer",)):
        subjects += (f"$JS.API.{call}", f"$JS.house.API.{call}")
    return list(dict.fromkeys(subjects))


PATTERNS += [each.format(flow=flow) for flow in FLOWS for each in PATTERNS_OF_A_FLOW]
#: Every subject, without patterns.
WHOLE_SUBJECTS = everything()
#: With the patterns, which are subjects as any others to somebody that publishes.
SUBJECTS = [*WHOLE_SUBJECTS, *PATTERNS]
TARGETS = targets()
