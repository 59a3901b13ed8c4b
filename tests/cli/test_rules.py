from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pratipad_nb import Message
from pratipad_nb.cli import cloud
from pratipad_nb.cli.programs import ProgramError
from pratipad_nb.cli.rules import Rule
from pratipad_nb.errors import LogFull, NotInvited, PayloadError, PratipadError, TransportError

COOLING = """
def rule(message):
    if message.payload["temperature_c"] > 30:
        return {"fan": "on"}
"""


def message(number: int, payload: object) -> Message:
    return Message(payload=payload, id=f"m{number}", device="room1", time=0.0, received=0.0, flow="house")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rule.py"


def test_a_message_is_answered_by_what_the_rule_returns(file: Path) -> None:
    file.write_text(COOLING)
    warm, cold = message(1, {"temperature_c": 31}), message(2, {"temperature_c": 20})
    assert list(Rule(file).orders([warm, cold])) == [(warm, {"fan": "on"})]


def test_a_message_that_the_rule_fails_on_is_told_and_the_others_are_answered(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(COOLING)
    warm = message(2, {"temperature_c": 31})
    assert list(Rule(file).orders([message(1, {}), warm])) == [(warm, {"fan": "on"})]
    told = capsys.readouterr().err
    assert f"{file}, line 3: KeyError: 'temperature_c'; message m1 of room1 is not answered" in told


@pytest.mark.parametrize(
    "error", ["SystemExit(3)", "GeneratorExit", "StopIteration", "asyncio.CancelledError"]
)
def test_a_rule_that_would_end_the_program_fails_on_its_message_alone(
    file: Path, capsys: pytest.CaptureFixture[str], error: str
) -> None:
    lines = (
        "import asyncio",
        "def rule(message):",
        "  if message.payload == 1:",
        f"    raise {error}",
        "  return 'on'",
    )
    file.write_text("\n".join(lines))
    later = message(2, 2)
    assert list(Rule(file).orders([message(1, 1), later])) == [(later, "on")]
    kind = error.removeprefix("asyncio.").partition("(")[0]
    assert f"line 4: {kind}" in capsys.readouterr().err


def test_ctrl_c_in_a_rule_ends_the_program(file: Path) -> None:
    file.write_text("def rule(message):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        list(Rule(file).orders([message(1, 1)]))


def test_a_file_without_a_rule_is_told_what_to_write(file: Path) -> None:
    file.write_text("rule = 3\n")
    with pytest.raises(ProgramError, match=r"defines no rule.*def rule\(message\)"):
        Rule(file)


class Sender:
    """A cloud client whose orders fail with `errors` first."""

    def __init__(self, *errors: PratipadError) -> None:
        self.errors = list(errors)
        self.sent: list[tuple[Any, str]] = []

    async def send(self, order: Any, device: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append((order, device))


async def test_an_order_that_is_none_is_told_and_its_message_is_not_answered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client: Any = Sender(PayloadError("a set can't travel."))
    await cloud.answer(client, message(7, {}), {1, 2})
    told = capsys.readouterr().err
    assert "a set can't travel. Message m7 of room1 is not answered" in told
    assert client.sent == []


async def test_an_order_waits_while_it_can_only_not_be_sent_now(capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = Sender(LogFull("full"), TransportError("broken"), LogFull("full"))
    await cloud.answer(client, message(1, {}), "on", pauses=(0.001, 0.001))
    assert client.sent == [("on", "room1")]
    assert capsys.readouterr().err.count("an order to room1 waits: full") == 1


async def test_a_reader_that_may_send_nothing_ends_with_the_reason() -> None:
    client: Any = Sender(NotInvited("no"))
    with pytest.raises(NotInvited):
        await cloud.answer(client, message(1, {}), "on")
