"""Every NATS subject and stream name of a flow, built and parsed here alone.

Owns the table below. The parties' rights to them are for `pratipad_nb.transport.rights`,
the frames that travel under a subject are for `pratipad_nb.transport.frames`.

=========================== ======================================= ==================================
subject                     publisher → reader                      stream
=========================== ======================================= ==================================
``up.<device>``             device → edge: frames of readings       ``UP_<flow>`` (durable delivery)
``in.<partition>.<device>`` server → edge: `up`, split              ``UP_<flow>`` (several partitions)
``out.<partition>``         edge → readers: frames of results       ``OUT_<flow>`` (durable delivery)
``sent``                    edge → cloud: `out`, by a leaf's link   ``OUT_<flow>`` of the cloud's server
``moving.<move>.<device>``  edge → itself: the former input's      ``UP_<flow>`` (until it is complete)
``retired``                 none: the former input has it at last   ``IN_<flow>`` (version 0.1's input)
``order.<reader>``          reader → edge: orders for devices       ``ORDER_<flow>``
``reply``                   edge → itself: its orders, and replies  ``ORDER_<flow>``
``down.<device>``           edge → device: orders                   none
``plain.<device>``          edge → device: orders as plain JSON     none
``credit.<device>``         edge → device: a grant to send          none
``credit._all``             edge → all devices: an edge has started none
``hello.<device>``          device → edge: mode, version, limits    none
``renew.<device>``          device → edge: a new certificate?       none
``mark.<name>``             edge → itself: position in an input     ``MARK_<flow>`` (last one kept)
``read.<reader>``           reader → edge: a reader's position      ``READ_<flow>:<reader>`` (last one)
``dead.<processor>``        edge → itself: dead letters             ``DEAD_<flow>``
``edges``                   edge → edges: heartbeats, who is there  none
``edge.<edge>``             edge → one edge: requests (stats)       none
``stats``                   edge → readers: snapshots               none
``control.<reader>``        reader → edge: requests (pull, stats)   none
``presence.<kind>``         edge → server: which devices are there  none
``connected.<kind>``        server → edge: a device has come        none
``disconnected.<kind>``     server → edge: a device has gone        none
=========================== ======================================= ==================================

Each subject stands below ``pratipad.<flow>.``.

A foreign device speaks MQTT or NATS, but not this package's frames. It publishes plain JSON under
``up.<device>``, each text one message, and subscribes to ``plain.<device>``, where each order is its payload
as JSON and nothing else. A foreign device never says hello: its subscription tells the edge that it wants its
orders as plain JSON. To MQTT the same subjects are topics, with ``/`` for ``.``: ``pratipad/house/up/room1``
and ``pratipad/house/plain/room1``.

Where the edge's server is a leaf of the cloud's server, results are stored twice: at the edge's server, and
at the cloud's once they have arrived there. Both servers store them under the same names, so that a reader
finds the same results wherever it connects.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from pratipad_nb.errors import FrameError, SettingsError
from pratipad_nb.settings import GUEST, valid_name, valid_reader

__all__ = ["ALL_DEVICES", "OTHER_ACCOUNT", "ROOT", "Subjects", "is_guests", "is_inbox", "stream_of"]

#: First token of every subject.
ROOT = "pratipad"
#: Stands for all devices in `Subjects.credit_all`. No device has this name, for it starts with an underscore.
ALL_DEVICES = "_all"

#: Begins the reply subjects of requests from another account.
OTHER_ACCOUNT = "_R_."
_INBOX = "_INBOX."

_DEVICE_KINDS = ("up", "down", "plain", "credit", "hello", "renew", "mark")
_READER_KINDS = ("read", "order", "control")


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects and streams of one flow.

    Parameters
    ----------
    flow
        Name of the flow.

    Raises
    ------
    SettingsError
        If `flow` can't name a flow.
    """

    flow: str

    def __post_init__(self) -> None:
        valid_name(self.flow, "flow")

    # -- one subject -----------------------------------------------------------------------------------------

    def up(self, device: str) -> str:
        """Return the subject of `device`'s readings."""
        return self._below("up", valid_name(device, "device"))

    def out(self, partition: int) -> str:
        """Return the subject of the results of `partition` (counted from 0)."""
        return self._below("out", _partition(partition))

    def input_of(self, partition: int) -> str:
        """Return the pattern of the readings of `partition`, in a flow of several partitions."""
        return self._below("in", _partition(partition), "*")

    @property
    def input_root(self) -> str:
        """The beginning of the subjects of `input_of`, before the partition."""
        return self._below("in")

    @property
    def sent(self) -> str:
        """The subject of results on their way to the cloud's server, which stores them as of partition 0."""
        return self._below("sent")

    def order(self, reader: str) -> str:
        """Return the subject of `reader`'s orders."""
        return self._below("order", valid_reader(reader))

    @property
    def edge_order(self) -> str:
        """The subject of the edge's own orders, and of the replies of processors.

        The pattern `order_all` doesn't match it: no party but the edge, at either end of a leaf's link, may
        publish under it.
        """
        return self._below("reply")

    @property
    def former_order(self) -> str:
        """The subject that version 0.1 stored all orders and replies under."""
        return self._below("order")

    def down(self, device: str) -> str:
        """Return the subject of orders to `device`."""
        return self._below("down", valid_name(device, "device"))

    def plain(self, device: str) -> str:
        """Return the subject of orders to the foreign device `device`, as plain JSON."""
        return self._below("plain", valid_name(device, "device"))

    def credit(self, device: str) -> str:
        """Return the subject of credit frames to `device`."""
        return self._below("credit", valid_name(device, "device"))

    @property
    def credit_all(self) -> str:
        """The subject of credit frames to all devices at once, which say that an edge has started."""
        return self._below("credit", ALL_DEVICES)

    def hello(self, device: str) -> str:
        """Return the subject of `device`'s hellos."""
        return self._below("hello", valid_name(device, "device"))

    def renew(self, device: str) -> str:
        """Return the subject of `device`'s requests for a new certificate."""
        return self._below("renew", valid_name(device, "device"))

    @property
    def renew_all(self) -> str:
        """The pattern of every `renew`."""
        return self._below("renew", "*")

    def mark(self, name: str) -> str:
        """Return the subject of the edge's position in the input called `name` (a device's, as a rule)."""
        return self._below("mark", valid_name(name, "mark"))

    def read(self, reader: str) -> str:
        """Return the subject of `reader`'s position in the output."""
        return self._below("read", valid_reader(reader))

    def dead(self, processor: str) -> str:
        """Return the subject of the dead letters of `processor`.

        A processor's key is a Python identifier, perhaps with ``#2``: any character that a subject's token
        can't hold, or that isn't ASCII, is percent-encoded. `processor_of` decodes the key.
        """
        if not processor:
            raise SettingsError("'' can't be a processor's key, which has at least one character.")
        return self._below("dead", quote(processor, safe="#").replace(".", "%2E"))

    @property
    def edges(self) -> str:
        """The subject of the edges' heartbeats, and of the question which edges run the flow."""
        return self._below("edges")

    def edge(self, edge: str) -> str:
        """Return the subject of requests to the edge whose id is `edge`."""
        return self._below("edge", valid_name(edge, "edge"))

    @property
    def stats(self) -> str:
        """The subject of the snapshots of the edge's counters."""
        return self._below("stats")

    def control(self, reader: str) -> str:
        """Return the subject of `reader`'s requests to the edge."""
        return self._below("control", valid_reader(reader))

    def presence(self, kind: str) -> str:
        """Return the subject of the question which devices of `kind` are connected.

        The kinds are ``devices`` and ``mqtt``; where each device has an account of its own, the device's name
        is a kind.
        """
        return self._below("presence", kind)

    def connected(self, kind: str) -> str:
        """Return the subject on which the server says that a device of `kind` has connected."""
        return self._below("connected", kind)

    def disconnected(self, kind: str) -> str:
        """Return the subject on which the server says that a connection of a device of `kind` has ended."""
        return self._below("disconnected", kind)

    def moving(self, move: str, device: str) -> str:
        """Return the subject of `device`'s frames that the move `move` takes out of the former input."""
        return self._below("moving", move, valid_name(device, "device"))

    def moving_all(self, move: str) -> str:
        """Return the pattern of every `moving` of the move `move`."""
        return self._below("moving", move, "*")

    @property
    def retired(self) -> str:
        """The subject that the former input has once it has given up the devices' subjects."""
        return self._below("retired")

    # -- all of a kind ---------------------------------------------------------------------------------------

    def whole(self, subject: str) -> str:
        """Return `subject` below the flow's subjects, as ``up.room1``; whole subjects as they are."""
        return subject if subject.startswith((f"{ROOT}.", "$", "_")) else self._below(subject)

    @property
    def everything(self) -> str:
        """The pattern of every subject of the flow."""
        return self._below(">")

    @property
    def up_all(self) -> str:
        """The pattern of every `up`."""
        return self._below("up", "*")

    @property
    def out_all(self) -> str:
        """The pattern of every `out`."""
        return self._below("out", "*")

    @property
    def down_all(self) -> str:
        """The pattern of every `down`."""
        return self._below("down", "*")

    @property
    def plain_all(self) -> str:
        """The pattern of every `plain`."""
        return self._below("plain", "*")

    @property
    def every_credit(self) -> str:
        """The pattern of every `credit`, and of `credit_all`."""
        return self._below("credit", "*")

    @property
    def hello_all(self) -> str:
        """The pattern of every `hello`."""
        return self._below("hello", "*")

    @property
    def mark_all(self) -> str:
        """The pattern of every `mark`."""
        return self._below("mark", "*")

    @property
    def order_all(self) -> str:
        """The pattern of every `order` of a reader."""
        return self._below("order", "*")

    @property
    def control_all(self) -> str:
        """The pattern of every `control`."""
        return self._below("control", "*")

    @property
    def read_all(self) -> str:
        """The pattern of every `read`."""
        return self._below("read", "*")

    @property
    def dead_all(self) -> str:
        """The pattern of every `dead`."""
        return self._below("dead", "*")

    # -- streams ---------------------------------------------------------------------------------------------

    @property
    def input_stream(self) -> str:
        """The stream of the messages that devices sent, kept until no restart of the edge needs them."""
        return f"UP_{self.flow}"

    @property
    def former_input_stream(self) -> str:
        """The stream that had version 0.1's input: a work queue, which can't become a log in its place."""
        return f"IN_{self.flow}"

    @property
    def output_stream(self) -> str:
        """The stream of the results that reached Output."""
        return f"OUT_{self.flow}"

    @property
    def order_stream(self) -> str:
        """The stream of orders on their way to devices."""
        return f"ORDER_{self.flow}"

    @property
    def mark_stream(self) -> str:
        """The stream of the edge's positions, and of what else an edge remembers."""
        return f"MARK_{self.flow}"

    def position_stream(self, reader: str) -> str:
        """Return the stream of `reader`'s position in the output."""
        return f"READ_{self.flow}:{reader}"

    @property
    def dead_stream(self) -> str:
        """The stream of dead letters."""
        return f"DEAD_{self.flow}"

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        """Every stream's name with the subjects it stores; each reader has a `position_stream` besides."""
        return {
            self.input_stream: (self.up_all,),
            self.output_stream: (self.out_all,),
            self.order_stream: (self.order_all, self.edge_order),
            self.mark_stream: (self.mark_all,),
            self.dead_stream: (self.dead_all,),
        }

    @property
    def cloud_streams(self) -> dict[str, tuple[str, ...]]:
        """The streams at the cloud's server, which the edge's is a leaf of, with the subjects they store.

        The readers there have each a `position_stream` besides.
        """
        return {self.output_stream: (self.sent,)}

    # -- parsing ---------------------------------------------------------------------------------------------

    def device_of(self, subject: str) -> str:
        """Return the device that `subject` (an up, in, down, plain, credit, hello, renew or mark) is about.

        Raises
        ------
        FrameError
            If `subject` is no such subject of this flow, or doesn't name a device.
        """
        if subject.startswith(self._below("in", "")):
            _, _, device = subject.rpartition(".")
            subject = self._below("up", device)
        return self._name_of(subject, _DEVICE_KINDS, "device")

    def reader_of(self, subject: str) -> str:
        """Return the reader whose `subject` (a read, order or control) it is.

        Raises
        ------
        FrameError
            If `subject` is no such subject of this flow, or names no reader.
        """
        return self._name_of(subject, _READER_KINDS, "reader")

    def partition_of(self, subject: str) -> int:
        """Return the partition of `subject` (an out); raise `FrameError` for other subjects."""
        text = self._last(subject, ("out",))
        if not (text.isascii() and text.isdigit()):
            raise FrameError(f"{subject!r} names no partition: {self.out_all} ends with a whole number.")
        return int(text)

    def processor_of(self, subject: str) -> str:
        """Return the key of the processor of `subject` (a dead); raise `FrameError` for other subjects."""
        return unquote(self._last(subject, ("dead",)))

    def _name_of(self, subject: str, kinds: tuple[str, ...], what: str) -> str:
        name = self._last(subject, kinds)
        try:
            return valid_reader(name) if what == "reader" else valid_name(name, what)
        except SettingsError as error:
            raise FrameError(f"{subject!r} names no {what}: {error}") from None

    def _last(self, subject: str, kinds: tuple[str, ...]) -> str:
        tokens = subject.split(".")
        if len(tokens) != 4 or tokens[:2] != [ROOT, self.flow] or tokens[2] not in kinds or not tokens[3]:
            expected = " or ".join(self._below(kind, "NAME") for kind in kinds)
            raise FrameError(f"{subject!r} is no subject of the flow {self.flow!r}; expected {expected}.")
        return tokens[3]

    def _below(self, *tokens: str) -> str:
        return ".".join((ROOT, self.flow, *tokens))


def stream_of(subject: str) -> str:
    """Return the stream that stores an edge's or a reader's appends under `subject`; empty if no stream does.

    Empty also for a device's uplink, for a device may not ask the server for its stream, and for `sent`,
    which another server stores.
    """
    tokens = subject.split(".")
    if len(tokens) < 3 or tokens[0] != ROOT or tokens[2] == "up":
        return ""
    if tokens[2] == "read" and len(tokens) == 4:
        return Subjects(tokens[1]).position_stream(tokens[3])
    for stream, patterns in Subjects(tokens[1]).streams.items():
        if any(pattern.split(".")[2] == tokens[2] for pattern in patterns):
            return stream
    return ""


def is_guests(subject: str) -> bool:
    """Return whether `subject` is of a reader of another tenant, for no other name has its mark."""
    return GUEST in subject


def is_inbox(subject: str) -> bool:
    """Return whether `subject` is an inbox, the only kind of subject that an answer may go to.

    The asker chooses the reply subject of a request, and the server checks the answerer's right to publish
    there. So a party that answered anywhere would publish for the asker. ``_R_`` begins the reply subjects
    that the server makes for requests from another account.
    """
    return subject.startswith((_INBOX, OTHER_ACCOUNT))


def _partition(partition: int) -> str:
    if isinstance(partition, bool) or not isinstance(partition, int) or partition < 0:
        raise SettingsError(f"{partition!r} can't be a partition, which is a whole number of at least 0.")
    return str(partition)
