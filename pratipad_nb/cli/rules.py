"""A user's rule: which message is answered by which order.

Owns loading the file that defines the rule, and the handling of a message on which the rule fails. Sending
belongs to `pratipad_nb.cloud`, the time of sending to `pratipad_nb.cli.cloud`.
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

#: The file's name as a module: a part below ``if __name__ == "__main__"`` is not run.
_MODULE = "__pratipad_rule__"
#: The function's name.
_NAME = "rule"


class Rule:
    """The function ``rule(message)`` of a file.

    Parameters
    ----------
    file
        A Python file that defines the function. Its return value is the order to the message's device; None:
        no order.

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
                f"{file} defines no rule. Write a function that returns an order, or None: "
                "def rule(message): …"
            )
        self._rule: Callable[[Message], Any] = rule

    def orders(self, messages: Iterable[Message]) -> Iterator[tuple[Message, Any]]:
        """Yield each of `messages` that is to be answered, and the order that answers it.

        A message on which the rule fails is reported and not answered: the next start would fail on it again,
        and for ever.
        """
        for message in messages:
            try:
                order = self._rule(message)
            except KeyboardInterrupt:  # Ctrl-C is raised in this thread, also inside the rule
                raise
            except BaseException as error:  # noqa: BLE001 - the user's code, which may call sys.exit()
                what = told(error, str(self._file), lambda name: name == str(self._file))
                said(f"{what}; message {message.id} of {message.device} is not answered.")
                continue
            if order is not None:
                yield message, order
