"""The line of a ``%%dataflow`` cell: a name and options, parsed and checked.

Owns the options' spelling and the help text. Their effects belong to `pratipad_nb.notebook.magics`.
"""

from __future__ import annotations

import argparse
import builtins
import keyword
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from pratipad_nb.errors import SettingsError
from pratipad_nb.settings import Keep, checked_delivery, valid_name

__all__ = ["OPTION_NAMES", "CellOptions", "HelpAsked", "cell_options", "named_in"]

_EXAMPLES = """\
examples:
  %%dataflow house
  Push <~> Celsius <~> Output

  %%dataflow meter --delivery fast
  Push ~> [Parse, Scale(factor=1.8)] ~> {Archive, Alarm} ~> Output

  %%dataflow plant --rate 50 --keep 10min
  Demand <~> Precipitation <~> Output

Afterwards NAME is the running flow: NAME.take(3), NAME.stats(), NAME.stop().
`%dataflow list` shows all flows of this kernel.
"""

_UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


@dataclass(frozen=True, slots=True)
class CellOptions:
    """The name and options in the line of a ``%%dataflow`` cell; None for an option that is not given."""

    name: str
    delivery: str | None = None
    server: str | None = None
    certs: str | None = None
    rate: float | None = None
    max_demand: int | None = None
    min_demand: int | None = None
    keep: Keep | None = None
    swap: bool = True


class HelpAsked(Exception):
    """The line asks for help; the argument is the help text."""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises exceptions: a notebook's kernel mustn't exit for a misspelt option."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(
            f"%%dataflow: {message}.\n{self.format_usage().rstrip()}\n`%%dataflow --help` says more."
        )

    def print_help(self, file: Any = None) -> None:  # noqa: ARG002 - the signature is argparse's
        raise HelpAsked(self.format_help())


def cell_options(line: str) -> CellOptions:
    """Return the name and options in `line`: ``NAME [options]``.

    Raises
    ------
    HelpAsked
        If `line` contains ``--help`` or is empty.
    SettingsError
        If the name or an option has a value that is not allowed.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        wrong = (
            "a quotation mark is opened in it and not closed. Close the quotation mark, or leave it out: a "
            "name needs none."
            if "quotation" in str(error)
            else "it ends in a backslash. Leave that out."
        )
        raise SettingsError(f"the line `%%dataflow {line.strip()}` can't be read: {wrong}") from None
    parser = _parser()
    if not words:
        raise HelpAsked(parser.format_help())
    found = vars(parser.parse_args(words))
    valid_name(found["name"], "flow")
    if not found["name"].isidentifier():
        name = found["name"].replace("-", "_")
        raise SettingsError(
            f"{found['name']!r} can't be the name of a flow in a notebook, where it is bound to a variable. "
            f"Use {name!r}."
        )
    _check_variable(found["name"])
    if found["delivery"] is not None:
        checked_delivery(found["delivery"])
    return CellOptions(**found)


def _check_variable(name: str) -> None:
    """Refuse a name of Python's own: the flow would hide a function, or no cell could name the flow."""
    what = (
        "a word of Python"
        if keyword.iskeyword(name)
        else "a name of Python's own"
        if hasattr(builtins, name)
        else ""
    )
    if what:
        raise SettingsError(
            f"{name!r} can't be the name of a flow in a notebook, where it is bound to a variable: it is "
            f"{what}. Use {name + '_flow'!r}."
        )


def named_in(line: str) -> str:
    """Return the flow's name in `line`, even if the rest of `line` is wrong; empty if there is no name."""
    words = iter(line.split())
    for word in words:
        if not word.startswith("-"):
            return word
        if word not in _FLAGS and "=" not in word:
            next(words, None)  # the option's value
    return ""


def _parser() -> _Parser:
    parser = _Parser(
        prog="%%dataflow",
        usage="%%%%dataflow NAME [options], and below it the notation: Push <~> P1 <~> Output",
        description="Start a dataflow, bind it to NAME and show it live. "
        "Run the cell again to change what runs; devices stay connected.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("name", metavar="NAME", help="the flow's name, and the variable that it is bound to")
    option("--delivery", metavar="durable|fast",
           help="durable (default): nothing lost or doubled; fast: at most once, lower latency")  # fmt: skip
    option(
        "--server",
        metavar="URL",
        help="an existing NATS server, as tls://host:4222 (default: an embedded one)",
    )
    option("--certs", metavar="DIR", help="the edge's certificate folder for --server")
    option("--rate", type=_positive(float), metavar="N",
           help="Demand and Pull: at most N messages a second")  # fmt: skip
    option("--max-demand", type=_positive(int), metavar="N",
           help="Demand: at most N messages asked for and not yet processed")  # fmt: skip
    option("--min-demand", type=_positive(int), metavar="N",
           help="Demand: ask for more when as few as N are left")  # fmt: skip
    option("--keep", type=_keep, metavar="1h|10min", help="how long results are kept at Output (default: 1h)")
    option("--no-swap", dest="swap", action="store_false",
           help="don't swap a processor in when the cell that defines it runs again")  # fmt: skip
    return parser


#: Options without a value.
_FLAGS = ("--help", "-h", "--no-swap")
#: The options that completion offers after the name.
OPTION_NAMES = (
    "--certs", "--delivery", "--help", "--keep", "--max-demand", "--min-demand", "--no-swap", "--rate",
    "--server",
)  # fmt: skip


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = -1
        if not 0 < value < float("inf"):
            what = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is given; it must be a {what} above 0")
        return value

    return read


def _keep(text: str) -> Keep:
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None or (match[2] or "s") not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is given; it must be a time such as 90s, 10min, 1h or 2d")
    try:
        return Keep(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    except SettingsError as error:  # argparse would swallow it, for it is a ValueError
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
