"""The SQLite sink: one row a message, whatever is written how often, from which thread."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pratipad_nb.cloud.sqlite import SQLiteSink
from pratipad_nb.errors import PayloadError, PratipadError, SettingsError
from pratipad_nb.message import Message


def message(number, payload=None, device="room1", flow="house"):
    return Message(
        payload={"n": number} if payload is None else payload,
        id=f"{device}-1-{number}",
        device=device,
        time=1000.0 + number,
        received=1000.5 + number,
        flow=flow,
    )


@pytest.fixture
def sink(tmp_path):
    with SQLiteSink(tmp_path / "house.db") as made:
        yield made


def test_what_was_written_is_read_as_it_was(sink):
    messages = [message(n) for n in range(5)]
    assert sink.write(messages) == 5
    assert sink.read() == messages


def test_a_message_that_is_written_again_is_there_once(sink):
    assert sink.write([message(1), message(2)]) == 2
    assert sink.write([message(2), message(3), message(3)]) == 1
    assert len(sink) == 3


def test_the_same_id_in_two_flows_is_two_messages(sink):
    assert sink.write([message(1), message(1, flow="garden")]) == 2
    assert [m.flow for m in sink.read(flow="garden")] == ["garden"]


def test_messages_are_read_by_device_time_and_number(sink):
    sink.write([message(n, device=device) for n in range(4) for device in ("room1", "room2")])
    assert [m.time for m in sink.read(device="room2", since=1001, until=1003)] == [1001, 1002]
    since = datetime.fromtimestamp(1002, UTC)
    assert [m.time for m in sink.read(device="room1", since=since)] == [1002, 1003]
    assert [m.time for m in sink.read(device="room1", limit=2)] == [1002, 1003]


def test_a_time_without_a_zone_is_refused(sink):
    with pytest.raises(SettingsError, match="no time zone"):
        sink.read(since=datetime(2026, 1, 1))


def test_chosen_fields_and_the_time_are_columns_for_sql(tmp_path):
    path = tmp_path / "house.db"
    with SQLiteSink(path) as first:
        first.write([message(1, {"temperature_c": 20.5, "room": {"floor": 1}})])
    with SQLiteSink(path, fields=["temperature_c"]) as second:
        second.write([message(2, {"temperature_c": 21.5})])
        other = sqlite3.connect(path)
        assert other.execute("SELECT avg(temperature_c), min(utc) FROM messages").fetchone() == (
            21.0,
            "1970-01-01T00:16:41.000Z",
        )
        other.close()


def test_all_threads_may_write(sink):
    def write(device):
        for start in range(0, 100, 10):
            sink.write([message(n, device=device) for n in range(start, start + 10)])

    threads = [threading.Thread(target=write, args=(f"room{k}",)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sink) == 400


def test_a_batch_with_a_payload_that_is_no_json_is_not_written_at_all(sink):
    with pytest.raises(PayloadError, match="JSON"):
        sink.write([message(1), message(2, {"x": object()})])
    assert len(sink) == 0


def test_an_unusable_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match="can't be opened"):
        SQLiteSink(tmp_path / "missing" / "house.db")
    (tmp_path / "text.db").write_text("no database, but long enough to be looked at\n" * 50)
    with pytest.raises(SettingsError, match="not a database"):
        SQLiteSink(tmp_path / "text.db")


@pytest.mark.parametrize("name", ['a"; DROP TABLE x', "", "1st", "a b", None])
def test_a_table_or_field_that_is_no_name_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match="can't name a table"):
        SQLiteSink(tmp_path / "a.db", table=name)
    with pytest.raises(SettingsError, match="can't name a column"):
        SQLiteSink(tmp_path / "a.db", fields=[name])


def test_a_field_that_every_message_has_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="column of every message"):
        SQLiteSink(tmp_path / "a.db", fields=["Device"])


def test_a_failing_statement_is_one_of_our_errors(sink):
    other = sqlite3.connect(sink.path)
    other.execute("DROP TABLE messages")
    other.close()
    with pytest.raises(PratipadError, match="no such table"):
        sink.write([message(1)])


def test_a_closed_sink_says_so(sink):
    sink.close()
    sink.close()
    with pytest.raises(SettingsError, match="closed"):
        sink.write([message(1)])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@given(payload=json_values)
def test_any_json_payload_comes_back(payload):
    with SQLiteSink(":memory:") as sink:
        sink.write([message(1, [payload])])
        assert sink.read()[0].payload == [payload]
