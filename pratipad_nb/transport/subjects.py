"""Every NATS subject and stream name of a flow, built and parsed here alone.

Owns the table below; `pratipad_nb.transport.permissions` derives from it who may use which. Knows nothing of what
travels under a subject.

=========================== ======================================= ==================================
subject                     who publishes → who reads               stream
=========================== ======================================= ==================================
``up.<device>``             device → edge: frames of readings       ``IN_<flow>`` (durable delivery)
``in.<partition>.<device>`` server → edge: `up`, split          ``IN_<flow>`` (several partitions)
``out.<partition>``         edge → readers: frames of results       ``OUT_<flow>`` (durable delivery)
``sent``                    edge → cloud: `out`, by a leaf's link   ``OUT_<flow>`` of the cloud's server
``order``                   reader → edge: orders for devices       ``ORDER_<flow>``
``down.<device>``           edge → device: orders                   none
``plain.<device>``          edge → device: orders as plain JSON     none
``credit.<device>``         edge → device: how many it may send     none
``credit._all``             edge → all devices: the same            none
``hello.<device>``          device → edge: mode, version, limits    none
``mark.<name>``             edge → itself: position in an input     ``MARK_<flow>`` (last one kept)
``read.<reader>``           reader → edge: a reader's position      ``MARK_<flow>`` (last one kept)
``dead.<processor>``        edge → itself: dead letters             ``DEAD_<flow>``
``edges``                   edge → edges: who runs which partition  none
``stats``                   edge → readers: snapshots               none
``control``                 reader → edge: requests (pull, forget)  none
=========================== ======================================= ==================================

Each stands below ``pratipad.<flow>.``.

A foreign device, one that speaks MQTT or NATS but not this package's frames, publishes plain JSON under ``up.<device>``,
each text one message, and subscribes to ``plain.<device>``, where each order is its payload as JSON and nothing else.
That it subscribes there is what tells the edge that it wants its orders so: it never says hello. To MQTT the same
subjects are topics, with ``/`` for ``.``: ``pratipad/house/up/room1`` and ``pratipad/house/plain/room1``.

Where the edge's server is a leaf of another, the cloud's, results are stored twice: at the edge, and once they have
arrived there, at the cloud's server. What is stored there bears the same names, so that a reader finds the same
wherever it connects.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from pratipad_nb.errors import FrameError, SettingsError
from pratipad_nb.settings import valid_name

__all__ = ["ALL_DEVICES", "ROOT", "Subjects", "stream_of"]

#: First token of every subject.
ROOT = "pratipad"
#: Stands for all devices in `Subjects.credit_all`. It starts with an underscore, which no device's name may.
ALL_DEVICES = "_all"

_DEVICE_KINDS = ("up", "down", "plain", "credit", "hello", "mark")


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects and streams of one flow.

    Parameters
    ----------
    flow
        Name of the flow; a `SettingsError` is raised if it can't be one.
    """

    flow: str

    def __post_init__(self) -> None:
        valid_name(self.flow, "flow")

    # -- one subject ------------------------------------------------------------------------------------------

    def up(self, device: str) -> str:
        """Return where `device` publishes its readings."""
        return self._below("up", valid_name(device, "device"))

    def out(self, partition: int) -> str:
        """Return where the results of `partition` (counted from 0) go."""
        return self._below("out", _partition(partition))

    def input_of(self, partition: int) -> str:
        """Return the pattern of `partition`'s share of `up`, if the flow has several."""
        return self._below("in", _partition(partition), "*")

    @property
    def input_root(self) -> str:
        """What stands before the partition in the subjects of `input_of`."""
        return self._below("in")

    @property
    def sent(self) -> str:
        """Where results go on their way to the cloud's server; it stores them as if they were of partition 0."""
        return self._below("sent")

    @property
    def order(self) -> str:
        """Where readers publish orders."""
        return self._below("order")

    def down(self, device: str) -> str:
        """Return where `device` receives orders."""
        return self._below("down", valid_name(device, "device"))

    def plain(self, device: str) -> str:
        """Return where `device`, a foreign one, receives orders as plain JSON."""
        return self._below("plain", valid_name(device, "device"))

    def credit(self, device: str) -> str:
        """Return where `device` is told how many messages it may send."""
        return self._below("credit", valid_name(device, "device"))

    @property
    def credit_all(self) -> str:
        """Where all devices at once are told how many messages they may send."""
        return self._below("credit", ALL_DEVICES)

    def hello(self, device: str) -> str:
        """Return where `device` says that it is there, and what it can do."""
        return self._below("hello", valid_name(device, "device"))

    def mark(self, name: str) -> str:
        """Return where the edge stores its position in the input called `name` (a device's, as a rule)."""
        return self._below("mark", valid_name(name, "mark"))

    def read(self, reader: str) -> str:
        """Return where `reader` stores its position in the output."""
        return self._below("read", valid_name(reader, "reader"))

    def dead(self, processor: str) -> str:
        """Return where dead letters of `processor` go.

        A processor's key is a Python identifier, perhaps with ``#2``: any character that a subject's token can't
        hold, or that isn't ASCII, is percent-encoded. `processor_of` undoes it.
        """
        if not processor:
            raise SettingsError("'' can't be a processor's key: it has at least one character.")
        return self._below("dead", quote(processor, safe="#").replace(".", "%2E"))

    @property
    def edges(self) -> str:
        """Where the edges of a flow tell each other which partitions they run."""
        return self._below("edges")

    @property
    def stats(self) -> str:
        """Where the edge publishes snapshots of its counters."""
        return self._below("stats")

    @property
    def control(self) -> str:
        """Where readers send requests to the edge."""
        return self._below("control")

    # -- all of a kind ----------------------------------------------------------------------------------------

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
    def hello_all(self) -> str:
        """The pattern of every `hello`."""
        return self._below("hello", "*")

    @property
    def mark_all(self) -> str:
        """The pattern of every `mark`."""
        return self._below("mark", "*")

    @property
    def read_all(self) -> str:
        """The pattern of every `read`."""
        return self._below("read", "*")

    @property
    def dead_all(self) -> str:
        """The pattern of every `dead`."""
        return self._below("dead", "*")

    # -- streams ----------------------------------------------------------------------------------------------

    @property
    def input_stream(self) -> str:
        """The stream of what devices sent and the edge hasn't finished."""
        return f"IN_{self.flow}"

    @property
    def output_stream(self) -> str:
        """The stream of what reached Output."""
        return f"OUT_{self.flow}"

    @property
    def order_stream(self) -> str:
        """The stream of orders on their way to devices."""
        return f"ORDER_{self.flow}"

    @property
    def mark_stream(self) -> str:
        """The stream of positions: the edge's and the readers'."""
        return f"MARK_{self.flow}"

    @property
    def dead_stream(self) -> str:
        """The stream of dead letters."""
        return f"DEAD_{self.flow}"

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        """Every stream's name with the subjects it stores."""
        return {
            self.input_stream: (self.up_all,),
            self.output_stream: (self.out_all,),
            self.order_stream: (self.order,),
            self.mark_stream: (self.mark_all, self.read_all),
            self.dead_stream: (self.dead_all,),
        }

    @property
    def cloud_streams(self) -> dict[str, tuple[str, ...]]:
        """The streams at the server that the edge's one is a leaf of, with the subjects they take."""
        return {self.output_stream: (self.sent,), self.mark_stream: (self.read_all,)}

    # -- parsing ----------------------------------------------------------------------------------------------

    def device_of(self, subject: str) -> str:
        """Return the device that `subject` (an up, in, down, plain, credit, hello or mark) is about.

        Raises
        ------
        FrameError
            If it is no such subject of this flow, or names no one device.
        """
        if subject.startswith(self._below("in", "")):
            _, _, device = subject.rpartition(".")
            subject = self._below("up", device)
        return self._name_of(subject, _DEVICE_KINDS, "device")

    def reader_of(self, subject: str) -> str:
        """Return the reader whose position `subject` (a read) holds; raise `FrameError` if it is none."""
        return self._name_of(subject, ("read",), "reader")

    def partition_of(self, subject: str) -> int:
        """Return the partition of `subject` (an out); raise `FrameError` if it is none."""
        text = self._last(subject, ("out",))
        if not (text.isascii() and text.isdigit()):
            raise FrameError(f"{subject!r} names no partition: {self.out_all} ends with a whole number.")
        return int(text)

    def processor_of(self, subject: str) -> str:
        """Return the key of the processor that `subject` (a dead) is about; raise `FrameError` if it is none."""
        return unquote(self._last(subject, ("dead",)))

    def _name_of(self, subject: str, kinds: tuple[str, ...], what: str) -> str:
        name = self._last(subject, kinds)
        try:
            return valid_name(name, what)
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
    """Return the stream that stores what an edge or a reader appends under `subject`; empty if there is none such.

    A device's uplink has none here, for a device may ask the server for no stream; neither has `sent`, which is stored
    at another server.
    """
    tokens = subject.split(".")
    if len(tokens) < 3 or tokens[0] != ROOT or tokens[2] == "up":
        return ""
    for stream, patterns in Subjects(tokens[1]).streams.items():
        if any(pattern.split(".")[2] == tokens[2] for pattern in patterns):
            return stream
    return ""


def _partition(partition: int) -> str:
    if isinstance(partition, bool) or not isinstance(partition, int) or partition < 0:
        raise SettingsError(f"{partition!r} can't be a partition: it is a whole number of at least 0.")
    return str(partition)
