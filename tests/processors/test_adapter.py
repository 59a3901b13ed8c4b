"""Every form of processor, called for many rows at once."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from time import perf_counter

import pytest

from pratipad_nb.errors import ProcessorError
from pratipad_nb.message import Message
from pratipad_nb.processors import Processor, adapt, check, every, reply
from pratipad_nb.processors.adapter import works_on_loop


def message_of(row):
    return Message(payload=None, id=f"room1-1-{row}", device="room1", time=1.0, received=2.0, flow="house")


async def outcome_of(target, payloads, *, discard=False, seconds=30.0, adapted=None):
    adapted = adapted or adapt(target, discard=discard)
    made = adapted.run(payloads, message_of, perf_counter() + seconds)
    return await made if inspect.isawaitable(made) else made


def plain(payload):
    return payload * 10


async def coroutine(payload):
    return payload * 10


def generator(payload):
    yield payload * 10


async def async_generator(payload):
    yield payload * 10


class WithBatch:
    batch_size = 3

    def process_batch(self, payloads):
        return [p * 10 for p in payloads]


class WithAsyncBatch:
    batch_size = 3

    async def process_batch(self, payloads):
        return [p * 10 for p in payloads]


FORMS = [plain, coroutine, generator, async_generator, WithBatch, WithAsyncBatch]


def failing(form, bad, *, times=10**9, retries=0):
    """Return a processor of that form which raises for the payload `bad`, so many times."""
    left = [times]

    def check_it(payload):
        if payload == bad and left[0]:
            left[0] -= 1
            raise ValueError(f"no {bad}")
        return payload * 10

    async def coroutine(payload):
        return check_it(payload)

    def generator(payload):
        yield 0
        yield check_it(payload)

    async def async_generator(payload):
        yield 0
        yield check_it(payload)

    def batch(self, payloads):
        return [check_it(p) for p in payloads]

    async def async_batch(self, payloads):
        return [check_it(p) for p in payloads]

    if "batch" in form:
        method = batch if form == "batch" else async_batch
        return type("Batch", (), {"process_batch": method, "retries": retries})
    found = {
        "plain": check_it,
        "coroutine": coroutine,
        "generator": generator,
        "async_generator": async_generator,
    }
    found[form].retries = retries
    return found[form]


FAILING = ["plain", "coroutine", "generator", "async_generator", "batch", "async_batch"]


class TestEveryForm:
    @pytest.mark.parametrize("target", FORMS)
    async def test_gives_one_result_for_each_row_in_order(self, target):
        outcome = await outcome_of(target, list(range(1, 9)))
        assert outcome.payloads == [10, 20, 30, 40, 50, 60, 70, 80]
        assert outcome.rows == range(8)
        assert (outcome.done, outcome.failures, outcome.replies) == (8, [], [])

    @pytest.mark.parametrize("target", FORMS)
    async def test_drops_results_in_braces(self, target):
        outcome = await outcome_of(target, [1, 2, 3], discard=True)
        assert (outcome.done, outcome.payloads, list(outcome.rows), outcome.failures) == (3, [], [], [])

    @pytest.mark.parametrize("target", FORMS)
    async def test_finishes_at_least_one_row_after_the_deadline(self, target):
        adapted = adapt(target)
        outcome = await outcome_of(None, [1, 2, 3, 4, 5], seconds=-1.0, adapted=adapted)
        assert outcome.done == adapted.batch_size if "Batch" in adapted.name else outcome.done == 1
        assert outcome.payloads == [10, 20, 30][: outcome.done]

    @pytest.mark.parametrize("target", FORMS)
    async def test_takes_no_rows_as_well(self, target):
        outcome = await outcome_of(target, [])
        assert (outcome.done, outcome.payloads, outcome.durations) == (0, [], [])

    @pytest.mark.parametrize("target", FORMS)
    async def test_measures_its_time(self, target):
        outcome = await outcome_of(target, [1, 2, 3])
        assert 0 < sum(outcome.durations) <= outcome.elapsed + 1e-9

    @pytest.mark.parametrize("form", FAILING)
    async def test_lets_one_message_fail_and_the_others_go_on(self, form):
        outcome = await outcome_of(failing(form, 2), [1, 2, 3])
        assert outcome.done == 3
        assert [p for p in outcome.payloads if p] == [10, 30]
        assert sorted(set(outcome.rows)) == [0, 2]
        [failure] = outcome.failures
        assert (failure.row, failure.payload, failure.error) == (1, 2, "ValueError: no 2")

    @pytest.mark.parametrize("form", FAILING)
    async def test_tries_again_as_often_as_it_may(self, form):
        # A batch that raised is taken apart first: that attempt doesn't count.
        times = 3 if "batch" in form else 2
        outcome = await outcome_of(failing(form, 2, times=times, retries=2), [1, 2, 3])
        assert [p for p in outcome.payloads if p] == [10, 20, 30]
        assert outcome.failures == []

    @pytest.mark.parametrize("form", FAILING)
    async def test_gives_up_after_the_last_retry(self, form):
        outcome = await outcome_of(failing(form, 2, times=4, retries=2), [1, 2, 3])
        assert [failure.row for failure in outcome.failures] == [1]

    @pytest.mark.parametrize("form", FAILING)
    async def test_shows_a_traceback_of_the_users_frames_alone(self, form):
        [failure] = (await outcome_of(failing(form, 2), [2])).failures
        assert "check_it" in failure.traceback
        assert "ValueError: no 2" in failure.traceback
        assert "forms.py" not in failure.traceback
        assert "During handling" not in failure.traceback


class TestPlain:
    @pytest.mark.parametrize("kind", ["def", "async def"])
    async def test_returning_none_fails_with_the_ways_out(self, kind):
        def nothing(payload):
            pass

        async def nothing_async(payload):
            pass

        outcome = await outcome_of(nothing if kind == "def" else nothing_async, [1])
        assert "returned None" in outcome.failures[0].error
        assert "yield" in outcome.failures[0].error
        assert "braces {…}" in outcome.failures[0].error

    async def test_returning_none_in_braces_is_fine(self):
        outcome = await outcome_of(lambda payload: None, [1, 2], discard=True)
        assert (outcome.done, outcome.failures) == (2, [])

    async def test_rows_skip_those_that_failed(self):
        outcome = await outcome_of(failing("plain", 1), [1, 2, 1, 3])
        assert list(outcome.rows) == [1, 3]

    async def test_samples_the_durations_of_a_long_call(self):
        outcome = await outcome_of(plain, list(range(1, 1001)))
        assert len(outcome.durations) == 63

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
    async def test_even_an_exception_that_ends_programs_concerns_its_message_alone(self, error):
        def leave(payload):
            if payload == 2:
                raise error("out")
            return payload

        outcome = await outcome_of(leave, [1, 2, 3])
        assert outcome.payloads == [1, 3]
        assert outcome.failures[0].error == f"{error.__name__}: out"

    async def test_a_retry_starts_from_the_payload_as_it_came_in(self):
        seen = []

        def spoil(payload):
            seen.append(dict(payload))
            payload["n"] += 1
            raise ValueError

        spoil.retries = 1
        outcome = await outcome_of(spoil, [{"n": 1}])
        assert seen == [{"n": 1}, {"n": 1}]
        assert outcome.failures[0].payload == {"n": 1}

    async def test_stops_at_the_deadline_and_hands_on_what_is_done(self):
        started = threading.Event()

        def slow(payload):
            while perf_counter() < end and payload == 2:
                started.set()
            return payload

        end = perf_counter() + 0.02
        adapted = adapt(slow)
        outcome = adapted.run([1, 2, 3], message_of, end - 0.01)
        assert outcome.payloads == [1, 2]
        assert outcome.done == 2


class TestGenerator:
    async def test_filters_and_fans_out(self):
        def fan(payload):
            yield from range(payload)

        outcome = await outcome_of(fan, [0, 1, 2])
        assert outcome.payloads == [0, 0, 1]
        assert list(outcome.rows) == [1, 2, 2]
        assert outcome.done == 3

    async def test_that_fails_half_way_leaves_nothing_behind(self):
        outcome = await outcome_of(failing("generator", 2), [2])
        assert outcome.payloads == []

    async def test_may_yield_none_as_a_payload(self):
        def null(payload):
            yield None

        assert (await outcome_of(null, [1])).payloads == [None]


class TestBatch:
    async def test_gets_at_most_batch_size_payloads(self):
        sizes = []

        class Sizes:
            batch_size = 3

            def process_batch(self, payloads):
                sizes.append(len(payloads))
                return payloads

        await outcome_of(Sizes, list(range(8)))
        assert sizes == [3, 3, 2]

    async def test_a_list_stands_for_the_results_of_its_payload_whatever_the_others_are(self):
        class Fan:
            def process_batch(self, payloads):
                return [[], [1, 2], 3, [[4]]]

        outcome = await outcome_of(Fan, ["a", "b", "c", "d"])
        assert outcome.payloads == [1, 2, 3, [4]]
        assert list(outcome.rows) == [1, 1, 2, 3]

    async def test_of_the_wrong_length_fails_each_row_and_says_how_many(self):
        class Short:
            batch_size = 2

            def process_batch(self, payloads):
                return payloads[:1]

        outcome = await outcome_of(Short, [1, 2, 3])
        assert [f.row for f in outcome.failures] == [0, 1]
        assert "returned 1 results for 2 payloads" in outcome.failures[0].error
        assert outcome.payloads == [3]

    @pytest.mark.parametrize("returned", [None, 5, "ab", {"a": 1}])
    async def test_that_returns_no_list_fails_each_row(self, returned):
        class Wrong:
            def process_batch(self, payloads):
                return returned

        outcome = await outcome_of(Wrong, [1, 2])
        assert len(outcome.failures) == 2
        assert "returns a list with one result" in outcome.failures[0].error

    async def test_none_for_a_payload_fails_that_row_alone(self):
        class Hole:
            def process_batch(self, payloads):
                return [1, None, 3]

        outcome = await outcome_of(Hole, "abc")
        assert [f.row for f in outcome.failures] == [1]
        assert outcome.payloads == [1, 3]

    async def test_that_raises_half_way_does_not_see_its_own_changes_again(self):
        class Doubling:
            def process_batch(self, payloads):
                for p in payloads:
                    p["n"] = p["n"] * 2 if p["n"] else 1 // 0
                return payloads

        outcome = await outcome_of(Doubling, [{"n": 1}, {"n": 0}, {"n": 3}])
        assert outcome.payloads == [{"n": 2}, {"n": 6}]

    @pytest.mark.parametrize("kind", ["def", "async def"])
    async def test_taken_apart_keeps_to_the_deadline_and_goes_on_alone_in_the_next_call(self, kind):
        sizes = []

        class Fussy:
            def process_batch(self, payloads):
                sizes.append(len(payloads))
                if len(payloads) > 1:
                    raise ValueError("one at a time")
                return payloads

        class FussyAsync(Fussy):
            async def process_batch(self, payloads):
                return super().process_batch(payloads)

        adapted = adapt(Fussy if kind == "def" else FussyAsync)
        first = await outcome_of(None, [1, 2, 3], seconds=-1, adapted=adapted)
        second = await outcome_of(None, [2, 3], adapted=adapted)
        assert (first.payloads, second.payloads) == ([1], [2, 3])
        assert sizes == [3, 1, 1, 1]

    async def test_may_be_a_generator_of_one_result_a_payload(self):
        class Each:
            async def process_batch(self, payloads):
                for p in payloads:
                    yield p + 1

        assert (await outcome_of(Each, [1, 2])).payloads == [2, 3]

    async def test_gets_the_messages_in_a_second_parameter(self):
        class WithMessages:
            batch_size = 2

            def process_batch(self, payloads, messages):
                return [(p, m.id) for p, m in zip(payloads, messages, strict=True)]

        outcome = await outcome_of(WithMessages, ["a", "b", "c"])
        assert outcome.payloads == [("a", "room1-1-0"), ("b", "room1-1-1"), ("c", "room1-1-2")]


class TestMessageParameter:
    async def test_gets_the_message_of_its_row_also_by_keyword_only(self):
        def second(payload, message):
            return message.id

        def by_keyword(payload, *, message):
            return message.id

        for target in (second, by_keyword):
            assert (await outcome_of(target, "ab")).payloads == ["room1-1-0", "room1-1-1"]

    def test_another_required_parameter_is_refused_by_name(self):
        with pytest.raises(ProcessorError, match=r"parameter `metadata`.*second parameter named `message`"):
            adapt(lambda payload, metadata: payload)

    def test_a_process_without_payload_is_refused(self):
        class NoPayload:
            def process(self):
                pass

        with pytest.raises(ProcessorError, match="takes no payload"):
            adapt(NoPayload)


class TestReply:
    @pytest.mark.parametrize("form", FAILING)
    async def test_collects_from_every_form_and_also_from_a_row_that_fails(self, form):
        def plain(payload, message):
            reply(payload, to=message)
            return payload

        async def coroutine(payload, message):
            await asyncio.sleep(0)
            return plain(payload, message)

        def generator(payload, message):
            yield plain(payload, message)

        async def async_generator(payload, message):
            yield plain(payload, message)

        class Batching:
            def process_batch(self, payloads, messages):
                return list(map(plain, payloads, messages))

        class AsyncBatching(Batching):
            async def process_batch(self, payloads, messages):
                return super().process_batch(payloads, messages)

        forms = dict(
            zip(FAILING, [plain, coroutine, generator, async_generator, Batching, AsyncBatching], strict=True)
        )
        outcome = await outcome_of(forms[form], ["a", "b"])
        assert [(p, m.id) for p, m in outcome.replies] == [("a", "room1-1-0"), ("b", "room1-1-1")]


class TestOnTheLoop:
    def test_async_forms_are_for_the_loop_and_others_are_not(self):
        assert [adapt(target).on_loop for target in FORMS] == [False, True, False, True, False, True]

    @pytest.mark.parametrize("target", FORMS)
    def test_it_can_be_told_before_an_instance_is_made(self, target):
        class Method:
            process = staticmethod(target)

        class Called:
            if inspect.isfunction(target):
                __call__ = target

        class Inherited(target if inspect.isclass(target) else Method):
            pass

        expected = adapt(target).on_loop
        assert works_on_loop(target) == expected
        assert (
            works_on_loop(functools.partial(target) if inspect.isfunction(target) else target()) == expected
        )
        assert works_on_loop(Inherited) == expected
        assert inspect.isclass(target) or works_on_loop(Method) == works_on_loop(Called) == expected

    async def test_cancelling_the_task_goes_through(self):
        begun = asyncio.Event()

        async def waits(payload):
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(outcome_of(waits, [1]))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_cancelled_future_of_the_processors_own_fails_its_message_alone(self):
        async def awaits(payload):
            if payload == 1:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            return payload

        outcome = await outcome_of(awaits, [1, 2])
        assert outcome.payloads == [2]
        assert outcome.failures[0].error == "CancelledError"

    async def test_others_get_their_turn_though_it_never_waits(self):
        turns = 0

        async def busy(payload):
            until = perf_counter() + 0.006
            while perf_counter() < until:
                pass
            return payload

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.ensure_future(count())
        await outcome_of(busy, [1, 2, 3, 4])
        other.cancel()
        assert turns >= 3


class TestAdapting:
    def test_arguments_make_the_instance(self):
        class Scale:
            def __init__(self, factor=1.0):
                self.factor = factor

            def process(self, payload):
                return payload * self.factor

        adapted = adapt(Scale, {"factor": 3})
        assert adapted.run([2], message_of, 0.0).payloads == [6]
        assert adapted.name == "Scale"

    def test_arguments_go_to_every_call_of_a_function(self):
        def scale(payload, factor=1.0):
            return payload * factor

        assert adapt(scale, {"factor": 3}).run([2], message_of, 0.0).payloads == [6]

    @pytest.mark.parametrize("target", [Processor, int, 5, "P1", None, type("Empty", (), {})])
    def test_what_can_not_be_a_processor_is_refused(self, target):
        for refuse in (check, adapt):
            with pytest.raises(ProcessorError, match="can't be a processor"):
                refuse(target)

    def test_an_unknown_argument_is_named_with_what_is_taken(self):
        class Scale:
            def __init__(self, factor=1.0): ...

            def process(self, payload): ...

        for refuse in (check, adapt):
            with pytest.raises(ProcessorError, match=r"Scale\(facto=2\).*facto.*Scale\(factor=1.0\)"):
                refuse(Scale, {"facto": 2})

    def test_check_makes_no_instance(self):
        class Loud:
            def __init__(self):
                raise AssertionError

            def process(self, payload): ...

        check(Loud)
        with pytest.raises(ProcessorError, match=r"Loud\(\) can't be made: AssertionError"):
            adapt(Loud)

    @pytest.mark.parametrize("target", [functools.partial(pow, exp=2), abs, WithBatch()])
    def test_check_takes_what_adapt_takes(self, target):
        check(target)
        adapt(target)

    def test_built_in_functions_and_callable_instances_serve(self):
        class Callable:
            async def __call__(self, payload):
                return payload

        assert adapt(abs).run([-1], message_of, 0.0).payloads == [1]
        assert adapt(functools.partial(pow, exp=2)).run([3], message_of, 0.0).payloads == [9]
        assert adapt(Callable).on_loop
        assert adapt(Callable()).on_loop

    @pytest.mark.parametrize(
        ("attribute", "value"),
        [("retries", -1), ("retries", 1.5), ("concurrency", 0), ("batch_size", True), ("batch_timeout", "1"),
         ("partition_by", 3), ("batch_timeout", float("nan"))],
    )  # fmt: skip
    def test_a_setting_that_can_not_be_is_named_with_its_value(self, attribute, value):
        wrong = type("Wrong", (), {"process": lambda self, p: p, attribute: value})
        with pytest.raises(ProcessorError, match=f"Wrong.{attribute} is {value!r}"):
            adapt(wrong)

    def test_several_instances_can_not_be_made_of_one(self):
        class Many:
            concurrency = 2

            def process(self, payload): ...

        assert adapt(Many).concurrency == 2
        with pytest.raises(ProcessorError, match="Name the class"):
            adapt(Many())

    def test_hooks_of_the_base_are_none_and_own_ones_are_bound(self):
        class Bare(Processor):
            def process(self, payload): ...

        class Full(Bare):
            async def setup(self): ...

            def snapshot(self):
                return 7

            @every(2)
            def tick(self):
                return "tock"

        bare, full = adapt(Bare), adapt(Full)
        assert (bare.setup, bare.teardown, bare.snapshot, bare.restore, bare.timers) == (None,) * 4 + ((),)
        assert not bare.has_backward
        assert not bare.has_snapshot
        assert full.has_snapshot
        assert full.snapshot() == 7
        assert inspect.iscoroutinefunction(full.setup)
        [timer] = full.timers
        assert (timer.seconds, timer.name, timer.method()) == (2.0, "tick", "tock")

    async def test_backward_is_a_batch_call_of_its_own(self):
        class Both(Processor):
            def process(self, payload): ...

            async def backward(self, payload):
                return payload + 1

        adapted = adapt(Both)
        assert adapted.has_backward
        assert (adapted.on_loop, adapted.backward_on_loop) == (False, True)
        outcome = await adapted.run_backward([1, 2], message_of, perf_counter() + 9)
        assert outcome.payloads == [2, 3]
