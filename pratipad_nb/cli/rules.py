"""A user's rule: which message is answered by which order.

Owns how the file that defines it is loaded, and what becomes of a message that it fails on. Sending is
`pratipad_nb.cloud`'s, when to send `pratipad_nb.cli.cloud`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pratipad_nb.cli.exits import said
from pratipad_nb.cli.programs import ProgramError, execute, told

if TYPE_CHECKING:
    from pratipad_nb.message import Message

__all__ = ["Rule"]

#: What the file is called as a module: a part below ``if __name__ == "__main__"`` is not run.
_MODULE = "__pratipad_rule__"
#: What the function is called.
_NAME = "rule"


class Rule:
    """The function ``rule(message)`` of a file.

    Parameters
    ----------
    file
        A Python file that defines it. What it returns is the order to the message's device; None: no order.

    Raises
    ------
    ProgramError
        If the file can't be read, fails, or defines no such function.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        rule = execute(file, name=_MODULE).get(_NAME)
        if not callable(rule):
            raise ProgramError(
                f"{file} defines no rule. Write a function that returns an order, or None: def rule(message): …"
            )
        self._rule: Callable[[Message], Any] = rule

    def orders(self, messages: Iterable[Message]) -> Iterator[tuple[Message, Any]]:
        """Give each of `messages` that is to be answered, and the order that answers it.

        One that the rule fails on is told and not answered: the next start would fail on it again, and for ever.
        """
        for message in messages:
            try:
                order = self._rule(message)
            except KeyboardInterrupt:  # Ctrl-C comes in this thread, wherever it is
                raise
            except BaseException as error:  # noqa: BLE001 - the user's code, which may call sys.exit()
                what = told(error, str(self._file), lambda name: name == str(self._file))
                said(f"{what}; message {message.id} of {message.device} is not answered.")
                continue
            if order is not None:
                yield message, order
