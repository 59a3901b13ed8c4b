"""The commands of the ``%dataflow`` line: each command's words, action and answer.

Owns the commands' table, their reading and their completion. Each command is one call of the flow's handle;
the line itself belongs to `pratipad_nb.notebook.magics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pratipad_nb import wording
from pratipad_nb.dataflow.names import nearest
from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.notebook.text import text_picture
from pratipad_nb.notebook.typed_orders import send_typed
from pratipad_nb.session import Flow, flows
from pratipad_nb.session.defaults import defaults, home_folder
from pratipad_nb.session.state_folder import flows_in
from pratipad_nb.transport.parties import flow_key

__all__ = ["COMMANDS", "USAGE", "Command", "addressed", "line_suggestions"]

Act = Callable[[Flow, list[str]], str]

_NONE = ("none", "off")
_ALL = "all"


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the ``%dataflow`` line.

    Attributes
    ----------
    takes
        The words behind the flow's name; words in brackets may be left out.
    help
        The command's description.
    act
        The function that carries the command out and returns the text to be printed.
    of_stored
        Whether the command may be given for a flow that has left nothing but stored messages.
    """

    takes: tuple[str, ...]
    help: str
    act: Act
    of_stored: bool = False

    @property
    def least(self) -> int:
        """How many words the command needs behind the flow's name."""
        return sum(not word.startswith("[") for word in self.takes)

    def usage(self, name: str) -> str:
        """Return how the command is written."""
        return " ".join([name, "NAME", *self.takes])


def _key(flow: Flow) -> str:
    return flow_key(flow.name, flow.tenant)


def _status(flow: Flow, _words: list[str]) -> str:
    return text_picture(flow)


def _pause(flow: Flow, words: list[str]) -> str:
    flow.pause(*words)
    what = f"{words[0]} of {_key(flow)}" if words else _key(flow)
    again = " ".join([_key(flow), *words])
    return f"{what} is paused; new messages wait. `%dataflow resume {again}` goes on."


def _resume(flow: Flow, words: list[str]) -> str:
    flow.resume(*words)
    return f"{words[0]} of {_key(flow)} goes on." if words else f"{_key(flow)} goes on."


def _rate(flow: Flow, words: list[str]) -> str:
    flow.rate = None if words[0].lower() in _NONE else _number(words[0], "a rate")
    most = (
        "as many messages as it has room for"
        if flow.rate is None
        else f"at most {flow.rate:g} messages a second"
    )
    return f"{_key(flow)} asks for {most}.{_if_pushed(flow)}"


def _demand(flow: Flow, words: list[str]) -> str:
    if len(words) > 1:
        flow.demand(*map(_whole, words))
    else:
        flow.max_demand = _whole(words[0])
    return (
        f"{_key(flow)} asks for up to {flow.max_demand} messages, and for more when {flow.min_demand} are "
        f"left.{_if_pushed(flow, 'Demand')}"
    )


def _if_pushed(flow: Flow, *inputs: str) -> str:
    inputs = inputs or ("Demand", "Pull")
    if flow.dataflow.input in inputs:
        return ""
    return f" That has no effect now: its input is {flow.dataflow.input}, not {' or '.join(inputs)}."


def _send(flow: Flow, words: list[str]) -> str:
    device, text = words
    return f"{_key(flow)}: {send_typed(flow, text, None if device == _ALL else device)}"


def _retry(flow: Flow, _words: list[str]) -> str:
    return f"{_key(flow)}: {wording.counted(flow.retry_dead_letters(), 'dead letter')} put through again."


def _stop(flow: Flow, _words: list[str]) -> str:
    flow.stop()
    return f"{_key(flow)} has stopped; the messages stored under its name stay."


def _forget(flow: Flow, _words: list[str]) -> str:
    if flow.forget():
        return f"{_key(flow)} has stopped, and all that was stored under its name is deleted."
    if flow.endpoint is None:  # this kernel has never seen the flow either
        near = " or ".join(map(repr, nearest(_key(flow), _names())))
        hint = f" Did you mean {near}?" if near else ""
        raise FlowError(f"no flow is named {_key(flow)!r}, and nothing is stored under that name.{hint}")
    return f"{_key(flow)}: nothing was stored under its name any more."


def _forget_state(flow: Flow, words: list[str]) -> str:
    forgotten = flow.forget_state(*words)
    if forgotten:
        return f"{_key(flow)}: the stored state of {', '.join(forgotten)} is deleted; messages stay."
    return f"{_key(flow)}: no state{f' of {words[0]}' if words else ''} was stored."


def _names() -> list[str]:
    """Return the flows that run in this kernel, or have ever run in the state folder."""
    return sorted({*flows(), *(flows_in(home_folder()) if defaults().server is None else ())})


COMMANDS: Mapping[str, Command] = {
    "status": Command((), "a picture in text, with all numbers", _status),
    "pause": Command(("[PROCESSOR]",), "begin nothing further; new messages wait", _pause),
    "resume": Command(("[PROCESSOR]",), "go on", _resume),
    "rate": Command(("N|none",), "Demand and Pull: at most N messages a second", _rate),
    "demand": Command(("MAX", "[MIN]"), "Demand: ask for up to MAX, and for more when MIN are left", _demand),
    "send": Command(("DEVICE|all", "JSON"), "send an order to a device", _send),
    "retry": Command((), "put dead letters through again", _retry),
    "stop": Command((), "finish the messages in flight and stop; stored messages stay", _stop),
    "forget": Command((), "stop, and delete all that is stored under the name", _forget, of_stored=True),
    "forget_state": Command(
        ("[PROCESSOR]",), "of a stopped flow: delete processors' state alone", _forget_state, of_stored=True
    ),
}

_WIDTH = max(len(command.usage(name)) for name, command in COMMANDS.items())
USAGE = "\n".join(
    [
        "%dataflow COMMAND",
        f"  {'list':{_WIDTH}}  this kernel's flows with their rates",
        *(f"  {command.usage(name):{_WIDTH}}  {command.help}" for name, command in COMMANDS.items()),
        "NAME may be left out if only one flow runs. `%%dataflow --help` tells how to start one.",
    ]
)


def addressed(
    command: str, rest: str, known: Callable[[str], Flow | None], running: Mapping[str, Flow]
) -> tuple[Flow, list[str]]:
    """Return the flow that a command is for, and the words behind the flow's name.

    Parameters
    ----------
    rest
        The text behind the command.
    known
        Returns the running or stopped flow of a name; the name is the flow's own, not that of a variable.
    running
        The running flows; a single running flow needs no name.

    Raises
    ------
    FlowError
        If there is no such flow, or several flows run and none is named.
    SettingsError
        If there are too few words, or too many.
    """
    takes = COMMANDS[command]
    name, _, behind = rest.strip().partition(" ")
    flow = known(name) if name else None
    if flow is None and name and takes.of_stored:
        flow = _stored_only(name)
    if flow is None:
        words = _words(takes, rest)
        if len(running) != 1 or not takes.least <= len(words) <= len(takes.takes):
            raise _no_such_flow(command, name, running)
        (flow,) = running.values()
        if "[PROCESSOR]" in takes.takes and words and words[0] not in flow:
            raise _no_such_flow(command, name, running, f", and {_key(flow)!r} has no processor of that key")
        return flow, words
    words = _words(takes, behind)
    if not takes.least <= len(words) <= len(takes.takes):
        raise SettingsError(f"%dataflow {command}: it is written `%dataflow {takes.usage(command)}`.")
    return flow, words


def _stored_only(name: str) -> Flow:
    """Return a handle of the messages that an earlier kernel has stored under `name`."""
    tenant, _, name = name.rpartition("/")
    same = {"same": lambda payload: payload}
    return Flow("Push ~> same ~> Output", name=name, namespace=same, tenant=tenant)


def _words(command: Command, text: str) -> list[str]:
    """Return the words in `text`; the last of several needed words takes all the rest, as JSON has spaces."""
    most = command.least - 1 if command.least > 1 else -1
    return text.split(maxsplit=most)


def _no_such_flow(command: str, name: str, running: Mapping[str, Flow], also: str = "") -> FlowError:
    there = f"Running: {', '.join(sorted(running))}." if running else "None runs in this kernel."
    if not name:
        return FlowError(f"`%dataflow {command}` which flow? {there}")
    near = nearest(name, list(running))
    hint = f"Did you mean {near[0]!r}?" if near else there
    return FlowError(f"no flow is named {name!r}{also}. {hint}")


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(
            f"{text!r} is no {what.removeprefix('a ')}; it is a number above 0, or none."
        ) from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"{text!r} is given; it must be a whole number of messages.") from None


def line_suggestions(before: str, running: Mapping[str, Flow]) -> tuple[str, list[str]]:
    """Return the unfinished word at the end of a ``%dataflow`` line, and its completions."""
    words = before.split()[1:]
    word = "" if before[-1:].isspace() or not words else words.pop()
    return word, [text for text in _next(words, running) if text.startswith(word) and text != word]


def _next(words: list[str], running: Mapping[str, Flow]) -> list[str]:
    if not words:
        return ["list", *COMMANDS]
    command, *rest = words
    if command not in COMMANDS:
        return []
    takes = COMMANDS[command].takes
    named = bool(rest) and rest[0] in running
    flow = running[rest[0]] if named else next(iter(running.values())) if len(running) == 1 else None
    found = [] if rest else sorted(running)
    at = len(rest) - named
    if flow is None or at >= len(takes):
        return found
    kind = takes[at]
    if kind == "[PROCESSOR]":
        return found + [step.key for step in flow.dataflow.steps]
    if kind == "DEVICE|all":
        return [*found, _ALL, *sorted(flow.stats().devices)]
    return [*found, "none"] if kind == "N|none" else found
