from __future__ import annotations

from pathlib import Path

import pytest

from pratipad_nb import Message
from pratipad_nb.cli.programs import ProgramError
from pratipad_nb.cli.rules import Rule

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
    assert list(Rule(file).orders([warm, cold])) == [("room1", {"fan": "on"})]


def test_a_message_that_the_rule_fails_on_is_told_and_the_others_are_answered(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(COOLING)
    orders = Rule(file).orders([message(1, {}), message(2, {"temperature_c": 31})])
    assert list(orders) == [("room1", {"fan": "on"})]
    told = capsys.readouterr().err
    assert f"{file}, line 3: KeyError: 'temperature_c'; message m1 of room1 is not answered" in told


def test_a_file_without_a_rule_is_told_what_to_write(file: Path) -> None:
    file.write_text("rule = 3\n")
    with pytest.raises(ProgramError, match=r"defines no rule.*def rule\(message\)"):
        Rule(file)
