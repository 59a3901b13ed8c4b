"""The parts of the house that its notebook imports: where rain comes from, and what the rule says."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from runpy import run_path
from urllib.error import URLError
from urllib.parse import parse_qs, urlsplit

import pytest

from pratipad_nb import Message
from pratipad_nb.device import Led


def part(name, request):
    return run_path(str(request.config.rootpath / "notebooks" / "house_parts" / f"{name}.py"))


@pytest.fixture
def rain(request):
    return part("rain", request)


@pytest.fixture
def rule(request):
    return part("rule", request)["rule"]


@pytest.fixture
def service():
    """What Open-Meteo answers, by HTTP; the addresses that it was asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            daily = {"time": ["2026-04-13"], "precipitation_sum": [7.5]}
            self.wfile.write(json.dumps({"daily": daily}).encode())

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_recorded_rain_is_that_of_the_days_one_after_the_other_and_begins_anew_at_the_end(rain):
    recorded = rain["RecordedRain"](begin="2013-04-13", seconds=2.0)
    assert [recorded(elapsed) for elapsed in (0, 1.9, 2, 4, 6, 8, 10)] == [9.4, 9.4, 5.8, 0.0, 0.3, 0.0, 5.3]
    assert recorded(2.0 * len(recorded.days)) == 9.4


def test_online_rain_asks_for_the_place_once_and_keeps_the_answer_while_it_is_fresh(rain, service):
    online = rain["OnlineRain"](latitude=47.61, longitude=-122.33)
    online.url = f"http://127.0.0.1:{service.server_port}/v1/forecast"
    assert [online(0), online(1)] == [7.5, 7.5]
    (asked,) = service.asked
    assert parse_qs(urlsplit(asked).query) == {
        "latitude": ["47.61"],
        "longitude": ["-122.33"],
        "daily": ["precipitation_sum"],
        "timezone": ["auto"],
        "forecast_days": ["1"],
    }


def test_online_rain_that_can_not_be_had_is_the_last_one_or_an_error(rain, service):
    online = rain["OnlineRain"](latitude=0, longitude=0)
    online.url, online.fresh = f"http://127.0.0.1:{service.server_port}/", 0.0
    nowhere = "http://127.0.0.1:9/"
    online.url, there = nowhere, online.url
    with pytest.raises(URLError):
        online(0)
    online.url = there
    assert online(0) == 7.5
    online.url = nowhere
    assert online(0) == 7.5


@pytest.mark.parametrize(
    ("co2", "mm", "window", "then"),
    [
        (801, 4.9, "shut", "open"),
        (800, 4.9, "shut", None),
        (801, 5.0, "shut", None),
        (700, 0.0, "open", None),
        (599, 0.0, "open", "shut"),
        (900, 5.0, "open", "shut"),
    ],
)
def test_bad_air_and_little_rain_open_the_window_and_good_air_or_rain_shut_it(rule, co2, mm, window, then):
    payload = {"co2_ppm": co2, "precipitation_mm": mm, "window": window}
    order = rule(Message(payload=payload, id="m", device="room1", time=0.0, received=0.0, flow="house"))
    assert (order and order["window"]) == then
    if then == "open":
        led = Led()
        led(order)
        assert led.is_blinking
        led.close()
