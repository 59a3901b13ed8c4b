"""What a flow is given is checked in the line that gives it, and told in one form."""

import pytest

from pratipad_nb import AsyncFlow, Flow, preview
from pratipad_nb.errors import ProcessorError, SettingsError
from pratipad_nb.session.checks import checked_demand, checked_rate, checked_server, checked_speed

NOTATION = "Push ~> same ~> Output"
NAMES = {"same": len}
INFINITE = float("inf"), float("nan"), 10**400


@pytest.mark.parametrize("value", [*INFINITE, 0, -1, "fast", True])
def test_a_rate_that_is_none_is_refused_everywhere(value):
    said = r"rate is .*; it is messages a second, a number above 0, or None for no limit"
    with pytest.raises(SettingsError, match=said):
        Flow(NOTATION, namespace=NAMES, rate=value)
    flow = Flow(NOTATION, namespace=NAMES, rate=5)
    with pytest.raises(SettingsError, match=said):
        flow.rate = value
    assert flow.rate == 5.0
    flow.rate = None
    assert flow.rate is checked_rate(None) is None


@pytest.mark.parametrize("value", [*INFINITE, 0, "fast", True])
def test_a_pace_that_is_none_is_refused(value):
    with pytest.raises(SettingsError, match=r"speed is .*; it is 1.0 for the tape's own pace"):
        checked_speed(value)


@pytest.mark.parametrize(
    ("most", "least"), [(True, None), (0, None), (5, 5), (5, True), (5, -1), (5.0, 2), (5, 2.0), ("5", None)]
)
def test_bounds_of_demand_that_are_none_are_refused_and_change_nothing(most, least):
    with pytest.raises(SettingsError, match=r"whole numbers with 0 <= min_demand < max_demand"):
        Flow(NOTATION, namespace=NAMES, max_demand=most, min_demand=least)
    flow = Flow(NOTATION, namespace=NAMES, max_demand=100, min_demand=7)
    with pytest.raises(SettingsError, match=f"max_demand={most!r}, min_demand={least!r}"):
        flow.demand(most, least)
    assert (flow.max_demand, flow.min_demand) == (100, 7)


def test_the_lower_bound_is_half_of_the_other_where_it_is_none():
    assert checked_demand(7) == {"max_demand": 7, "min_demand": 3}
    flow = Flow(NOTATION, namespace=NAMES, max_demand=100, min_demand=7)
    flow.min_demand = None
    assert (flow.max_demand, flow.min_demand) == (100, 50)


@pytest.mark.parametrize("namespace", [3, ["same"], "same"])
def test_a_namespace_that_is_none_is_refused_wherever_one_is_taken(namespace):
    flow = Flow(NOTATION, namespace=NAMES)
    for use in (
        lambda: Flow(NOTATION, namespace=namespace),
        lambda: AsyncFlow(NOTATION, namespace=namespace),
        lambda: preview(NOTATION, [], namespace),
        lambda: flow.update(NOTATION, namespace),
        lambda: flow.shadow(namespace=namespace),
        lambda: flow.newer(namespace),
    ):
        with pytest.raises(SettingsError, match=r"namespace is .*; it must be a mapping of names"):
            use()


@pytest.mark.parametrize(
    "server", [3, "", "localhost:4222", "nats://localhost:4222", "tls://", "memory://", ["tls://a:1"]]
)
def test_a_server_that_can_not_be_is_refused_when_the_flow_is_made(server):
    with pytest.raises(SettingsError, match=r"server is .*; it is 'tls://HOST:PORT'"):
        Flow(NOTATION, namespace=NAMES, server=server, certs="certs")


def test_server_and_certs_go_together_when_the_flow_is_made():
    for wrong in ({"server": "tls://localhost:4222"}, {"certs": "certs"}):
        with pytest.raises(SettingsError, match="server= and certs= go together"):
            Flow(NOTATION, namespace=NAMES, **wrong)
    assert checked_server("tls://a:1,tls://b:2", "certs")[0] == "tls://a:1,tls://b:2"
    assert checked_server("memory://x", None) == ("memory://x", None)


def test_a_role_that_is_none_is_refused(url, tmp_path):
    flow = Flow(NOTATION, namespace=NAMES, server=url)
    for use in (lambda: flow.invite("a", tmp_path, "king"), lambda: flow.endpoint_for(["device"], "a")):
        with pytest.raises(SettingsError, match=r"role is .*; it can be 'edge' or 'device' or 'reader'"):
            use()


def test_a_folder_that_is_none_is_refused_and_where_none_is_needed_it_is_said(url, tmp_path):
    flow = Flow(NOTATION, namespace=NAMES, server=url)
    with pytest.raises(SettingsError, match="invite: folder is 3; it must be a path"):
        flow.invite("room1", 3)
    with pytest.raises(SettingsError, match=r"the device 'room1' needs no folder.*connect\(flow\)"):
        flow.invite("room1", tmp_path / "room1")
    assert not (tmp_path / "room1").exists()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon", True])
def test_a_wait_that_is_none_is_refused(url, timeout):
    with Flow(NOTATION, namespace=NAMES, server=url) as flow:
        with pytest.raises(
            SettingsError, match=r"settled: timeout is .*; it must be seconds \(0 or more\), or None"
        ):
            flow.settled(timeout)
        flow.settled(None)


def test_what_is_no_processors_key_is_told_with_those_there_are(url):
    flow = Flow(NOTATION, namespace=NAMES, server=url)
    for key in (slice(1, 2), 3, ["same"], "sam"):
        with pytest.raises(ProcessorError, match="is no processor of this dataflow; there are: same"):
            flow[key]
    seen = preview(NOTATION, ["ab"], NAMES)
    with pytest.raises(
        ProcessorError, match=r"'sane' is no processor of this; there are: same\. Did you mean 'same'\?"
    ):
        seen["sane"]
    assert seen.get("sane") is None
    assert "sane" not in seen


def test_what_is_no_message_is_not_followed(url):
    flow = Flow(NOTATION, namespace=NAMES, server=url)
    with pytest.raises(SettingsError, match=r"trace\(3\): it follows one message"):
        flow.trace(3)
