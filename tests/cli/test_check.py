from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pratipad_nb.cli.app import app

runner = CliRunner()


def check(*arguments: str, code: int = 0, stdin: str | None = None) -> Any:
    result = runner.invoke(app, ["check", *arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_a_right_notation_is_printed_in_its_canonical_form() -> None:
    assert (
        check("-", stdin="Push~>[ P1 ,P2]~>Output\n").stdout == "standard input: Push ~> [P1, P2] ~> Output\n"
    )


def test_a_wrong_one_is_shown_with_carets_on_stderr() -> None:
    result = check("-", stdin="Push ~> P1 -> Output", code=1)
    assert "Push ~> P1 -> Output\n               ^^" in result.stderr
    assert result.stdout == ""


def test_json_says_line_and_column() -> None:
    answer = json.loads(check("-", "--json", stdin="Push ~>\nP1 -> Output", code=1).stdout)
    assert not answer["ok"]
    assert (answer["problems"][0]["line"], answer["problems"][0]["column"]) == (2, 4)


def test_a_name_that_the_file_does_not_bind_is_named_with_its_nearest(tmp_path: Path) -> None:
    file = tmp_path / "house.py"
    file.write_text("def double(x): return x\nhouse = Flow('Push ~> doubel ~> Output')\n")
    result = check(str(file), code=1)
    assert "did you mean `double`?" in result.stderr
    assert "line 2" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "from rooms import *\nFlow('Push ~> anything ~> Output')",
        "Flow('Push ~> anything ~> Output', namespace=names)",
        "import statistics as s\nFlow('Push ~> s.fmean ~> Output')",
        "def made(step):\n    return Flow('Push ~> step ~> Output')",
    ],
    ids=["star import", "own namespace", "module", "parameter"],
)
def test_names_that_only_running_would_tell_are_no_mistakes(text: str, tmp_path: Path) -> None:
    file = tmp_path / "house.py"
    file.write_text(text)
    check(str(file))


def test_cells_of_a_notebook_are_checked_but_not_those_that_are_there_to_fail(tmp_path: Path) -> None:
    cells = [
        ("%load_ext pratipad_nb\n!ls\nclass P1: pass", []),
        ("%%dataflow house --rate 5\nPush ~> P1 ~> Output", []),
        ("%%dataflow house\nPush ~> Nobody ~> Output", ["raises-exception"]),
        ("%%dataflow house\nPush ~> P2 ~> Output", []),
    ]
    listed = [{"cell_type": "code", "metadata": {"tags": tags}, "source": text} for text, tags in cells]
    file = tmp_path / "house.ipynb"
    file.write_text(json.dumps({"cells": listed}))
    result = check(str(file), code=1)
    assert "code cell 2: Push ~> P1 ~> Output" in result.stdout
    assert "code cell 4" in result.stderr
    assert "Nobody" not in result.stderr


@pytest.mark.parametrize(
    ("name", "text"), [("x.ipynb", "[]"), ("x.ipynb", "{"), ("x.py", "x = ("), ("x.txt", None)]
)
def test_a_file_that_is_not_what_its_name_says_is_one_message(
    name: str, text: str | None, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    result = check(str(tmp_path / name), code=1)
    assert result.stderr.startswith("pratipad: ")
    assert "Traceback" not in result.stderr


@given(st.text())
def test_any_text_is_right_or_shown_as_wrong(text: str) -> None:
    result = runner.invoke(app, ["check", "-"], input=text.encode("utf-8", "replace"))
    assert result.exit_code in (0, 1)
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_the_files_behind_one_that_can_not_be_read_are_checked(tmp_path: Path) -> None:
    good = tmp_path / "good.txt"
    good.write_text("Push ~> P1 ~> Output")
    result = runner.invoke(app, ["check", str(tmp_path / "nosuch.txt"), str(good)])
    assert result.exit_code == 1
    assert "nosuch.txt can't be read" in result.stderr
    assert f"{good}: Push ~> P1 ~> Output" in result.stdout
