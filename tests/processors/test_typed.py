"""Processors whose payload is annotated with pydantic models."""

from __future__ import annotations

import datetime
import enum
import functools
import inspect
import math
import pathlib
import subprocess
import sys
from decimal import Decimal
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import AfterValidator, AnyUrl, BaseModel, ConfigDict, RootModel, SecretStr, field_serializer

from pratipad_nb.errors import ProcessorError
from pratipad_nb.processors import adapt
from pratipad_nb.transport.codec import encode_payload


async def outcome_of(target, payloads, *, discard=False):
    made = adapt(target, discard=discard).run(payloads, lambda row: None, math.inf)
    return await made if inspect.isawaitable(made) else made


class Reading(BaseModel):
    celsius: float
    extra: Any = None


class Alarm(BaseModel):
    level: int


def warm(reading):
    assert reading.celsius > 0
    return reading


Warm = Annotated[Reading, AfterValidator(warm)]


class NoModel:
    pass


class TestValidating:
    async def test_validates_the_payload_and_dumps_the_result(self):
        def warmer(reading: Reading) -> Reading:
            return reading.model_copy(update={"celsius": reading.celsius + 1})

        async def warmer_async(reading: Reading):
            return warmer(reading)

        def warmer_twice(reading: Reading, message):
            yield warmer(reading)

        async def warmer_each(reading: Reading):
            yield warmer(reading)

        for target in (warmer, warmer_async, warmer_twice, warmer_each):
            outcome = await outcome_of(target, [{"celsius": "20.5"}, {"celsius": "hot"}])
            assert outcome.payloads == [{"celsius": 21.5, "extra": None}]
            [failure] = outcome.failures
            assert failure.row == 1
            assert failure.payload == {"celsius": "hot"}
            assert failure.error.startswith("ValidationError: 1 validation error for Reading")

    async def test_validates_each_payload_of_a_batch(self):
        class Warmer:
            def process_batch(self, readings: list[Reading]):
                return [readings[0] if len(readings) == 1 else r for r in readings]

        class WarmerAsync(Warmer):
            async def process_batch(self, readings: list[Reading]):
                return super().process_batch(readings)

        class WarmerOfEither(Warmer):
            def process_batch(self, readings: list[Reading | Alarm]):
                return super().process_batch(readings)

        for target in (Warmer, WarmerAsync, WarmerOfEither):
            outcome = await outcome_of(target, [{"celsius": 1}, {"celsius": "hot"}, {"celsius": 3}])
            assert [p["celsius"] for p in outcome.payloads] == [1.0, 3.0]
            assert [f.row for f in outcome.failures] == [1]

    async def test_a_union_an_optional_one_and_a_list_are_what_they_say(self):
        def either(payload: Reading | Alarm):
            return type(payload).__name__

        def perhaps(payload: Reading | None):
            return "none" if payload is None else payload.celsius

        def several(payload: list[Reading]):
            return [reading.celsius for reading in payload]

        def by_room(payload: dict[str, Reading]):
            return {room: reading.celsius for room, reading in payload.items()}

        class Several:
            def process_batch(self, payloads: list[list[Reading]]):
                return [{"of": [reading.celsius for reading in payload]} for payload in payloads]

        reading = {"celsius": "1"}
        assert (await outcome_of(either, [reading, {"level": 2}])).payloads == ["Reading", "Alarm"]
        assert (await outcome_of(perhaps, [reading, None])).payloads == [1.0, "none"]
        assert (await outcome_of(several, [[reading, reading], []])).payloads == [[1.0, 1.0], []]
        assert (await outcome_of(by_room, [{"a": reading}])).payloads == [{"a": 1.0}]
        assert (await outcome_of(Several, [[reading], []])).payloads == [{"of": [1.0]}, {"of": []}]
        assert len((await outcome_of(several, [reading])).failures) == 1

    async def test_what_an_annotation_adds_to_a_model_holds(self):
        def takes(payload: Warm):
            return payload.celsius

        outcome = await outcome_of(takes, [{"celsius": 1}, {"celsius": -1}])
        assert outcome.payloads == [1.0]
        assert "Assertion failed" in outcome.failures[0].error

    async def test_a_function_with_arguments_validates_as_well(self):
        def scale(payload: Reading, factor):
            return payload.celsius * factor

        adapted = adapt(scale, {"factor": 2})
        assert adapted.run([{"celsius": "3"}], lambda row: None, math.inf).payloads == [6.0]
        assert (await outcome_of(functools.partial(scale, factor=3), [{"celsius": 1}])).payloads == [3.0]

    async def test_a_model_inside_a_function_is_found_where_the_processor_uses_it(self):
        class Inner(BaseModel):
            n: int

        def count(payload: Inner) -> NotImported:  # noqa: F821
            return Inner(n=payload.n + 1)

        assert (await outcome_of(count, [{"n": "1"}])).payloads == [{"n": 2}]

    async def test_an_annotation_that_can_not_be_resolved_is_passed_over(self):
        def unknown(payload: Nowhere):  # noqa: F821
            return payload

        assert (await outcome_of(unknown, [1])).payloads == [1]

    def test_one_that_pydantic_can_not_validate_by_is_refused_with_its_reason(self):
        def takes(payload: Reading | NoModel):
            return payload

        with pytest.raises(
            ProcessorError, match=r"takes can't be given payloads of type .*Reading \| .*NoModel"
        ) as caught:
            adapt(takes)
        assert "PydanticSchemaGenerationError" in str(caught.value)

    def test_pydantic_is_not_imported_for_a_processor_without_models(self):
        code = (
            "import sys; from pratipad_nb.processors import adapt\n"
            "def process(payload: dict): return payload\n"
            "adapt(process).run([{}], None, 1e9)\n"
            "sys.exit('pydantic' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestCopies:
    @pytest.mark.parametrize("kind", ["plain", "generator", "coroutine", "batch"])
    async def test_what_a_member_of_braces_does_to_a_model_is_seen_by_nobody_else(self, kind):
        def mark(reading):
            reading.extra["seen"] = True
            return reading

        def plain(payload: Reading):
            mark(payload)

        def generator(payload: Reading):
            yield mark(payload)

        async def coroutine(payload: Reading):
            mark(payload)

        class Batch:
            def process_batch(self, payloads: list[Reading]):
                return list(map(mark, payloads))

        target = {"plain": plain, "generator": generator, "coroutine": coroutine, "batch": Batch}[kind]
        payload = {"celsius": 1.0, "extra": {}}
        outcome = await outcome_of(target, [payload], discard=True)
        assert outcome.failures == []
        assert payload == {"celsius": 1.0, "extra": {}}

    async def test_a_retry_starts_from_the_payload_as_it_came_in(self):
        def spoil(payload: Reading):
            seen.append(dict(payload.extra))
            payload.extra["n"] = 1
            raise ValueError

        seen, spoil.retries = [], 1
        outcome = await outcome_of(spoil, [{"celsius": 1.0, "extra": {}}])
        assert seen == [{}, {}]
        assert outcome.failures[0].payload == {"celsius": 1.0, "extra": {}}


class Colour(enum.Enum):
    RED = "red"


class Station(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    url: AnyUrl = AnyUrl("http://a/")
    colour: Colour = Colour.RED
    path: pathlib.Path = pathlib.Path("a/b")
    when: datetime.datetime = datetime.datetime(2024, 1, 2)
    data: bytes
    price: Decimal = Decimal("1.50")
    links: dict[Colour, list[AnyUrl]] = {}
    tags: set[int] = {1}


class TestDumping:
    @pytest.mark.parametrize("data", [b"text", b"\xff"])
    async def test_what_can_not_travel_is_what_it_is_in_json_and_dates_and_bytes_stay(self, data):
        def station(payload: Reading):
            return Station(links={"red": ["http://b/"]}, data=data)

        [made] = (await outcome_of(station, [{"celsius": 1}])).payloads
        assert made == {
            "url": "http://a/",
            "colour": "red",
            "path": "a/b",
            "when": datetime.datetime(2024, 1, 2),
            "data": data,
            "price": Decimal("1.50"),
            "links": {"red": ["http://b/"]},
            "tags": {1},
        }
        assert type(made["colour"]) is type(next(iter(made["links"]))) is str
        assert encode_payload(made)

    async def test_a_serialiser_for_json_alone_is_used(self):
        class Login(BaseModel):
            key: SecretStr

            @field_serializer("key", when_used="json")
            def shown(self, value):
                return value.get_secret_value()

        def log_in(payload: Reading):
            return Login(key="k")

        assert (await outcome_of(log_in, [{"celsius": 1}])).payloads == [{"key": "k"}]

    async def test_what_json_does_not_know_stays_for_the_next_processor(self):
        class Picture(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            pixels: np.ndarray
            of: Any = None

        def picture(payload: Reading):
            return Picture(pixels=np.array([1, 2]), of=object() if payload.celsius else None)

        outcome = await outcome_of(picture, [{"celsius": 0}, {"celsius": 1}])
        assert [type(made["pixels"]) for made in outcome.payloads] == [np.ndarray, np.ndarray]
        assert encode_payload(outcome.payloads[0])

    async def test_models_in_lists_and_dictionaries_are_dumped(self):
        def nested(payload: Reading):
            return {"all": [payload, (payload, 1)], "one": payload}

        class Batch:
            def process_batch(self, payloads: list[Reading]):
                return {n: [p, {"one": p}] for n, p in enumerate(payloads)}.values()

        reading = {"celsius": 1.0, "extra": None}
        assert (await outcome_of(nested, [reading])).payloads == [
            {"all": [reading, (reading, 1)], "one": reading}
        ]
        assert (await outcome_of(Batch, [reading])).payloads == [reading, {"one": reading}]

    async def test_a_model_that_is_a_list_is_dumped_as_one(self):
        class Urls(RootModel[list[AnyUrl]]):
            pass

        def urls(payload: Reading):
            return Urls(["http://a/"])

        assert (await outcome_of(urls, [{"celsius": 1}])).payloads == [["http://a/"]]
