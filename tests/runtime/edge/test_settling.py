"""Whether all that was accepted is at Output, also while the link comes and goes."""

from __future__ import annotations

import pytest

from pratipad_nb.errors import TransportClosed, WaitTimeout


def failing(monkeypatch, edge, times, error):
    """Let the next looks at the edge's logs fail so often."""
    found, left = edge.parts.connection.find_log, list(range(times))

    async def find_log(name):
        if left:
            left.pop()
            raise error
        return await found(name)

    monkeypatch.setattr(edge.parts.connection, "find_log", find_log, raising=False)
    return left


async def test_a_link_that_goes_down_meanwhile_is_waited_for(edges, push, monkeypatch):
    edge = await edges.running()
    await push(1, 2, 3)
    left = failing(
        monkeypatch, edge, 3, WaitTimeout("the link to the server went down before an answer came")
    )
    await edge.settled(5)
    assert left == []
    assert edge.parts.in_flight.count == 0


async def test_one_that_stays_down_is_named_once_the_time_is_over(edges, monkeypatch):
    edge = await edges.running()
    failing(monkeypatch, edge, 10_000, WaitTimeout("the link is down"))
    with pytest.raises(
        WaitTimeout, match=r"not settled after 0.1 s: its input can't be looked at: the link is down"
    ):
        await edge.settled(0.1)


async def test_a_connection_that_was_closed_is_not_waited_for(edges, monkeypatch):
    edge = await edges.running()
    failing(monkeypatch, edge, 1, TransportClosed("the connection was closed"))
    with pytest.raises(TransportClosed):
        await edge.settled(5)
