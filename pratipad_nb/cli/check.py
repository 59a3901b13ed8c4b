"""``pratipad check``: the notations in files, checked without running anything.

Owns the output. Finding and checking notations belongs to `pratipad_nb.cli.notations`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pratipad_nb.cli.exits import FAILED, reported, said
from pratipad_nb.cli.options import Json
from pratipad_nb.errors import PratipadError

if TYPE_CHECKING:
    from pratipad_nb.cli.notations import Found

__all__ = ["check"]


@reported
def check(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|-...", help="Notebooks, Python files, texts; - is standard input."),
    ],
    as_json: Json = False,
) -> None:
    """Check notations, and that their names are bound somewhere in their file; nothing is run.

    Of a notebook the %%dataflow cells and Flow("…") calls are checked, of a .py file the calls, of another
    file the whole text. The exit code is 1 if a notation is wrong, which is shown with carets, or a file
    can't be read.

    \b
    Examples:
      pratipad check notebooks/*.ipynb
      echo 'Push ~> P1 ~> Output' | pratipad check -
    """
    from pratipad_nb.cli.notations import Found, notations_in

    wrong = False
    for path in files:
        try:
            found = [Found("standard input", sys.stdin.read())] if str(path) == "-" else notations_in(path)
        except PratipadError as error:
            said(str(error))
            wrong = True
            continue
        for each in found:
            answer = _answer(each)
            wrong |= not answer["ok"]
            _print(answer, as_json)
        if not found and not as_json:
            typer.echo(f"{path}: no notation in it")
    if wrong:
        raise typer.Exit(FAILED)


def _answer(found: Found) -> dict[str, Any]:
    from pratipad_nb.cli.notations import checked
    from pratipad_nb.notation import NotationError
    from pratipad_nb.notation.errors import located

    try:
        return {"where": found.where, "ok": True, "notation": str(checked(found)), "problems": []}
    except NotationError as error:
        problems = [
            {
                "message": problem.message,
                "line": located(error.text, problem.span.start)[0],
                "column": located(error.text, problem.span.start)[1],
                "expected": problem.expected,
                "hint": problem.hint,
            }
            for problem in error.problems
        ]
        return {
            "where": found.where,
            "ok": False,
            "notation": found.text,
            "problems": problems,
            "text": str(error),
        }


def _print(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
    elif answer["ok"]:
        typer.echo(f"{answer['where']}: {answer['notation']}")
    else:
        typer.echo(f"{answer['where']}: {answer['text']}", err=True)
