"""Edges of a flow agree on what is the flow's: others are refused before their first heartbeat, by name."""

import asyncio
import logging
import os
import re
import socket

import pytest
from patience import eventually

from pratipad_nb import AsyncDevice, AsyncFlow, FlowOptions, Keep
from pratipad_nb.errors import FlowError
from pratipad_nb.runtime.edge.agreement import Agreement
from pratipad_nb.testing import memory_server
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import HeartbeatFrame, MarkFrame, TermsFrame
from pratipad_nb.transport.memory import connect_memory
from pratipad_nb.transport.origin import Origin
from pratipad_nb.transport.subjects import Subjects

pytestmark = pytest.mark.timeout(60)
HERE = f"process {os.getpid()} on {socket.gethostname()}, since "
SUBJECTS = Subjects("house")


@pytest.fixture
def url():
    with memory_server() as url:
        yield url


def work(payload):
    return payload


def other_work(payload):
    return payload


def flow_at(
    url, notation="Push ~> work ~> Output", *, partitions=4, delivery="durable", keep=None, **options
):
    options = FlowOptions(partitions=partitions, **options)
    return AsyncFlow(notation, name="house", server=url, delivery=delivery, keep=keep, options=options)


@pytest.fixture
async def heartbeats(url, monkeypatch):
    """Give the ids of all edges that have sent a heartbeat; the listener itself answers no question."""
    monkeypatch.setattr("pratipad_nb.runtime.edge.agreement._ANSWER", 0.05)
    seen = set()
    connection = await connect_memory(url, name="listener")
    await connection.subscribe(
        SUBJECTS.edges,
        lambda signal: None if signal.reply else seen.add(decode(signal.data, HeartbeatFrame).edge.id),
    )
    yield seen
    await connection.close()


async def test_an_edge_with_other_partitions_is_refused_before_its_first_heartbeat(url, heartbeats):
    async with flow_at(url, partitions=4) as flow:
        for partitions in (1, 3, 8):
            with pytest.raises(FlowError, match=r"4 partitions|partitions=4") as refused:
                await flow_at(url, partitions=partitions).start()
            text = str(refused.value)
            assert HERE in text
            assert f"and {partitions} are given" in text or f"partitions is {partitions} here" in text
        await asyncio.sleep(0)
        assert heartbeats == {flow._edge._membership.edge.id}
        assert flow.partitions == frozenset(range(4))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"delivery": "fast"}, "delivery is 'durable' there and 'fast' here"),
        ({"keep": Keep(bytes=1 << 20)}, r"Keep\(bytes=…\) is 1073741824 there and 1048576 here"),
        ({"keep": 60}, r"Keep\(seconds=…\) is 3600.0 there and 60 here"),
        (
            {"notation": "Demand <~> work <~> Output"},
            "the notation's input is 'Push' there and 'Demand' here",
        ),
        ({"on_lag": "discard"}, r"FlowOptions\(on_lag=…\) is 'wait' there and 'discard' here"),
        ({"reader_expiry": None}, r"FlowOptions\(reader_expiry=…\) is 604800.0 there and None here"),
        ({"input_bytes": 1 << 20}, r"FlowOptions\(input_bytes=…\)"),
        ({"order_bytes": 1 << 20}, r"FlowOptions\(order_bytes=…\)"),
        ({"order_seconds": 1.0}, r"FlowOptions\(order_seconds=…\)"),
        ({"dead_letter_bytes": 1 << 20}, r"FlowOptions\(dead_letter_bytes=…\)"),
        ({"uplink": True}, r"FlowOptions\(uplink=…\) is False there and True here"),
    ],
)
async def test_settings_of_the_flow_must_be_the_same_at_an_edge_that_joins(url, given, said):
    async with flow_at(url) as flow:
        with pytest.raises(FlowError, match=f"runs in {HERE}.*{said}.*Give the same settings, or stop all"):
            await flow_at(url, **given).start()
        assert flow.state == "running"


async def test_code_and_settings_of_an_edge_may_differ_and_a_new_notation_is_told(url, caplog):
    async with flow_at(url) as flow:
        replaced = flow_at(url, "Push ~> other_work ~> Output", batch_messages=7, drain_seconds=1.0)
        with caplog.at_level(logging.WARNING):
            async with replaced:
                await eventually(lambda: len(flow.partitions) == len(replaced.partitions) == 2)
                await flow.stop()
                await eventually(lambda: len(replaced.partitions) == 4)
        assert "runs as `Push ~> work ~> Output` in process" in caplog.text


async def test_a_flow_that_runs_nowhere_starts_with_other_settings(url):
    async with flow_at(url):
        pass
    async with flow_at(url, keep=60) as flow, flow_at(url, keep=60) as other:
        assert flow.state == other.state == "running"


@pytest.mark.parametrize("delivery", ["fast", "durable"])
async def test_of_two_edges_that_start_at_once_with_other_partitions_exactly_one_wins(url, delivery):
    flows = [flow_at(url, partitions=n, delivery=delivery) for n in (2, 3, 4)]
    outcomes = await asyncio.gather(*(flow.start() for flow in flows), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, FlowError)]
    (winner,) = [flow for flow in flows if flow.state == "running"]
    n = winner.settings.options.partitions
    assert len(refused) == 2
    found = re.compile(rf"has run in {n} partitions|partitions=…\) is {n} there")
    assert all(found.search(str(each)) for each in refused), refused
    assert winner.partitions == frozenset(range(n))
    await winner.stop()


async def test_a_fast_flow_stores_nothing_and_may_be_divided_anew(url):
    async with flow_at(url, partitions=4, delivery="fast"):
        pass
    async with flow_at(url, partitions=3, delivery="fast") as flow:
        assert flow.partitions == frozenset(range(3))
    async with flow_at(url, partitions=1, delivery="fast") as flow:
        assert flow.state == "running"


async def test_the_last_heartbeat_of_an_edge_that_was_killed_refuses_nobody(url, heartbeats):
    """Its terms are stored, and its heartbeat was heard just now; but it gives no answer any more."""
    async with flow_at(url):
        pass
    connection = await connect_memory(url, name="edge")
    killed = Origin("killed", "far", 7, 1.0)
    await connection.publish(SUBJECTS.edges, encode(HeartbeatFrame(killed, [0, 1, 2, 3], 1)))
    await eventually(lambda: "killed" in heartbeats)
    async with flow_at(url, keep=60) as flow:
        await eventually(lambda: len(flow.partitions) == 4)
    await connection.close()


async def test_an_edge_that_goes_by_other_settings_is_no_member_and_silences_no_partition(url):
    """As an older version's edge, or a raw client, that has another number of partitions."""
    async with flow_at(url) as flow:
        connection = await connect_memory(url, name="edge")
        stranger = Origin("stranger", "far", 7, 1.0)
        for _ in range(3):
            await connection.publish(SUBJECTS.edges, encode(HeartbeatFrame(stranger, [], 99)))
            await asyncio.sleep(0.01)
        assert flow._edge.others == {}
        assert flow.partitions == frozenset(range(4))
        assert flow.state == "running"
        await connection.close()


async def test_an_edge_that_was_frozen_while_the_flow_was_started_anew_ends_by_itself(url, monkeypatch):
    frozen = flow_at(url)
    await frozen.start()
    # What a newcomer finds of a frozen edge: no answer, and no heartbeat.
    monkeypatch.setattr("pratipad_nb.runtime.edge.agreement._ANSWER", 0.05)
    for subscription in frozen._edge._subscriptions:
        await subscription.close()
    async with flow_at(url, keep=60) as flow:
        await eventually(lambda: flow.partitions)
        frozen._edge._heard_again = await frozen._edge.connection.subscribe(
            SUBJECTS.edges, frozen._edge._heard
        )
        await eventually(lambda: frozen.state == "failed")
        assert "was started in process" in frozen.stats().error
        assert r"Keep(seconds=…) is 60 there and 3600.0 here" in frozen.stats().error
        await eventually(lambda: flow.partitions == frozenset(range(4)))
        (gone,) = [each for each in (await flow.stats(all_edges=True)).edges if each.state == "failed"]
        assert gone.error == frozen.stats().error
    await frozen.stop()


async def test_an_edge_changes_its_input_only_when_it_is_alone(url):
    flow = flow_at(url)
    async with flow:
        async with flow_at(url):
            await eventually(lambda: flow._edge.others)
            with pytest.raises(
                FlowError, match=r"begins with Push at 1 other edges, and would with Demand.*Stop"
            ):
                await flow.update("Demand ~> work ~> Output")
            assert flow.notation == "Push ~> work ~> Output"
        await eventually(lambda: not flow._edge.others)
        await flow.update("Demand ~> work ~> Output")
        with pytest.raises(FlowError, match="input is 'Demand' there and 'Push' here"):
            await flow_at(url).start()
        async with flow_at(url, "Demand ~> work ~> Output") as other:
            assert other.state == "running"


async def test_a_store_of_version_0_1_keeps_its_partitions(url):
    async with flow_at(url, partitions=3):
        pass
    connection = await connect_memory(url, name="edge")
    marks = await connection.find_log(SUBJECTS.mark_stream)
    await marks.delete((await marks.latest(SUBJECTS.mark("edges"))).sequence)
    with pytest.raises(FlowError, match="has run in 1 partitions, and 4 are given"):
        await flow_at(url, partitions=4).start()
    await connection.append(SUBJECTS.mark("partitions"), encode(MarkFrame(3, [])))
    with pytest.raises(FlowError, match="has run in 3 partitions, and 4 are given"):
        await flow_at(url, partitions=4).start()
    async with flow_at(url, partitions=3):
        assert decode((await marks.latest(SUBJECTS.mark("edges"))).data, TermsFrame).terms["partitions"] == 3
    await connection.close()


async def test_terms_that_another_version_adds_are_no_difference(url):
    async with flow_at(url) as flow:
        agreement = flow._edge._agreement
        terms = agreement._terms | {"colour": "red"}
        del terms["on_lag"]
        connection = await connect_memory(url, name="edge")
        newer = TermsFrame(terms, agreement.origin)
        await connection.append(SUBJECTS.mark("edges"), encode(newer), expect=agreement.number)
        await agreement.hold()
        await Agreement.reached(connection, flow._edge.settings, "Push", Origin.here())
        await connection.close()


async def test_the_counts_of_all_edges_are_summed_and_each_edge_is_named(url):
    async with flow_at(url) as flow, flow_at(url) as other:
        await eventually(lambda: len(flow.partitions) == len(other.partitions) == 2)
        devices = [AsyncDevice(f"room{n}") for n in range(8)]
        for device in devices:
            await device.connect(url, flow="house")
            await device.push(1)
            await device.flush()
        await flow.settled()
        await other.settled()
        for each in (flow, other):
            stats = await each.stats(all_edges=True)
            assert (stats.received, stats.delivered, stats.processors["work"].emitted) == (8, 8, 8)
            assert len(stats.devices) == 8
            assert sum(edge.delivered for edge in stats.edges) == 8
            assert {(edge.host, edge.pid) for edge in stats.edges} == {(socket.gethostname(), os.getpid())}
            assert sorted(p for edge in stats.edges for p in edge.partitions) == [0, 1, 2, 3]
        assert flow.stats().delivered + other.stats().delivered == 8
        assert flow.stats().edges == ()
        # Counts stay though partitions move, and the last line counts them all.
        await other.stop()
        await eventually(lambda: len(flow.partitions) == 4)
        assert flow.stats().delivered + other.stats().delivered == 8
        for device in devices:
            await device.close()
    assert flow.stats().delivered + other.stats().delivered == 8
    assert flow.stats().received > 0
    assert (await flow.stats(all_edges=True)).state == "stopped"


async def test_an_edge_that_tells_no_counts_is_named_with_its_reason(url, monkeypatch):
    monkeypatch.setattr("pratipad_nb.runtime.sharing.counts._ANSWER", 0.05)
    async with flow_at(url) as flow:
        connection = await connect_memory(url, name="edge")
        silent = Origin("silent", "far", 7, 1.0)
        number = flow._edge._agreement.number
        await connection.publish(SUBJECTS.edges, encode(HeartbeatFrame(silent, [], number)))
        await eventually(lambda: flow._edge.others)
        first, mine = (await flow.stats(all_edges=True)).edges
        assert (first.host, first.pid) == ("far", 7)
        assert "doesn't tell its counts, which are missing here" in first.error
        assert mine.error == ""
        await connection.close()


async def test_a_flow_in_one_partition_has_one_edge(url):
    async with flow_at(url, partitions=1) as flow:
        (edge,) = (await flow.stats(all_edges=True)).edges
        assert (edge.host, edge.partitions) == (socket.gethostname(), (0,))
        with pytest.raises(FlowError, match=f"runs already, in {HERE}"):
            await flow_at(url, partitions=1).start()
