"""Dead letters as a list that shows itself as a table."""

from pratipad_nb import Device, Flow
from pratipad_nb.runtime.positions.dead_letters import DeadLetter
from pratipad_nb.session.letters import LetterList


def fails(payload):
    raise ValueError(f"no {payload}")


def letter(number, processor="fails"):
    return DeadLetter(f"d-1-{number}", "d", 0.0, {"n": number}, processor, "ValueError: <b>", "Traceback …")


def test_a_flows_dead_letters_are_a_list_and_show_themselves_in_rows(url):
    with Flow(
        "Push ~> [same, fails] ~> Output", server=url, namespace={"same": lambda x: x, "fails": fails}
    ) as flow:
        with Device("room1").connect(flow) as device:
            device.push(1).wait(10)
            device.push(2).wait(10)
        flow.settled()
        found = flow.dead_letters()
        assert isinstance(found, list)
        assert [each.payload for each in found] == [1, 2]
        caption, heads, first, _ = repr(found).splitlines()
        assert caption == "2 dead letters; each has its .traceback"
        assert heads.split() == ["time", "device", "processor", "in", "error"]
        assert first.split()[1:] == ["room1", "fails", "1", "✗", "ValueError:", "no", "1"]
        assert flow["fails"].dead_letters() == found
        assert flow["same"].dead_letters() == []


def test_none_show_themselves_as_an_empty_list():
    assert repr(LetterList()) == "[]"
    assert LetterList()._repr_html_() is None


def test_of_many_the_newest_are_shown_with_nothing_of_theirs_as_markup():
    found = LetterList(letter(n) for n in range(100))
    assert len(repr(found).splitlines()) == 22
    assert repr(found).startswith("100 dead letters; the newest 20; each has its .traceback\n")
    assert "{'n': 99}" in repr(found)
    assert "<b>" not in found._repr_html_()
