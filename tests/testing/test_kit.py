import doctest

import pratipad_nb.testing
from pratipad_nb import Device, Flow
from pratipad_nb.testing import memory_server, real_server


def test_the_example_of_the_kit_is_true():
    results = doctest.testmod(pratipad_nb.testing)
    assert results.attempted > 3
    assert results.failed == 0


def test_two_memory_servers_know_nothing_of_each_other():
    def same(payload):
        return payload

    with memory_server() as one, memory_server() as other:
        assert one != other
        with (
            Flow("Push ~> same ~> Output", server=one) as flow,
            Flow("Push ~> same ~> Output", name="twin", server=other) as twin,
        ):
            with Device("d").connect(flow) as device:
                device.push("here").wait(5)
            assert [m.payload for m in flow.take(1)] == ["here"]
            assert twin.stats().received == 0


def test_the_real_server_leaves_nothing_behind():
    def same(payload):
        return payload

    with real_server() as home:
        with Flow("Push ~> same ~> Output", home=home) as flow, Device("d").connect(flow) as device:
            device.push(1).wait(10)
            assert flow.take(1)[0].payload == 1
        assert home.exists()
    assert not home.exists()
