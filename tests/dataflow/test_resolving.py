"""What names come to mean, and the errors when they mean nothing."""

import functools
import textwrap
import types
from typing import Any

import pytest

from pratipad_nb.dataflow import Dataflow, resolve
from pratipad_nb.notation import NotationError, Stage, Tree
from pratipad_nb.notation import Processor as Written


class Celsius:
    made = 0

    def __init__(self, digits: int = 1, *, unit: str = "C") -> None:
        type(self).made += 1

    def process(self, payload: Any) -> Any:
        return payload


class Vectorised:
    def process_batch(self, payloads: list[Any]) -> list[Any]:
        return payloads


class Both(Vectorised):
    def process(self, payload: Any) -> Any:
        return payload


class Neither:
    pass


class Threshold:
    def __init__(self, limit: float) -> None:
        self.limit = limit

    def process(self, payload: Any) -> Any:
        return payload


def double(payload: Any) -> Any:
    return payload * 2


async def scale(payload: Any, message: Any, *, factor: float = 1.0, offset: float = 0.0) -> Any:
    return payload * factor + offset


def nothing() -> None:
    pass


sensors = types.ModuleType("sensors")
sensors.Celsius = Celsius  # type: ignore[attr-defined]
NAMES: dict[str, Any] = {cls.__name__: cls for cls in (Celsius, Vectorised, Both, Neither, Threshold)} | {
    "double": double,
    "scale": scale,
    "nothing": nothing,
    "sensors": sensors,
    "limit": 5,
    "made": Threshold(3),
}


def error_of(text: str, namespace: dict[str, Any] = NAMES) -> NotationError:
    with pytest.raises(NotationError) as caught:
        resolve(text, namespace)
    return caught.value


def lines(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def test_a_step_knows_its_target_arguments_and_place() -> None:
    text = "Push <~> sensors.Celsius(digits=2) ~> {double, Vectorised} ~> Output"
    dataflow = resolve(text, NAMES)
    assert [(step.key, step.name, step.target, step.arguments) for step in dataflow.steps] == [
        ("Celsius", "sensors.Celsius", Celsius, {"digits": 2}),
        ("double", "double", double, {}),
        ("Vectorised", "Vectorised", Vectorised, {}),
    ]
    assert [stage.kind for stage in dataflow.stages] == ["single", "concurrent"]
    assert text[slice(*dataflow.steps[0].span)] == "sensors.Celsius(digits=2)"
    assert (dataflow.input, dataflow.hops, dataflow.notation) == ("Push", ("<~>", "~>", "~>"), text)


def test_resolving_makes_no_instance() -> None:
    before = Celsius.made
    resolve("Push ~> Celsius ~> Output", NAMES)
    assert Celsius.made == before


def test_a_key_is_the_last_name_with_a_number_from_the_second_one_on() -> None:
    dataflow = resolve("Push ~> [Celsius, sensors.Celsius] ~> double ~> Celsius ~> Output", NAMES)
    assert [step.key for step in dataflow.steps] == ["Celsius", "Celsius#2", "double", "Celsius#3"]


def test_a_tree_built_by_hand_is_taken_too() -> None:
    tree = Tree("Push", (Stage("single", (Written("double"),)),), ("~>", "~>"))
    assert resolve(tree, NAMES) == resolve("Push ~> double ~> Output", NAMES)
    with pytest.raises(NotationError, match="no processor is called `double`"):
        resolve(tree, {})


def test_instances_bound_methods_and_partials_are_taken() -> None:
    names = {"made": Threshold(3), "method": Threshold(3).process, "part": functools.partial(scale, factor=2)}
    assert isinstance(resolve("Push ~> [made, method, part] ~> Output", names), Dataflow)


def test_an_unknown_processor_is_named_with_its_nearest_name() -> None:
    assert str(error_of("Push ~> Celsuis ~> Output")) == lines("""
        no processor is called `Celsuis` (line 1, column 9)
            Push ~> Celsuis ~> Output
                    ^^^^^^^
          hint: did you mean `Celsius`?
    """)


def test_all_unknown_names_are_reported_at_once_each_once() -> None:
    assert str(
        error_of("Push ~> [celsius, dubble]\n ~> sensors.Celcius ~> celsius ~> snesors.Celsius ~> Output")
    ) == lines("""
        no processor is called `celsius` (line 1, column 10)
            Push ~> [celsius, dubble]
                     ^^^^^^^
          hint: did you mean `Celsius`?

        no processor is called `dubble` (line 1, column 19)
            Push ~> [celsius, dubble]
                              ^^^^^^
          hint: did you mean `double`?

        `sensors` has no `Celcius` (line 2, column 5)
             ~> sensors.Celcius ~> celsius ~> snesors.Celsius ~> Output
                ^^^^^^^^^^^^^^^
          hint: did you mean `sensors.Celsius`?

        nothing is called `snesors` (line 2, column 35)
             ~> sensors.Celcius ~> celsius ~> snesors.Celsius ~> Output
                                              ^^^^^^^^^^^^^^^
          hint: did you mean `sensors`?
    """)


def test_without_a_near_name_the_processors_that_there_are_are_listed() -> None:
    (problem,) = error_of("Push ~> Xyzzy ~> Output", {"Celsius": Celsius, "double": double, "n": 1}).problems
    assert problem.hint == "there are: Celsius"
    (problem,) = error_of("Push ~> Xyzzy ~> Output", {}).problems
    assert problem.hint == "define it, or import it, in a cell above and run that cell"


def test_a_ready_made_processor_that_was_not_imported_says_how_to() -> None:
    (problem,) = error_of("Push ~> Window(seconds=1) ~> Output", {}).problems
    assert problem.hint == "it is ready-made: run `from pratipad_nb import Window` in a cell above"


def test_builtins_are_no_processors() -> None:
    assert error_of("Push ~> print ~> Output").message == "no processor is called `print`"


def test_an_attribute_that_raises_is_reported_where_it_stands() -> None:
    class Lazy:
        @property
        def part(self) -> None:
            raise RuntimeError("no hardware here")

    error = error_of("Push ~> lazy.part ~> Output", {"lazy": Lazy()})
    assert error.message == "looking up `lazy.part` raised RuntimeError: no hardware here"


@pytest.mark.parametrize(
    ("processor", "marked", "message", "expected", "hint"),
    [
        ("limit", "limit", "`limit` can't be a processor: it is an int", "a class with `process` or", ""),
        ("sensors", "sensors", "`sensors` can't be a processor: it is a module", "a class",
         "such as `sensors.Celsius`"),
        ("Neither", "Neither", "class `Neither` has neither `process` nor `process_batch`", "a class",
         "add `def process"),
        ("Both", "Both", "class `Both` has both `process` and `process_batch`", "one of them", ""),
        ("nothing", "nothing", "`nothing` takes no payload", "a function such as `def nothing(payload)`", ""),
        ("Celsius(digit=2)", "digit=2", "`Celsius` takes no argument `digit`", "`digits` or `unit`",
         "did you mean `digits`?"),
        ("Threshold", "Threshold", "`Threshold` needs `limit`", "`Threshold(limit=…)`", ""),
        ("scale(factr=2)", "factr=2", "`scale` takes no argument `factr`", "`factor` or `offset`",
         "did you mean `factor`?"),
        ("scale(message=2)", "message=2", "`scale` takes no argument `message`", "`factor` or `offset`", ""),
        ("double(payload=2)", "payload=2", "`double` takes no argument `payload`", "no arguments", ""),
        ("made(limit=2)", "limit=2", "`made` is made already and takes no argument `limit`",
         "no arguments", "name the class"),
    ],
)  # fmt: skip
def test_what_can_be_no_processor_is_shown_where_it_stands(
    processor: str, marked: str, message: str, expected: str, hint: str
) -> None:
    text = f"Push ~> {processor} ~> Output"
    (problem,) = error_of(text).problems
    assert problem.message == message
    assert text[slice(*problem.span)] == marked
    assert problem.expected.startswith(expected)
    assert hint in problem.hint


def test_a_function_takes_arguments_for_its_further_parameters() -> None:
    (step,) = resolve("Push ~> scale(factor=2) ~> Output", NAMES).steps
    assert step.arguments == {"factor": 2}


def test_a_second_parameter_that_nothing_gives_is_named() -> None:
    def blend(payload: Any, ratio: float) -> Any:
        return payload * ratio

    assert error_of("Push ~> blend ~> Output", {"blend": blend}).message == "`blend` needs `ratio`"
    resolve("Push ~> blend(ratio=0.5) ~> Output", {"blend": blend})


def test_the_name_of_the_device_layer_is_no_processors_name() -> None:
    assert "the graph calls the device layer so" in str(
        error_of("Push ~> devices ~> Output", {"devices": double})
    )


def test_unknown_names_and_wrong_targets_are_reported_together_in_order() -> None:
    error = error_of("Push ~> limit ~> Xyzzy ~> Both ~> Output")
    assert [problem.span.start for problem in error.problems] == [8, 17, 26]
