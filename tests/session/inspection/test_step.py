"""Looking into a running flow: a processor by its key, and a message on its way."""

import threading

import pytest

from pratipad_nb import AsyncFlow, Device, Flow
from pratipad_nb.errors import FlowError, ProcessorError, SettingsError
from pratipad_nb.runtime.values.samples import KEPT
from pratipad_nb.runtime.values.sampling import PER_SECOND


class Celsius:
    """Reads Fahrenheit."""

    def __init__(self, factor=1.8):
        self.factor = factor

    def process(self, reading):
        if reading["f"] == 13:
            raise ValueError("unlucky")
        print("read", reading["f"])
        return {"c": (reading["f"] - 32) / self.factor}


def twice(payload):
    yield payload
    yield payload


def warm(payload):
    if payload["c"] > 0:
        yield payload


def look(payload):
    payload["c"] = "spoilt"


def spoil(payload):
    payload["f"] = "spoilt"
    return {"c": 1}


def opaque(payload):
    return threading.Lock()


def plain(payload):
    return {"c": 2}


class Shared:
    concurrency = 3

    def process(self, payload):
        return payload


@pytest.fixture
def run(url):
    """Start a flow, let two devices push what is given, and return it once all is at Output."""
    opened = []

    def start(notation, payloads=(), devices=("room1",), **options):
        flow = Flow(notation, server=url, name="house", **options).start()
        opened.append(flow)
        for name in devices:
            device = Device(name).connect(flow)
            opened.append(device)
            receipts = [device.push(payload) for payload in payloads]
            for receipt in receipts:
                receipt.wait(10)
        flow.settled()
        return flow

    yield start
    for each in reversed(opened):
        getattr(each, "close", None) and each.close()
        getattr(each, "stop", None) and each.stop()


# -- one processor -------------------------------------------------------------------------------------------


def test_a_processor_shows_its_source_its_arguments_and_its_numbers(run):
    step = run("Push ~> Celsius(factor=2.0) ~> Output", [{"f": 32}, {"f": 13}])["Celsius"]
    assert step.key == "Celsius"
    assert step.source.startswith('class Celsius:\n    """Reads Fahrenheit."""')
    assert step.source.rstrip().endswith("self.factor}")
    assert step.arguments == {"factor": 2.0}
    assert (step.stats.received, step.stats.emitted, step.stats.failed) == (2, 1, 1)
    assert "in 2, out 1, failed 1" in repr(step)


def test_what_it_printed_is_its_log(run):
    assert [line.text for line in run("Push ~> Celsius ~> Output", [{"f": 1}, {"f": 2}])["Celsius"].log] == [
        "read 1",
        "read 2",
    ]


def test_an_unknown_processor_is_named_with_its_nearest_name(run):
    with pytest.raises(
        ProcessorError, match=r"'Celsus' is no processor.*there are: Celsius.*mean 'Celsius'\?"
    ):
        run("Push ~> Celsius ~> Output")["Celsus"]


def test_in_asks_for_a_processor_and_takes_no_message(run):
    flow = run("Push ~> [Celsius, twice, twice] ~> Output", [{"f": 1}])
    assert "twice#2" in flow
    assert "Celsus" not in flow
    assert flow.take(1)


def test_a_handful_that_is_pushed_in_one_go_is_followed_whole(run):
    payloads = [{"f": n} for n in range(40, 60)]
    samples = run("Push ~> Celsius ~> Output", payloads)["Celsius"].samples(100)
    assert [sample.message.payload for sample in samples] == payloads
    assert [sample.results for sample in samples] == [({"c": (p["f"] - 32) / 1.8},) for p in payloads]


def test_the_last_ones_are_shown_and_those_of_one_device_can_be_asked_for(run):
    step = run("Push ~> Celsius ~> Output", [{"f": n} for n in range(20, 30)], ("room1", "room2"))["Celsius"]
    assert len(step.samples(3)) == 3
    assert step.samples(0) == []
    assert {sample.message.device for sample in step.samples(100, device="room1")} == {"room1"}
    assert [s.message.payload["f"] for s in step.samples(2, device="room1")] == [28, 29]


def test_a_failure_is_shown_with_its_traceback_and_no_result(run):
    (sample,) = run("Push ~> Celsius ~> Output", [{"f": 13}])["Celsius"].samples()
    assert sample.results == ()
    assert sample.error == "ValueError: unlucky"
    assert 'raise ValueError("unlucky")' in sample.traceback


def test_what_is_filtered_has_no_result_and_comes_no_further(run):
    flow = run("Push ~> [Celsius, warm, twice] ~> Output", [{"f": 0}, {"f": 50}])
    assert [len(sample.results) for sample in flow["warm"].samples()] == [0, 1]
    assert [len(sample.results) for sample in flow["twice"].samples()] == [2]


def test_what_several_results_become_is_kept_together(run):
    flow = run("Push ~> [twice, twice] ~> Output", [{"f": 1}])
    (sample,) = flow["twice#2"].samples()
    assert (len(sample.inputs), len(sample.results)) == (2, 4)


def test_in_braces_the_message_is_shown_as_it_goes_on_and_each_member_has_its_own_failure(run):
    flow = run("Push ~> {look, Celsius, plain} ~> Output", [{"f": 13, "c": 0}])
    assert [flow[key].samples()[0].error for key in ("look", "Celsius", "plain")] == [
        "",
        "ValueError: unlucky",
        "",
    ]


def test_a_sample_is_what_came_in_whatever_is_done_to_it_later(run):
    (sample,) = run("Push ~> spoil ~> Output", [{"f": 1}])["spoil"].samples()
    assert (sample.message.payload, sample.results) == ({"f": 1}, ({"c": 1},))


def test_a_value_that_is_not_json_like_is_shown_by_its_text_and_breaks_nothing(run):
    flow = run("Push ~> [opaque, plain] ~> Output", [1])
    assert repr(flow["opaque"].samples()[0].results[0]).startswith("<unlocked _thread.lock")
    assert flow.take(1)[0].payload == {"c": 2}


def test_several_instances_are_sampled_as_one_processor(run):
    devices = [f"room{n}" for n in range(8)]
    flow = run("Push ~> [Shared, twice] ~> Output", [{"f": n} for n in range(5)], devices)
    for key, results in (("Shared", 1), ("twice", 2)):
        samples = flow[key].samples(100)
        assert {s.message.device for s in samples} == set(devices)
        assert {len(s.results) for s in samples} == {results}
        assert all(s.results[0] == s.message.payload for s in samples)


def test_under_load_some_are_followed_and_all_are_delivered(run):
    flow = run("Push ~> plain ~> Output", [{"f": n} for n in range(5000)], ("room1", "room2"))
    samples = flow["plain"].samples(KEPT)
    assert 0 < len(samples) <= 100 + PER_SECOND * flow.stats().uptime + 1
    assert flow.stats().delivered == 10_000


def test_after_a_swap_older_samples_stay_and_each_says_which_version_made_it(run):
    flow = run("Push ~> plain ~> Output", [1])
    flow.update("Push ~> plain ~> Output", {"plain": lambda payload: "new"})
    with Device("late").connect(flow) as device:
        device.push(2).wait(10)
        flow.settled()
    assert [(s.version, s.results) for s in flow["plain"].samples()] == [(0, ({"c": 2},)), (1, ("new",))]


def test_a_stopped_flow_can_still_be_looked_into(run):
    flow = run("Push ~> Celsius ~> Output", [{"f": 32}])
    flow.stop()
    assert len(flow["Celsius"].samples()) == 1
    assert flow["Celsius"].log[0].text == "read 32"
    assert flow["Celsius"].stats.received == 1


def test_a_processor_is_paused_and_goes_on(run, until):
    flow = run("Push ~> plain ~> Output")
    flow["plain"].pause()
    with Device("late").connect(flow) as device:
        device.push(1).wait(10)
        until(lambda: flow.stats().received == 1)
        assert flow["plain"].stats.state == "paused"
        assert flow["plain"].stats.received == 0
        flow["plain"].resume()
        assert flow.take(1)[0].payload == {"c": 2}


def test_its_dead_letters_are_those_it_failed_on(run):
    flow = run("Push ~> [Celsius, plain] ~> Output", [{"f": 13}, {"f": 14}])
    assert flow["plain"].dead_letters() == []
    (letter,) = flow["Celsius"].dead_letters()
    assert (letter.payload, letter.error) == ({"f": 13}, "ValueError: unlucky")


def test_in_ipython_the_keys_are_offered(run):
    assert run("Push ~> [plain, twice, twice] ~> Output")._ipython_key_completions_() == [
        "plain",
        "twice",
        "twice#2",
    ]


# -- how it is shown -----------------------------------------------------------------------------------------


def test_a_table_shows_in_and_out_side_by_side_as_text_and_as_html(run):
    shown = run("Push ~> Celsius ~> Output", [{"f": 32}, {"f": 13}])["Celsius"].show(20)
    caption, heads, *rows = repr(shown).splitlines()
    assert caption == "Celsius: the last 2 messages that were followed"
    assert heads.split() == ["time", "device", "in", "out"]
    assert rows[0].endswith("room1   {'f': 32}  {'c': 0.0}")
    assert rows[1].endswith("✗ ValueError: unlucky")
    html = shown._repr_html_()
    assert "{&#x27;f&#x27;: 32}" in html
    assert html.count("<tr>") == 3
    assert "--jp-error-color1" in html


def test_what_devices_send_is_text_on_the_page_and_never_markup(run):
    shown = run("Push ~> plain ~> Output", [{"x": "<script>alert(1)</script>"}])["plain"].show()
    html = shown._repr_html_()
    assert "{&#x27;x&#x27;: &#x27;&lt;script&gt;alert(1)&lt;/script&gt;&#x27;}" in html
    assert "<script" not in html


def test_a_processor_that_nothing_has_come_to_says_so(run):
    assert repr(run("Push ~> plain ~> Output")["plain"].show()).startswith("plain: nothing has come in")


def test_a_frame_has_a_row_for_each_result(run):
    flow = run("Push ~> [Celsius, twice] ~> Output", [{"f": 32}, {"f": 13}])
    table = flow["Celsius"].frame()
    assert list(table.columns) == ["device", "id", "error", "in.f", "out.c"]
    assert table["in.f"].tolist() == [32, 13]
    assert table["out.c"].iloc[0] == 0.0
    assert table["error"].tolist() == ["", "ValueError: unlucky"]
    assert len(flow["twice"].frame()) == 2


def test_a_frame_without_pandas_says_how_to_install_it(run, monkeypatch):
    flow = run("Push ~> plain ~> Output", [1])
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(Exception, match=r"need pandas.*pip install 'pratipad-nb\[lab\]'"):
        flow["plain"].frame()


def test_an_empty_table_says_what_is_so(run):
    step = run("Push ~> plain ~> Output", [1])["plain"]
    assert repr(step.show()).startswith("plain: the last message that was followed\n")
    assert repr(step.show(0)).startswith("plain: 0 messages were asked for")
    assert repr(step.show(device="nope")).startswith("plain: nothing has come in from 'nope', but from room1")


@pytest.mark.parametrize("n", ["x", 2.5, -1, True, None])
def test_a_number_of_rows_that_is_none_is_refused(run, n):
    step = run("Push ~> plain ~> Output")["plain"]
    for use in (step.show, step.samples, step.frame):
        with pytest.raises(SettingsError, match=r"samples: n is .*; it must be a whole number of at least 0"):
            use(n)


# -- one message ---------------------------------------------------------------------------------------------


def test_a_message_is_followed_through_all_processors_whichever_of_its_results_is_given(run):
    flow = run("Push ~> [Celsius, twice] ~> {look, plain} ~> Output", [{"f": 32}])
    first, second = flow.take(2)
    for given in (first, second, first.id):
        way = flow.trace(given)
        assert list(way) == ["Celsius", "twice", "look", "plain"]
        assert way.message.payload == {"f": 32}
        assert way["twice"].results == ({"c": 0.0}, {"c": 0.0})
    assert "look" in repr(way)
    assert way._repr_html_().count("<tr>") == 5


def test_where_a_message_did_not_come_its_way_says_so(run):
    flow = run("Push ~> [Celsius, warm, plain] ~> Output", [{"f": 0}])
    way = flow.trace(flow["Celsius"].samples()[0].message)
    assert way["plain"] is None
    assert repr(way).splitlines()[-1].split() == ["plain", "–", "–"]


def test_a_message_that_was_not_followed_is_told_with_where_to_look(run):
    with pytest.raises(FlowError, match=r"'room1-1-1' of flow 'house' wasn't followed.*samples\(\)"):
        run("Push ~> plain ~> Output").trace("room1-1-1")


async def test_the_asynchronous_twin_has_the_same(url):
    flow = AsyncFlow("Push ~> plain ~> Output", server=url)
    async with flow:
        step = flow["plain"]
        await step.pause()
        assert step.stats.state == "paused"
        await step.resume()
        assert step.stats.state == "running"
        assert await step.dead_letters() == []
        assert step.samples() == []
    assert "plain" in flow
