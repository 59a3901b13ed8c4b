"""Bugs put into this package's own parts: the party that they hit fails and says so, over memory and NATS."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import re

import pytest

from pratipad_nb import Cloud, Device, Flow, FlowOptions
from pratipad_nb.cloud.log_source import LogSource
from pratipad_nb.cloud.signal_source import SignalSource
from pratipad_nb.device.downlink import Downlink
from pratipad_nb.device.engine import Engine
from pratipad_nb.device.reading import Reading
from pratipad_nb.device.uplink import Uplink
from pratipad_nb.errors import DeviceError, WaitTimeout
from pratipad_nb.runtime.devices.backward import Backward
from pratipad_nb.runtime.devices.credit import Ledger
from pratipad_nb.runtime.devices.pull import Requests
from pratipad_nb.runtime.edge.answers import Answers
from pratipad_nb.runtime.edge.edge import Edge
from pratipad_nb.runtime.edge.report import Reporter
from pratipad_nb.runtime.positions.inputs import FastInput
from pratipad_nb.runtime.sharing.membership import Membership
from pratipad_nb.runtime.values.history import History
from pratipad_nb.session import AsyncFlow
from pratipad_nb.session.site import Site
from pratipad_nb.transport.nats_consumer import NatsConsumer


def same(payload):
    return payload


def broken(original, only=lambda _: True):
    """Return `original` with a bug, for the instances that `only` holds for."""

    def bug(self, *arguments, **named):
        if only(self):
            raise KeyError("x")
        return original(self, *arguments, **named)

    async def async_bug(self, *arguments, **named):
        if only(self):
            raise KeyError("x")
        return await original(self, *arguments, **named)

    return async_bug if inspect.iscoroutinefunction(original) else bug


@pytest.fixture(params=["memory", "nats"])
def place(request, url, tmp_path):
    """Give where a flow runs, as arguments of a `Flow`."""
    return {"server": url} if request.param == "memory" else {"home": tmp_path / "state"}


@pytest.fixture
def parts():
    """Close what a test has started, whether the test gets there or not."""
    with contextlib.ExitStack() as stack:
        yield stack


def tracebacks(caplog):
    """Return the exceptions whose tracebacks the log holds, at ERROR, by the logger's name."""
    return [
        (record.name, repr(record.exc_info[1]))
        for record in caplog.records
        if record.levelno == logging.ERROR and record.exc_info
    ]


#: What a bug of `broken` is told as; the function that it is in is none of the package if
#: asyncio has called it.
LINE = (
    r"a bug in pratipad_nb: KeyError: 'x'( \(in [\w.<>]+\))?; the traceback is in the log. Please report it."
)


def said_in_one_line(error):
    return re.fullmatch(LINE, error) is not None


SHARED = {"options": FlowOptions(partitions=2)}


@pytest.mark.parametrize(
    ("kind", "method", "settings"),
    [
        pytest.param(Ledger, "hello", {}, id="the callback for hellos"),
        pytest.param(Backward, "hello", {}, id="the callback for hellos, further on"),
        pytest.param(Answers, "on_signal", {}, id="the callback for requests"),
        pytest.param(Answers, "_answer", {}, id="a task of a task"),
        pytest.param(FastInput, "on_signal", {"delivery": "fast"}, id="the callback for readings"),
        pytest.param(SignalSource, "_count_gap", {"delivery": "fast"}, id="the callback of its own reader"),
        pytest.param(Membership, "hear", SHARED, id="the callback for heartbeats"),
        pytest.param(Ledger, "hello", SHARED, id="a callback of a partition"),
        pytest.param(Ledger, "tick", {}, id="a tick"),
        pytest.param(Requests, "stored", {}, id="what follows an append"),
        pytest.param(Reporter, "sample", {}, id="a sample"),
        pytest.param(History, "add", {}, id="the history"),
    ],
)
def test_a_bug_ends_the_flow_which_says_so_in_one_line(
    kind, method, settings, place, parts, until, monkeypatch, caplog
):
    armed = []
    monkeypatch.setattr(kind, method, broken(getattr(kind, method), lambda _: armed))
    flow = Flow("Push <~> same <~> Output", **place, **settings).start()
    parts.callback(flow.stop)
    endpoints = [flow.endpoint_for("device", name) for name in ("room1", "room2")]
    parts.enter_context(contextlib.suppress(DeviceError))  # what is pushed is perhaps not safe
    device = Device("room1").connect(endpoints[0])
    parts.callback(device.close, timeout=0)
    cloud = parts.enter_context(Cloud(flow))
    armed.append(True)
    if method == "hello":
        parts.callback(Device("room2").connect(endpoints[1]).close, timeout=0)
    if kind is Answers:
        with pytest.raises(WaitTimeout):
            cloud.describe(timeout=0.5)
    until(lambda: flow.state == "failed" or device.push(1) is None)
    assert said_in_one_line(flow.stats().error), flow.stats().error
    assert tracebacks(caplog) == [("pratipad_nb.session.asynchronous", "KeyError('x')")]


@pytest.mark.parametrize("method", ["_take", "_flush_outbox"], ids=["its callback", "a task of its own"])
def test_a_bug_in_a_consumer_ends_the_flow(method, tmp_path, parts, until, monkeypatch, caplog):
    armed = []
    monkeypatch.setattr(
        NatsConsumer, method, broken(getattr(NatsConsumer, method), lambda _: armed and armed.pop())
    )
    flow = Flow("Push <~> same <~> Output", home=tmp_path / "state").start()
    parts.callback(flow.stop)
    with Device("room1").connect(flow) as device:
        flow.dead_letters()
        armed.append(True)
        device.push(1)
        until(lambda: flow.state == "failed")
        assert said_in_one_line(flow.stats().error)
        assert tracebacks(caplog) == [("pratipad_nb.session.asynchronous", "KeyError('x')")]
        monkeypatch.undo()
        flow.start()  # what failed can be started again, and nothing is lost
        assert [message.payload for message in flow.take(1)] == [1]


def test_a_bug_in_what_looks_after_the_server_ends_the_flows_that_use_it(tmp_path, parts, until, monkeypatch):
    async def bug(self, own):
        raise KeyError("x")

    monkeypatch.setattr(Site, "_hand_over_when_wanted", bug)
    flows = [Flow("Push ~> same ~> Output", name=name, home=tmp_path / "state") for name in "ab"]
    for flow in flows:
        parts.callback(flow.stop)
        flow.start()
    until(lambda: [flow.state for flow in flows] == ["failed", "failed"])
    for flow in flows:
        assert said_in_one_line(flow.stats().error)


def test_a_bug_in_closing_a_run_fails_the_flow_and_gives_the_server_back(place, parts, caplog):
    flow = Flow("Push ~> same ~> Output", **place).start()
    parts.callback(flow.stop)

    async def bug(*_):
        raise KeyError("x")

    flow._flow._edge._undo.push_async_callback(bug)
    flow.stop()
    assert flow.state == "failed"
    assert said_in_one_line(flow.stats().error)
    assert len(tracebacks(caplog)) == 1
    flow.start().stop()
    assert flow.state == "stopped"


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        pytest.param(Downlink, "take", id="the callback for orders"),
        pytest.param(Engine, "_on_credit", id="the callback for credit"),
        pytest.param(Engine, "_hello", id="the hello, and so the farewell"),
        pytest.param(Uplink, "_frame", id="the uplink"),
        pytest.param(Reading, "run", id="the reading"),
    ],
)
def test_a_bug_ends_a_device_which_says_so_and_the_others_of_the_process_go_on(
    kind, method, place, parts, until, monkeypatch, caplog
):
    def is_bad(self):
        return "bad" in (getattr(self, "name", ""), getattr(self, "_device", ""))

    monkeypatch.setattr(kind, method, broken(getattr(kind, method), is_bad))
    orders = []
    flow = parts.enter_context(Flow("Push <~> same <~> Output", **place))
    good = parts.enter_context(Device("good", receive=orders.append).connect(flow))
    bad = Device("bad", read=lambda: 0, every=0.05, receive=print)
    parts.enter_context(contextlib.suppress(DeviceError))  # what it has read is not safe
    parts.callback(bad.close)
    bad.connect(flow)
    flow.send("on", to="good")
    if kind is Downlink:
        until(lambda: "bad" in flow.stats().devices)
        flow.send("on", to="bad")
    until(lambda: bad.state.startswith("failed"))
    assert re.fullmatch(f"failed: device 'bad' stopped: {LINE} Connect a new device.", bad.state)
    assert ("pratipad_nb.device.engine", "KeyError('x')") in tracebacks(caplog)
    with pytest.raises(DeviceError, match="a bug in pratipad_nb"):
        bad.push(1)
    good.push(2).wait(10)
    until(lambda: orders == ["on"])
    assert flow.state == "running"
    until(lambda: not bad._twin._engine.link_stands)


@pytest.mark.parametrize("delivery", ["fast", "durable"])
def test_a_bug_in_a_reader_is_raised_by_the_take_that_waits(delivery, place, monkeypatch):
    with Flow("Push ~> same ~> Output", delivery=delivery, **place) as flow, Cloud(flow) as cloud:
        with Device("room1").connect(flow) as device:
            if delivery == "fast":
                with pytest.raises(WaitTimeout):
                    cloud.take(1, timeout=0.5)  # from now on it listens
            device.push(1)
            assert len(cloud.take(1)) == 1
            source = cloud._twin._reader._source
            kind, method = (SignalSource, "_on_signal") if delivery == "fast" else (LogSource, "_hold")
            method = "_count_gap" if delivery == "fast" else method
            original = getattr(kind, method)
            monkeypatch.setattr(kind, method, broken(original, lambda self: self is source))
            device.push(2)
            for _ in range(2):  # it stays: nothing more comes here
                with pytest.raises(KeyError, match="x"):
                    cloud.take(1000, timeout=20)
        assert flow.state == "running"


def test_a_take_over_nats_hears_of_a_bug_in_the_consumer_that_it_waits_for(tmp_path, monkeypatch):
    with Flow("Push ~> same ~> Output", home=tmp_path / "state") as flow, Cloud(flow) as cloud:
        with Device("room1").connect(flow) as device:
            device.push(1)
            assert len(cloud.take(1)) == 1
            consumer = cloud._twin._reader._source._open.consumer
            bug = broken(NatsConsumer._take, lambda self: self is consumer)
            monkeypatch.setattr(NatsConsumer, "_take", bug)
            device.push(2)
            with pytest.raises(KeyError, match="x"):
                cloud.take(1, timeout=20)
        assert flow.state == "running"


def test_the_picture_of_a_flow_that_a_bug_has_ended_says_so(url, until, monkeypatch):
    monkeypatch.setattr(Edge, "_tick", broken(Edge._tick))
    with Flow("Push ~> same ~> Output", server=url) as flow:
        until(lambda: flow.state == "failed")
        assert "a bug in pratipad_nb" in repr(flow.stats())


async def test_a_bug_in_a_change_whose_caller_was_interrupted_is_logged(url, monkeypatch, caplog):
    flow = AsyncFlow("Push ~> same ~> Output", server=url)
    begun, ends = asyncio.Event(), asyncio.Event()

    async def bug(self, dataflow):
        begun.set()
        await ends.wait()
        raise KeyError("x")

    monkeypatch.setattr(Edge, "swap", bug)
    async with flow:
        changing = asyncio.create_task(flow.update("Push ~> same ~> same ~> Output", {"same": same}))
        await begun.wait()
        changing.cancel()
        await asyncio.wait({changing})
        ends.set()
        async with asyncio.timeout(10):
            while not tracebacks(caplog):
                await asyncio.sleep(0.01)
        assert tracebacks(caplog) == [("pratipad_nb.session.asynchronous", "KeyError('x')")]
        assert flow.state == "running"
