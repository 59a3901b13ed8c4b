"""The pages speak the truth: links lead somewhere, commands and notations parse, processes are told alike."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from pratipad_nb import parse
from pratipad_nb.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "certs", ROOT / "notebooks", ROOT / "extensions")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
    if "node_modules" not in path.parts
)
#: Of the copy of click that typer brings or uses, which it doesn't name otherwise.
UsageError: Any = typer.BadParameter.__base__

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_INLINE = re.compile(r"`(pratipad [^`]+)`")
#: The prompts that pages show before a command.
_PROMPT = re.compile(r"^(?:\w*\$ )?(?=pratipad )")
_FLOW = re.compile(r"\b(?:Flow|preview)\(\s*\"([^\"]+)\"")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path) -> list[str]:
    """Return what stands between fences."""
    return [text for _, text in _FENCE.findall(page.read_text())]


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each command line between fences."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(_PROMPT.sub("", line), comments=True) if _PROMPT.match(line) else []
            if words[:1] == ["pratipad"]:
                yield words[1:]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that the first words name, and the others, its arguments."""
    command: Any = get_command(app)
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def parse_command(words: list[str]) -> None:
    """Do with `words` what the command line does, short of running it.

    Raises
    ------
    UsageError
        If it doesn't take them.
    """
    command, arguments = command_of(words)
    command.make_context(command.name, arguments)


def anchors(page: Path) -> set[str]:
    """Return the anchors that headings become."""
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@each_page
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    for link in (one or other for one, other in _LINK.findall(prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: there is no such heading"


@each_page
def test_every_command_between_fences_is_one_that_the_command_line_takes(page: Path) -> None:
    for arguments in commands(page):
        try:
            parse_command(arguments)
        except UsageError as error:
            pytest.fail(f"pratipad {shlex.join(arguments)}: {error.format_message()}")


@each_page
def test_every_option_of_a_command_in_the_text_exists(page: Path) -> None:
    for line in _INLINE.findall(prose(page)):
        command, words = command_of(line.split()[1:])
        options = {option for parameter in command.params for option in (*parameter.opts, "--help")}
        assert {word for word in words if word.startswith("--")} <= options, line


@each_page
def test_every_notation_in_a_cell_or_a_flow_parses(page: Path) -> None:
    for block in blocks(page):
        head, _, notation = block.partition("\n")
        if head.startswith("%%dataflow"):
            assert str(parse(notation))
        for notation in _FLOW.findall(block):
            assert str(parse(notation))


def test_the_five_commands_of_the_house_are_the_same_wherever_they_are_told() -> None:
    cells = json.loads((ROOT / "notebooks/04_house.ipynb").read_text())["cells"]
    text = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    told = [text, (ROOT / "README.md").read_text(), (ROOT / "docs/deployment.md").read_text()]
    shown = [
        [shlex.split(line, comments=True) for line in block.splitlines()]
        for page in told
        for _, block in _FENCE.findall(page)
        if block.startswith("pratipad server") and "room2" in block
    ]
    assert len(shown) == len(told)
    assert all(len(commands) == 5 for commands in shown)
    assert all(one == other for one, other in pairwise(shown))


def test_an_option_that_there_is_not_is_found() -> None:
    with pytest.raises(UsageError):
        parse_command(["server", "--plaintext"])
