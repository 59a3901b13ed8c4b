"""What a processor returned or yielded is what goes on, whatever the processor changes afterwards."""

from __future__ import annotations

import array
import asyncio
import copy
import inspect
import math
import threading
from collections import OrderedDict, deque
from itertools import chain

import numpy
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pratipad_nb.message import Message
from pratipad_nb.processors import adapt, copied, keeping, reply
from pratipad_nb.runtime.values.packing import sealed, unsealed

FORMS = ("plain", "coroutine", "generator", "async_generator", "batch", "async_batch", "lazy", "async_lazy")
WAYS = {"copied": copied, "sealed": sealed}


def message_of(row):
    return Message(payload=row, id=str(row), device="room1", time=1.0, received=2.0, flow="house")


async def results_of(target, payloads, way=copied):
    with keeping(way):
        made = adapt(target).run(payloads, message_of, math.inf)
        outcome = await made if inspect.isawaitable(made) else made
    assert not outcome.failures
    return [unsealed(payload) for payload in outcome.payloads]


def of_form(form, results, **settings):
    """Return a class of that form: `results(self, payload)` is a generator of a payload's results.

    A plain form returns the first of them, and goes on behind it with the next payload.
    """

    def rest(self):
        for _ in getattr(self, "before", ()):
            pass

    def first(self, payload):
        rest(self)
        self.before = results(self, payload)
        return next(self.before)

    def plain(self, payload):
        return first(self, payload)

    async def coroutine(self, payload):
        return first(self, payload)

    def generator(self, payload):
        yield from results(self, payload)

    async def async_generator(self, payload):
        for result in results(self, payload):
            yield result

    def batch(self, payloads):
        return [list(results(self, payload)) for payload in payloads]

    async def async_batch(self, payloads):
        return [list(results(self, payload)) for payload in payloads]

    def lazy(self, payloads):
        for payload in payloads:
            yield first(self, payload)

    async def async_lazy(self, payloads):
        for payload in payloads:
            yield first(self, payload)

    function = locals()[form]
    method = "process_batch" if "batch" in form or "lazy" in form else "process"
    return type("Of", (), {method: function, **settings})


# -- a model: programs that go on with what they returned ----------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.binary(max_size=3)
CHANGES = st.sampled_from(["append", "clear", "nest", "count", "pop"])
SHAPES = st.sampled_from(["itself", "in a list", "in a map", "twice", "in a tuple", "the reading"])
PROGRAM = st.lists(st.tuples(CHANGES, LEAVES, SHAPES), min_size=1, max_size=6)


def changed(table, change, leaf):
    match change:
        case "append":
            table["rows"].append(leaf)
        case "clear":
            table["rows"].clear()
        case "nest":
            table["rows"].append(table["inner"])
            table["inner"]["leaf"] = leaf
        case "count":
            table["inner"]["count"] = table["inner"].get("count", 0) + 1
        case "pop":
            table["rows"] and table["rows"].pop()


def shaped(table, shape, reading):
    match shape:
        case "itself":
            return table
        case "in a list":
            return {"rows": [table["rows"]]}
        case "in a map":
            return {"fresh": {"table": table}}
        case "twice":
            return {"a": table["inner"], "b": table["inner"]}
        case "in a tuple":
            return {"pair": (table["rows"], 1)}
        case "the reading":
            return reading


@pytest.mark.parametrize("form", FORMS)
def test_each_result_arrives_as_it_was_at_its_return_or_yield(form):
    @settings(max_examples=25, deadline=None)
    @given(programs=st.lists(PROGRAM, min_size=1, max_size=4), way=st.sampled_from(list(WAYS.values())))
    def check(programs, way):
        noted = [[] for _ in programs]

        def results(self, reading):
            at = reading["n"]
            for change, leaf, shape in programs[at]:
                changed(self.table, change, leaf)
                changed(reading, change, leaf)
                result = shaped(self.table, shape, reading)
                noted[at].append(copy.deepcopy(result))
                # A batch that returns a list returns all results at its end.
                yield copy.deepcopy(result) if "batch" in form else result
                changed(self.table, "clear", leaf)
                changed(reading, "count", leaf)

        target = of_form(form, results, table={"rows": [], "inner": {}})
        readings = [{"n": n, "rows": [n], "inner": {}} for n in range(len(programs))]
        found = loop.run(results_of(target, readings, way))
        expected = [each[0] for each in noted] if returns_one(form) else list(chain.from_iterable(noted))
        assert as_json(found) == as_json(expected)

    with asyncio.Runner() as loop:
        check()


def returns_one(form):
    return form in ("plain", "coroutine", "lazy", "async_lazy")


def as_json(value):
    """Return `value` with tuples as lists, which they become on their way."""
    if isinstance(value, dict):
        return {key: as_json(member) for key, member in value.items()}
    return list(map(as_json, value)) if isinstance(value, (list, tuple)) else value


# -- cases of the kind ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("buffer", "clear"),
    [
        (bytearray(b"abc"), lambda b: b.clear()),
        (deque([1, 2]), lambda b: b.clear()),
        ({1, 2}, lambda b: b.clear()),
        (OrderedDict(a=1), lambda b: b.clear()),
        (numpy.ones(2), lambda b: b.fill(0)),
        (memoryview(bytearray(b"abc")), lambda b: b.__setitem__(0, 0)),
        (array.array("d", [1.0]), lambda b: b.pop()),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_buffer_of_any_kind_may_be_used_again(way, buffer, clear):
    own = copy.deepcopy(buffer) if not isinstance(buffer, memoryview) else memoryview(bytearray(buffer))
    before = list(buffer)

    def process(_):
        yield {"buffer": own}
        clear(own)

    (found,) = await results_of(process, [0], WAYS[way])
    assert list(found["buffer"]) == before


async def test_an_array_that_shares_the_memory_of_another_is_a_result_of_its_own():
    class Smooth:
        def __init__(self):
            self.memory = numpy.zeros(3)

        def process(self, payload):
            self.memory[0] = payload
            return self.memory[:2]  # a fresh object, whose numbers are in the buffer

    assert [each[0] for each in await results_of(Smooth, [1, 2, 3])] == [1, 2, 3]


@pytest.mark.parametrize("form", FORMS)
async def test_a_try_after_a_failure_keeps_its_result_too(form):
    def results(self, payload):
        self.tries = getattr(self, "tries", 0) + 1
        if self.tries % 2:
            raise ValueError("now and then")
        self.table["n"] = payload
        yield dict(self.table) if "batch" in form else self.table

    assert await results_of(of_form(form, results, table={}, retries=3), [1, 2, 3]) == [
        {"n": 1},
        {"n": 2},
        {"n": 3},
    ]


@pytest.mark.parametrize("form", FORMS)
async def test_a_processor_with_a_time_limit_keeps_each_result_at_its_yield(form):
    def results(self, payload):
        self.table["n"] = payload
        yield dict(self.table) if "batch" in form else self.table
        self.table.clear()

    found = await results_of(of_form(form, results, table={}, timeout=60), [1, 2])
    assert found == [{"n": 1}, {"n": 2}]


class Reading(pydantic.BaseModel):
    n: int


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_typed_batch_that_yields_keeps_each_result_at_its_yield(is_async):
    class Lazy:
        buffer = bytearray()

        def process_batch(self, payloads: list[Reading]):
            for payload in payloads:
                self.buffer.append(payload.n)
                yield self.buffer

    class AsyncLazy:
        buffer = bytearray()

        async def process_batch(self, payloads: list[Reading]):
            for payload in payloads:
                self.buffer.append(payload.n)
                yield self.buffer

    found = await results_of(AsyncLazy if is_async else Lazy, [{"n": 1}, {"n": 2}])
    assert found == [b"\1", b"\1\2"]


async def test_several_results_of_a_batch_are_kept_one_by_one():
    class Twice:
        def process_batch(self, payloads):
            return [[payload, payload] for payload in payloads]

    one, other = await results_of(Twice, [{"n": 1}])
    assert one == other
    assert one is not other


async def test_a_member_of_braces_copies_no_result():
    class Lone:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    made = adapt(lambda _: Lone(), discard=True).run([1], message_of, math.inf)
    assert not made.failures


async def test_an_object_that_can_not_be_copied_goes_on_itself_among_copies():
    class Holder:
        def __init__(self):
            self.lock, self.rows = threading.Lock(), [1]

        def process(self, _):
            return {"lock": self.lock, "rows": self.rows}

    (found,) = await results_of(Holder, [0])
    assert isinstance(found["lock"], type(threading.Lock()))
    assert found["rows"] == [1]


async def test_a_result_that_holds_itself_goes_on_as_a_copy():
    class Ring:
        def __init__(self):
            self.ring = {"n": 1}
            self.ring["self"] = self.ring

        def process(self, _):
            return self.ring

    for way in WAYS.values():
        processor = Ring()
        (found,) = await results_of(processor, [0], way)
        processor.ring["n"] = 2
        assert found["self"]["self"]["n"] == 1


async def test_a_reply_is_what_it_was_when_reply_was_called():
    def process(payload, message):
        order = {"led": "on"}
        reply(order, to=message)
        order["led"] = "off"
        return payload

    outcome = adapt(process).run([1], message_of, math.inf)
    assert [payload for payload, _ in outcome.replies] == [{"led": "on"}]


async def test_a_failed_message_is_kept_as_it_was_when_its_call_raised():
    class Keeps:
        def __init__(self):
            self.last = {}

        def process(self, payload):
            self.last["late"] = True
            self.last = payload
            raise ValueError("no")

    outcome = adapt(Keeps).run([{"n": 1}, {"n": 2}], message_of, math.inf)
    assert [failure.payload for failure in outcome.failures] == [{"n": 1}, {"n": 2}]
