"""Data frames of messages, and plots over time by device."""

from __future__ import annotations

import sys

import pytest

from pratipad_nb.cloud.dataframe import frame, plot
from pratipad_nb.errors import SettingsError
from pratipad_nb.message import Message

pandas = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")


def message(number, payload, device="room1"):
    return Message(
        payload=payload,
        id=f"{device}-1-{number}",
        device=device,
        time=float(number),
        received=number + 0.5,
        flow="house",
    )


def test_a_row_a_message_with_the_time_in_utc_and_nested_keys_joined():
    table = frame(
        [message(1, {"co2": 800, "bme": {"t": 20.5}}), message(2, {"co2": 900, "tags": [1]}, "room2")]
    )
    assert list(table.columns) == ["device", "co2", "bme.t", "tags"]
    assert list(table.index) == [pandas.Timestamp(n, unit="s", tz="UTC") for n in (1, 2)]
    assert table.index.name == "time"
    assert list(table["device"]) == ["room1", "room2"]
    assert list(table["co2"]) == [800, 900]
    assert table["bme.t"].isna().tolist() == [False, True]


def test_a_payload_that_is_no_map_is_in_the_column_value():
    assert list(frame([message(1, 5), message(2, 6)])["value"]) == [5, 6]


def test_a_key_called_like_the_metadata_is_set_apart():
    table = frame([message(1, {"device": "x", "id": 3})], metadata=True)
    assert list(table.columns) == ["device", "id", "received", "flow", "payload.device", "payload.id"]
    assert table["id"].item() == "room1-1-1"
    assert table["received"].item() == pandas.Timestamp(1.5, unit="s", tz="UTC")


def test_no_messages_make_an_empty_frame():
    table = frame([])
    assert list(table.columns) == ["device"]
    assert str(table.index.tz) == "UTC"


def test_a_plot_has_an_axis_a_field_and_a_line_a_device():
    readings = [
        message(n, {"co2": 400 + n, "t": 20.5, "open": n > 2, "room": "a"}, device)
        for n in range(5)
        for device in ("room1", "room2")
    ]
    figure = plot(readings)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["co2", "t", "open"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["room1", "room2"]
    assert list(figure.axes[0].lines[0].get_ydata()) == [400, 401, 402, 403, 404]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["room1", "room2"]


def test_a_plot_of_chosen_fields_of_a_frame_leaves_out_missing_values():
    table = frame([message(1, {"a": 1, "b": 2}), message(2, {"b": 3}), message(3, {"a": 5})])
    figure = plot(table, ["a"], title="House")
    assert [list(line.get_ydata()) for axis in figure.axes for line in axis.lines] == [[1, 5]]
    assert not figure.legends


def test_a_notebook_shows_a_plot_where_pyplot_was_never_imported():
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(plot([message(n, {"co2": n}) for n in range(3)]))
    assert shown["image/png"].startswith(b"\x89PNG")


def test_a_plot_leaves_no_figure_behind_in_pyplot():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot([message(1, {"a": 1})])
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["temperatur"], r"no field|no message has a field 'temperatur'; there is 'temperature'"),
        (["room"], "holds no numbers"),
    ],
)
def test_a_field_that_can_not_be_plotted_is_named_with_those_that_can(fields, said):
    with pytest.raises(SettingsError, match=said):
        plot([message(1, {"temperature": 1.5, "room": "a"})], fields)


def test_nothing_to_plot_says_so():
    with pytest.raises(SettingsError, match="nothing to plot: 0 messages"):
        plot([])


def test_without_pandas_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SettingsError, match=r"need pandas.*pip install 'pratipad-nb\[lab\]'"):
        frame([])
