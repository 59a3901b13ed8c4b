"""The forms' guards: payloads that can't be copied, objects that raise, forgotten awaits; counted retries."""

from __future__ import annotations

import functools
import inspect
import math
import threading
import warnings

import msgspec
import pandas
import pytest

from pratipad_nb.message import Message
from pratipad_nb.processors import adapt, copying
from pratipad_nb.processors import adapter as adapter_module
from pratipad_nb.processors import forms as forms_module


async def outcome_of(target, payloads, *, discard=False):
    def message_of(row):
        return Message(
            payload=payloads[row], id=str(row), device="room1", time=1.0, received=2.0, flow="house"
        )

    made = adapt(target, discard=discard).run(payloads, message_of, math.inf)
    return await made if inspect.isawaitable(made) else made


def of_form(form, work, **settings):
    """Return a processor of that form which does `work` with a payload, or with a payload and its message."""

    def plain(payload, message):
        return work(payload, message)

    async def coroutine(payload, message):
        return work(payload, message)

    def generator(payload, message):
        yield work(payload, message)

    async def async_generator(payload, message):
        yield work(payload, message)

    def batch(self, payloads, messages):
        return list(map(work, payloads, messages))

    async def async_batch(self, payloads, messages):
        return list(map(work, payloads, messages))

    function = {f.__name__: f for f in (plain, coroutine, generator, async_generator, batch, async_batch)}[
        form
    ]
    if "batch" in form:
        return type("Batch", (), {"process_batch": function, **settings})
    vars(function).update(settings)
    return function


FORMS = ["plain", "coroutine", "generator", "async_generator", "batch", "async_batch"]
ROW_BY_ROW = FORMS[:4]
BATCHES = FORMS[4:]


class TestCopies:
    @pytest.mark.parametrize(
        ("form", "settings", "discard"),
        [(form, {}, False) for form in BATCHES]
        + [(form, {}, True) for form in FORMS]
        + [(form, {"retries": 1}, False) for form in FORMS],
    )
    async def test_a_payload_that_can_not_be_copied_fails_alone_and_says_why(self, form, settings, discard):
        seen = []
        target = of_form(form, lambda payload, _: seen.append(payload["n"]) or payload, **settings)
        payloads = [{"n": 1}, {"n": 2, "lock": threading.Lock()}, {"n": 3}]
        outcome = await outcome_of(target, payloads, discard=discard)
        assert outcome.done == 3
        assert seen == [1, 3]
        [failure] = outcome.failures
        assert failure.row == 1
        assert failure.error.startswith(
            "ProcessorError: the payload holds a lock that can't be copied (TypeError"
        )
        assert "pass on JSON-like values" in failure.error

    @pytest.mark.parametrize("form", ROW_BY_ROW)
    async def test_without_retries_and_braces_it_passes_as_it_is(self, form):
        lock = threading.Lock()
        assert (await outcome_of(of_form(form, lambda payload, _: payload), [lock])).payloads == [lock]

    @pytest.mark.parametrize("form", FORMS)
    async def test_a_message_holds_the_copy_that_the_processor_is_given(self, form):
        payloads, same = [{"n": 1}], []
        target = of_form(form, lambda payload, message: same.append(message.payload is payload))
        await outcome_of(target, payloads, discard=True)
        assert same == [True]

    @pytest.mark.parametrize("form", FORMS)
    async def test_what_is_done_to_a_messages_payload_is_gone_at_the_next_try(self, form):
        def spoil(payload, message):
            seen.append(message.payload["n"])
            message.payload["n"] = 0
            raise ValueError

        seen, payloads = [], [{"n": 1}]
        await outcome_of(of_form(form, spoil, retries=2), payloads)
        assert seen == [1, 1, 1]
        assert payloads == [{"n": 1}]

    @pytest.mark.parametrize("form", FORMS)
    async def test_a_member_of_braces_is_given_one_copy_of_each_payload(self, form, monkeypatch):
        def counting(payload):
            copied.append(payload)
            return copying.copy_payload(payload)

        copied = []
        for module in (adapter_module, forms_module):
            monkeypatch.setattr(module, "copy_payload", counting)
        await outcome_of(of_form(form, lambda payload, _: payload), [[1], [2], [3]], discard=True)
        assert copied == [[1], [2], [3]]


class Rude(list):
    """A result whose every method raises."""

    def __len__(self):
        raise RuntimeError("no length")

    __iter__ = __bool__ = __eq__ = __repr__ = __len__
    __hash__ = None


class Nobody:
    """What tells nothing of itself, as a proxy whose object is gone does."""

    @property
    def __class__(self):
        raise ReferenceError("gone")


class TestObjectsThatRaise:
    @pytest.mark.parametrize("form", ROW_BY_ROW)
    async def test_one_passes_where_nothing_looks_into_it(self, form):
        for rude in (Rude(), Nobody()):
            outcome = await outcome_of(of_form(form, lambda _, __, rude=rude: rude), [1, 2])
            assert (len(outcome.payloads), outcome.failures) == (2, [])

    @pytest.mark.parametrize("form", BATCHES)
    @pytest.mark.parametrize(("kind", "error"), [(Rude, "RuntimeError"), (Nobody, "ReferenceError")])
    async def test_one_in_a_batch_fails_its_row_alone(self, form, kind, error):
        target = of_form(form, lambda payload, _: kind() if payload == 2 else payload)
        outcome = await outcome_of(target, [1, 2, 3])
        assert outcome.payloads == [1, 3]
        assert [(f.row, f.error.partition(":")[0]) for f in outcome.failures] == [(1, error)]

    async def test_an_error_that_is_no_unicode_can_be_stored(self):
        def read(payload):
            raise FileNotFoundError("caf\udce9")

        [failure] = (await outcome_of(read, [1])).failures
        assert failure.error == "FileNotFoundError: caf\\udce9"
        assert msgspec.msgpack.encode([failure.error, failure.traceback])

    async def test_an_error_that_tells_nothing_of_itself_is_a_failure_all_the_same(self):
        class Awkward(Exception):
            @property
            def __notes__(self):
                raise RuntimeError("no notes")

            def __str__(self):
                raise KeyboardInterrupt

        def fail(payload):
            raise Awkward

        [failure] = (await outcome_of(fail, [1])).failures
        assert failure.error.startswith("Awkward: (its text can't be had")
        assert failure.traceback


class TestRetriesAreCounted:
    @pytest.mark.parametrize("form", FORMS)
    async def test_all_tries_after_the_first_of_all_rows(self, form):
        def fail(payload, _):
            if left[payload]:
                left[payload] -= 1
                raise ValueError
            return payload

        # A batch that raised is taken apart first: that attempt doesn't count.
        left = {1: 2 if form in BATCHES else 1, 2: 0, 3: 99}
        outcome = await outcome_of(of_form(form, fail, retries=2), [1, 2, 3])
        assert [f.row for f in outcome.failures] == [2]
        assert outcome.retried == 1 + 2

    async def test_none_where_nothing_failed(self):
        assert (await outcome_of(lambda payload: payload, [1, 2])).retried == 0

    async def test_a_batch_that_returns_no_results_is_not_tried_again(self):
        calls = []

        class Wrong:
            retries = 3

            def process_batch(self, payloads):
                calls.append(len(payloads))
                return 5

        outcome = await outcome_of(Wrong, [1, 2])
        assert (calls, outcome.retried, len(outcome.failures)) == ([2], 0, 2)


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


async def fetched(payload):
    return payload


async def fetched_each(payload):
    yield payload


class TestWhatNobodyAwaits:
    @pytest.mark.parametrize("discard", [False, True])
    @pytest.mark.parametrize("function", [fetched, fetched_each])
    async def test_a_plain_wrapper_around_an_async_def_fails_and_says_what_to_write(self, function, discard):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcome = await outcome_of(wrapped(function), [1, 2], discard=discard)
        assert outcome.payloads == []
        assert [f.row for f in outcome.failures] == [0, 1]
        kind = "coroutine" if function is fetched else "async_generator"
        assert f"{function.__name__} returned a {kind}, which nobody awaits" in outcome.failures[0].error
        assert "write `async def` for the wrapper too" in outcome.failures[0].error

    @pytest.mark.parametrize("kind", ["def", "async def"])
    async def test_the_rows_beside_it_go_on_in_their_order(self, kind):
        def mixed(payload):
            if payload == 3:
                raise ValueError("three")
            return fetched(payload) if payload in (1, 4) else payload

        async def mixed_async(payload):
            return mixed(payload)

        outcome = await outcome_of(mixed if kind == "def" else mixed_async, [1, 2, 3, 4, 5])
        assert outcome.payloads == [2, 5]
        assert list(outcome.rows) == [1, 4]
        assert [f.row for f in outcome.failures] == [0, 2, 3]
        assert [f.payload for f in outcome.failures] == [1, 3, 4]

    async def test_is_found_in_a_long_call_too(self):
        outcome = await outcome_of(wrapped(fetched), list(range(1000)))
        assert len(outcome.failures) == 1000

    @pytest.mark.parametrize("discard", [False, True])
    async def test_a_batch_that_is_one_or_holds_some_fails_each_row(self, discard):
        class Whole:
            @wrapped
            async def process_batch(self, payloads):
                return payloads

        class Each:
            def process_batch(self, payloads):
                return [fetched(payload) for payload in payloads]

        for target in (Whole, Each):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outcome = await outcome_of(target, [1, 2], discard=discard)
            assert [f.row for f in outcome.failures] == [0, 1]
            assert "process_batch of" in outcome.failures[0].error
            assert "which nobody awaits" in outcome.failures[0].error


class TestBatchResults:
    async def test_a_data_frame_is_refused_with_the_way_to_its_rows(self):
        class Doubled:
            def process_batch(self, payloads):
                frame = pandas.DataFrame(payloads)
                frame["b"] = 2 * frame["a"]
                return frame

        # As many columns as rows: their names would pass for results.
        outcome = await outcome_of(Doubled, [{"a": 1}, {"a": 2}])
        assert outcome.payloads == []
        assert len(outcome.failures) == 2
        assert "returned a DataFrame" in outcome.failures[0].error
        assert 'frame.to_dict("records")' in outcome.failures[0].error

    async def test_its_records_and_a_column_are_results(self):
        class Records:
            def process_batch(self, payloads):
                return pandas.DataFrame(payloads).to_dict("records")

        class Column:
            def process_batch(self, payloads):
                return pandas.DataFrame(payloads)["a"]

        assert (await outcome_of(Records, [{"a": 1}, {"a": 2}])).payloads == [{"a": 1}, {"a": 2}]
        assert (await outcome_of(Column, [{"a": 1}, {"a": 2}])).payloads == [1, 2]

    async def test_a_generator_in_braces_does_its_work(self):
        seen = []

        class Watches:
            def process_batch(self, payloads):
                for payload in payloads:
                    seen.append(payload)
                    yield

        outcome = await outcome_of(Watches, [1, 2], discard=True)
        assert (seen, outcome.done, outcome.failures) == ([1, 2], 2, [])
