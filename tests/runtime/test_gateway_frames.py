"""A gateway's messages at the edge: each keeps the device that it is from; numbers are the gateway's."""

from __future__ import annotations

from typing import Any

import pytest

from pratipad_nb.cloud.backlog import messages_of
from pratipad_nb.errors import FrameError, SettingsError
from pratipad_nb.runtime.positions.gatekeeper import Gatekeeper
from pratipad_nb.runtime.positions.positions import Positions
from pratipad_nb.runtime.positions.segments import segments_of
from pratipad_nb.runtime.values.batch import Batch, InputFrame, Source
from pratipad_nb.settings import gateway_of, valid_address
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import OutputFrame, UplinkFrame, decode_uplink
from pratipad_nb.transport.protocol import Delivery
from pratipad_nb.transport.subjects import Subjects


class Silent:
    """An input of which only the acknowledgements count."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery.sequence)


async def refused(delivery: Delivery, error: FrameError) -> None:
    raise AssertionError(error)


def gate(taps: list[Any] | None = None) -> Gatekeeper:
    found = Gatekeeper(Subjects("house"), Silent(), Positions(), True, refused)  # type: ignore[arg-type]
    found.taps = taps or []
    return found


def delivery(sources: list[str] | None, *, first: int = 1, sequence: int = 1) -> Delivery:
    count = len(sources or [""])
    frame = UplinkFrame("house", "gw", 7, first, [1.0] * count, list(range(count)), sources)
    return Delivery("pratipad.house.up.gw", encode(frame), sequence, 2.0)


async def test_a_message_bears_the_name_of_the_device_behind_the_gateway() -> None:
    admitted = await gate().admit(delivery(["t1", "", "t2"]))
    assert admitted is not None
    source = Source("house", [admitted.frame])
    assert [source.device(index) for index in range(3)] == ["gw.t1", "gw", "gw.t2"]
    assert [source.message(index, None).id for index in range(3)] == ["gw-7-1", "gw-7-2", "gw-7-3"]
    assert source.message(2, None).device == "gw.t2"


async def test_of_a_frame_that_came_in_part_before_the_rest_keeps_its_devices() -> None:
    keeper = gate()
    await keeper.admit(delivery(["t1", "t2"]))
    admitted = await keeper.admit(delivery(["t1", "t2", "t3", "t4"], sequence=2))
    assert admitted is not None
    assert (admitted.frame.first, admitted.frame.sources) == (3, ["gw.t3", "gw.t4"])
    assert keeper.counts["gw"].sources == {"gw.t1", "gw.t2", "gw.t3", "gw.t4"}


async def test_a_recording_hears_each_device_by_its_own_name_and_in_order() -> None:
    heard: list[Any] = []
    await gate([lambda device, times, received, payloads: heard.append((device, payloads))]).admit(
        delivery(["t1", "t1", "t2", "t1"])
    )
    assert heard == [("gw.t1", [0, 1]), ("gw.t2", [2]), ("gw.t1", [3])]


@pytest.mark.parametrize(
    "sources", [["t1"], ["t1", "t2", "t3"], ["t1", "other.t2"], ["t1", "*"], ["t1", "Push"]]
)
def test_a_gateway_speaks_for_devices_with_names_of_their_own_one_for_each_message(
    sources: list[str],
) -> None:
    frame = UplinkFrame("house", "gw", 7, 1, [1.0, 1.0], [1, 2], sources)
    with pytest.raises(FrameError):
        decode_uplink(encode(frame), "house", "gw")


@pytest.mark.parametrize(
    ("origins", "names"),
    [(range(3), ["gw.a", "gw.b", "gw.a"]), ([0, 0, 2], ["gw.a", "gw.a", "gw.a"]), ([1], ["gw.b"])],
)
def test_results_keep_the_device_of_the_message_they_stem_from(origins: Any, names: list[str]) -> None:
    frame = InputFrame("gw", 7, 5, 2.0, [1.0, 2.0, 3.0], sources=["gw.a", "gw.b", "gw.a"])
    batch = Batch(Source("house", [frame]), list(origins), origins, 3)
    output = decode(encode(OutputFrame("w", 1, [], list(segments_of(batch)))), OutputFrame)
    assert [message.device for message in messages_of(output, "house")] == names


def test_a_frame_without_sources_is_as_long_as_ever() -> None:
    plain = UplinkFrame("house", "room1", 7, 1, [1.0], [1])
    assert b"sources" not in encode(plain)


def test_an_address_is_a_device_or_a_device_behind_a_gateway() -> None:
    assert [gateway_of(valid_address(name)) for name in ("room1", "gw.t042")] == ["room1", "gw"]
    for wrong in ("gw.", ".t1", "gw.t1.x", "gw.*", 3, "Push.t1"):
        with pytest.raises(SettingsError):
            valid_address(wrong)
