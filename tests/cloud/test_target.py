"""What a cloud client may be given to read from."""

from __future__ import annotations

import pytest

from pratipad_nb import AsyncCloud, AsyncDevice, AsyncFlow, Cloud, Device, Flow
from pratipad_nb.errors import SettingsError
from pratipad_nb.testing import memory_server


@pytest.fixture
def url():
    with memory_server() as found:
        yield found


def same(payload):
    return payload


async def test_an_asynchronous_flow_lets_its_reader_in(url):
    flow = AsyncFlow("Push ~> same ~> Output", server=url, name="house")
    async with flow, AsyncCloud(flow) as cloud, AsyncDevice("room1") as device:
        await device.connect(flow)
        await device.push("hello")
        assert [message.payload for message in await cloud.take(1)] == ["hello"]


def test_a_synchronous_flow_serves_a_synchronous_reader_and_a_device(url):
    with (
        Flow("Push ~> same ~> Output", server=url, name="house") as flow,
        Cloud(flow, reader="audit") as cloud,
    ):
        with Device("room1").connect(flow) as device:
            device.push(1).wait(5)
        assert [message.payload for message in cloud.take(1)] == [1]


def test_an_asynchronous_flow_is_refused_by_a_synchronous_reader(url):
    flow = AsyncFlow("Push ~> same ~> Output", server=url, name="house")
    with pytest.raises(SettingsError, match="Read it by an AsyncCloud"):
        Cloud(flow)


def test_a_flow_and_a_url_together_are_refused(url):
    flow = Flow("Push ~> same ~> Output", server=url, name="house")
    with pytest.raises(SettingsError, match=r"knows its own\. Leave them out"):
        Cloud(flow, server="tls://127.0.0.1:4222")


def test_what_is_neither_a_name_nor_a_flow_is_refused():
    with pytest.raises(SettingsError, match="42 can't name a flow"):
        Cloud(42)
