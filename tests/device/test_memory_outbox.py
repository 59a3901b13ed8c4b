"""The outbox: numbers, bound, frames and who waits."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.device.memory_outbox import MemoryOutbox
from pratipad_nb.errors import DeviceError, FlowError, PayloadError, WaitTimeout
from pratipad_nb.transport.frames import MAX_MESSAGES


def opened(**bounds: int) -> MemoryOutbox:
    outbox = MemoryOutbox("room1", **bounds)

    async def on_some_loop() -> None:
        outbox.open(lambda: None)

    asyncio.run(on_some_loop())
    # As if the loop were that of another thread, as `Device` has it.
    outbox._loop_thread = 0
    return outbox


def test_a_device_that_is_not_connected_takes_nothing_and_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match=r"'room1' isn't connected.*connect\(flow\)"):
        MemoryOutbox("room1").offer(b"x")


@given(
    sizes=st.lists(st.integers(0, 40), max_size=60),
    takes=st.lists(st.tuples(st.none() | st.integers(0, 9), st.integers(1, 60)), max_size=40),
)
def test_frames_hold_consecutive_numbers_in_order_and_stay_within_their_bounds(
    sizes: list[int], takes: list[tuple[int | None, int]]
) -> None:
    outbox = opened()
    for number, size in enumerate(sizes, 1):
        assert outbox.offer(bytes([number]) * size) == number
    sent: list[bytes] = []
    for most, max_bytes in [*takes, *[(None, 1)] * len(sizes)]:
        parcel = outbox.take(most, max_bytes)
        if parcel is None:
            assert most == 0 or len(sent) == len(sizes)
            continue
        assert parcel.first == len(sent) + 1
        assert most is None or len(parcel.payloads) <= most
        assert parcel.size == sum(map(len, parcel.payloads))
        assert parcel.size <= max_bytes or len(parcel.payloads) == 1
        sent += parcel.payloads
        outbox.confirm(parcel)
    assert sent == [bytes([number]) * size for number, size in enumerate(sizes, 1)]
    assert (outbox.unsafe, outbox._bytes, outbox._held_bytes) == (0, 0, 0)


def test_a_frame_holds_no_more_messages_than_a_receiver_accepts() -> None:
    outbox = opened()
    for _ in range(MAX_MESSAGES + 1):
        outbox.offer(b"")
    first, second = outbox.take(None), outbox.take(None)
    assert first is not None
    assert second is not None
    assert (len(first.payloads), second.first) == (MAX_MESSAGES, MAX_MESSAGES + 1)


def test_it_is_full_by_count_or_bytes_and_what_is_on_its_way_counts() -> None:
    outbox = opened(max_held=2, max_bytes=100)
    assert outbox.offer(b"a")
    assert outbox.offer(b"b")
    assert outbox.offer(b"c") == 0
    parcel = outbox.take(None)
    assert outbox.offer(b"c") == 0
    assert parcel is not None
    outbox.confirm(parcel)
    assert outbox.offer(b"x" * 100) == 3
    assert outbox.offer(b"y") == 0


def test_a_payload_too_large_for_a_frame_is_refused_with_both_sizes() -> None:
    outbox = opened()
    outbox.max_payload = 1000
    with pytest.raises(PayloadError, match="1001 bytes; at most 1000"):
        outbox.offer(b"x" * 1001)


def test_put_blocks_until_there_is_room() -> None:
    outbox = opened(max_held=1)
    outbox.put(b"a")
    numbers: list[int] = []
    pusher = threading.Thread(target=lambda: numbers.append(outbox.put(b"b")))
    pusher.start()
    parcel = outbox.take(None)
    assert parcel is not None
    assert numbers == []
    outbox.confirm(parcel)
    pusher.join(5)
    assert numbers == [2]


def test_waiting_in_vain_names_the_message_and_leaves_nothing_behind() -> None:
    outbox = opened()
    outbox.offer(b"a")
    for _ in range(200):
        with pytest.raises(WaitTimeout, match="message 1 of device 'room1'"):
            outbox.wait_for(1, timeout=0)
    assert len(outbox._waiters) < 100


def test_after_a_failure_everybody_gets_the_reason_and_no_shared_traceback() -> None:
    outbox = opened()
    outbox.offer(b"a")
    waiter = outbox._when_safe(1)
    outbox.fail(DeviceError("gone"))
    outbox.fail(DeviceError("later"))
    assert str(waiter.exception(0)) == "gone"
    raised = []
    for _ in range(2):
        with pytest.raises(DeviceError, match="gone") as caught:
            outbox.offer(b"b")
        raised.append(caught.value)
    assert raised[0] is not raised[1]


async def test_blocking_on_the_loop_that_has_to_send_is_refused() -> None:
    outbox = MemoryOutbox("room1")
    outbox.open(lambda: None)
    outbox.offer(b"a")
    with pytest.raises(FlowError, match="Use AsyncDevice"):
        outbox.wait_for(1)


async def test_the_sender_is_woken_only_when_it_is_idle() -> None:
    woken = []
    outbox = MemoryOutbox("room1")
    outbox.open(lambda: woken.append(1))
    outbox.take(None)
    outbox.offer(b"a")
    outbox.offer(b"b")
    await asyncio.sleep(0)
    assert woken == [1]
