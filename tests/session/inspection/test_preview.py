"""`preview`: what each processor makes of a few payloads, with nothing started and nothing stored."""

import threading

import pytest

from pratipad_nb import Processor, preview, reply
from pratipad_nb.errors import ProcessorError, SettingsError


def double(payload):
    return payload * 2


def odd(payload):
    if payload % 2:
        yield payload


def picky(payload):
    if payload == 2:
        raise ValueError("two")
    return payload


class Spoils:
    def process(self, payload):
        payload["n"] = "spoilt"


async def plus_one(payload):
    return payload + 1


def test_each_steps_result_is_shown_by_its_key():
    found = preview("Push ~> odd ~> [double, plus_one] ~> Output", [1, 2, 3])
    assert found["odd"].results == [1, 3]
    assert found["double"].results == [2, 6]
    assert found["plus_one"].results == found.output == [3, 7]
    assert list(found) == ["odd", "double", "plus_one"]


def test_failures_are_shown_with_their_payload_and_the_others_go_on():
    found = preview("Push ~> picky ~> double ~> Output", [1, 2, 3])
    assert found["picky"].failures == [(2, "ValueError: two")]
    assert found.output == [2, 6]
    assert "✗ 2: ValueError: two" in repr(found)


def test_members_of_braces_change_nothing():
    payloads = [{"n": 1}]
    found = preview("Push ~> {Spoils, Spoils} ~> Output", payloads)
    assert found.output == payloads == [{"n": 1}]


def mark_a(payload):
    payload["a"] = 1
    return payload


def mark_b(payload):
    payload["seen"].append("b")
    return payload


def twice(payload):
    yield payload
    yield payload


class FailsFirst:
    def setup(self):
        self.failed = False

    def process(self, payload):
        if not self.failed:
            self.failed = True
            raise ValueError("no")
        return payload


def test_what_a_later_step_changes_in_place_shows_in_no_earlier_one_nor_in_what_was_given():
    payloads = [{"seen": []}]
    found = preview("Push ~> [mark_a, mark_b] ~> Output", payloads)
    assert found["mark_a"].results == [{"seen": [], "a": 1}]
    assert found["mark_b"].results == found.output == [{"seen": ["b"], "a": 1}]
    assert payloads == [{"seen": []}]


def test_what_a_later_step_changes_in_place_shows_in_no_failure_before_it():
    found = preview("Push ~> [twice, FailsFirst, mark_b] ~> Output", [{"seen": []}])
    assert found["FailsFirst"].failures == [({"seen": []}, "ValueError: no")]
    assert found.output == [{"seen": ["b"]}]


def test_a_payload_that_can_not_be_copied_passes_as_it_is():
    lock = threading.Lock()
    found = preview("Push ~> same ~> Output", [{"lock": lock}], {"same": lambda payload: payload})
    assert found.output == [{"lock": lock}]


def test_it_leaves_no_thread_and_tears_down_what_it_sets_up():
    lived = []

    class Lives(Processor):
        def setup(self):
            lived.append("set up")

        def process(self, payload):
            return payload

        def teardown(self):
            lived.append("torn down")

    before = threading.active_count()
    preview("Push ~> Lives ~> Output", [1])
    assert lived == ["set up", "torn down"]
    assert threading.active_count() == before


def test_a_reply_that_could_not_pass_fails_here_already():
    def answers(payload, message):
        reply("heard", to=message)
        return payload

    assert preview("Push <~> answers ~> Output", [1]).output == [1]
    found = preview("Push ~> answers ~> Output", [1])
    ((payload, error),) = found["answers"].failures
    assert payload == 1
    assert "a reply can't pass arrow 1" in error


def test_a_processor_that_can_not_be_set_up_is_an_error():
    class Broken:
        def setup(self):
            raise OSError("no such bus")

        def process(self, payload):
            return payload

    with pytest.raises(ProcessorError, match=r"Broken.*no such bus"):
        preview("Push ~> Broken ~> Output", [1])


@pytest.mark.parametrize("payloads", [{"n": 1}, "text", 3])
def test_what_is_no_list_of_payloads_is_refused(payloads):
    with pytest.raises(SettingsError, match="payloads has to be a list of payloads"):
        preview("Push ~> same ~> Output", payloads, {"same": lambda payload: payload})


def test_too_many_payloads_are_refused():
    with pytest.raises(SettingsError, match="at most 10000"):
        preview("Push ~> double ~> Output", range(10_001))
