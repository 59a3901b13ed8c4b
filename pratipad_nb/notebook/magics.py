"""The magics: ``%%dataflow`` starts or changes a flow and shows it; ``%dataflow`` lists, stops and forgets flows.

Owns what the two lines do. Options are read by `pratipad_nb.notebook.options`, pictures kept by
`pratipad_nb.notebook.shows`, and everything that runs is `pratipad_nb.session`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from pratipad_nb.errors import FlowError, PratipadError
from pratipad_nb.notebook.faults import without_frames
from pratipad_nb.notebook.options import CellOptions, HelpAsked, cell_options
from pratipad_nb.notebook.shows import Shows
from pratipad_nb.notebook.text import listing, text_picture
from pratipad_nb.session import Flow, flows
from pratipad_nb.settings import valid_name

__all__ = ["DataflowMagics"]

Result = TypeVar("Result")

#: Options that a running flow can't change: they name where it stores and how it delivers.
_FIXED = ("delivery", "server", "certs", "max_demand", "min_demand", "keep")


@magics_class
class DataflowMagics(Magics):
    """``%%dataflow`` and ``%dataflow``."""

    shell: Any

    def __init__(self, shell: Any, shows: Shows) -> None:
        super().__init__(shell)
        self._shows = shows
        self._started: dict[str, tuple[Flow, CellOptions]] = {}

    # -- the cell -----------------------------------------------------------------------------------------------

    @no_var_expand
    @cell_magic("dataflow")  # type: ignore[arg-type] # IPython's decorators are typed for functions, not methods
    def dataflow_cell(self, line: str, cell: str) -> None:
        """Start a dataflow, or change the running one of that name, bind it and show it live."""
        try:
            options = cell_options(line)
        except HelpAsked as text:
            print(text)  # noqa: T201 - the answer to --help
            return
        except PratipadError as error:
            raise without_frames(error) from None
        self._guarded(lambda: self._run_cell(options, cell))

    def _run_cell(self, options: CellOptions, notation: str) -> None:
        name, namespace = options.name, self.shell.user_ns
        bound = namespace.get(name)
        if bound is not None and not isinstance(bound, Flow):
            raise FlowError(
                f"the variable {name!r} is {_described(bound)}, which the flow of that name would overwrite. "
                f"Give the flow another name, or `del {name}` first."
            )
        flow = flows().get(name)
        if flow is None:
            flow = self._start(options, notation)
        else:
            self._change(flow, options, notation)
        namespace[name] = flow
        self._started[name] = flow, options
        self._shows.show(flow)

    def _start(self, options: CellOptions, notation: str) -> Flow:
        demands: dict[str, Any] = {"max_demand": options.max_demand, "min_demand": options.min_demand}
        return Flow(
            notation,
            name=options.name,
            namespace=self.shell.user_ns,
            delivery=options.delivery,
            server=options.server,
            certs=options.certs,
            rate=options.rate,
            keep=options.keep,
            **{key: value for key, value in demands.items() if value is not None},
        ).start()

    def _change(self, flow: Flow, options: CellOptions, notation: str) -> None:
        started, before = self._started.get(flow.name, (None, None))
        if started is flow and before is not None:
            changed = [key for key in _FIXED if getattr(before, key) != getattr(options, key)]
            if changed:
                named = ", ".join("--" + key.replace("_", "-") for key in changed)
                raise FlowError(
                    f"{named} can't change while flow {flow.name!r} runs. `%dataflow stop {flow.name}`, then run this "
                    "cell again: what is stored stays."
                )
        if options.rate != flow.rate:
            flow.rate = options.rate
        receipt = flow.update(notation, self.shell.user_ns)
        if receipt is not None:
            print(f"{flow.name}: {receipt}")  # noqa: T201 - the receipt belongs into the cell's output

    def swap_redefined(self) -> None:
        """Swap into running flows what the cell that has just run defined anew, and say so.

        Not where ``--no-swap`` was given, and not in a flow that wasn't started by a cell. If the new processor can't
        be set up, the old one stays and the error is shown.
        """
        for flow, options in list(self._started.values()):
            if not options.swap or flows().get(flow.name) is not flow or flow.state != "running":
                continue
            try:
                receipt = flow.update(flow.notation, self.shell.user_ns)
            except PratipadError as error:
                self.shell.showtraceback((type(error), without_frames(error), None))
                continue
            if receipt is not None:
                print(f"{flow.name}: {receipt}")  # noqa: T201 - the receipt belongs into the cell's output

    # -- the line -----------------------------------------------------------------------------------------------

    @no_var_expand
    @line_magic("dataflow")  # type: ignore[arg-type]
    def dataflow_line(self, line: str) -> None:
        """List this kernel's flows, or act on one: ``%dataflow list | status NAME | pause | resume | stop | forget``."""
        try:
            words = shlex.split(line) or ["list"]
        except ValueError as error:
            raise UsageError(f"%dataflow: {line!r} can't be read: {error}.") from None
        if words[0] in ("--help", "-h", "help"):
            print(_USAGE)  # noqa: T201 - the answer
            return
        command, *arguments = words
        if command == "list" and not arguments:
            print(listing(flows()))  # noqa: T201 - the answer
            return
        act = _COMMANDS.get(command)
        if act is None or len(arguments) > 1 or command == "list":
            raise UsageError(_USAGE)
        self._guarded(lambda: self._act(command, act, *arguments))

    def _act(self, command: str, act: Callable[[Flow], str], name: str | None = None) -> None:
        running = flows()
        if name is None:
            if len(running) != 1:
                raise FlowError(f"`%dataflow {command}` which flow? {_running(running)}")
            name = next(iter(running))
        valid_name(name, "flow")
        flow = running.get(name) or self._bound(name)
        if flow is None:
            raise FlowError(f"no flow is named {name!r}. {_running(running)}")
        print(act(flow))  # noqa: T201 - the answer
        self._shows.settle()

    def _bound(self, name: str) -> Flow | None:
        """Return the stopped flow that a variable still holds: its numbers can be looked at and it can be forgotten."""
        bound = self.shell.user_ns.get(name)
        return bound if isinstance(bound, Flow) else None

    def _guarded(self, work: Callable[[], Result]) -> Result:
        """Run `work`; an error of ours is shown as its message alone, without the frames of this package."""
        try:
            return work()
        except PratipadError as error:
            raise without_frames(error) from None


def _stop(flow: Flow) -> str:
    flow.stop()
    return f"{flow.name} has stopped; what is stored under its name stays."


def _forget(flow: Flow) -> str:
    flow.forget()
    return f"{flow.name} has stopped, and all that was stored under its name is deleted."


def _pause(flow: Flow) -> str:
    flow.pause()
    return f"{flow.name} is paused; what comes waits. `%dataflow resume {flow.name}` goes on."


def _resume(flow: Flow) -> str:
    flow.resume()
    return f"{flow.name} goes on."


def _retry(flow: Flow) -> str:
    return f"{flow.name}: {flow.retry_dead_letters()} dead letters are put through again."


#: What `%dataflow COMMAND NAME` does; returns what is printed.
_COMMANDS: dict[str, Callable[[Flow], str]] = {
    "status": text_picture,
    "pause": _pause,
    "resume": _resume,
    "retry": _retry,
    "stop": _stop,
    "forget": _forget,
}

_USAGE = f"""%dataflow list | COMMAND [NAME]; commands: {", ".join(_COMMANDS)}
  list      this kernel's flows with their rates
  status    a picture in text, with all numbers
  pause     begin nothing further; resume goes on
  retry     put dead letters through again
  stop      finish what is in hand and stop; what is stored stays
  forget    stop, and delete all that is stored under the name
NAME may be left out if only one flow runs. `%%dataflow --help` tells how to start one."""


def _described(value: Any) -> str:
    return f"of type {type(value).__name__!r}"


def _running(running: dict[str, Flow]) -> str:
    return f"Running: {', '.join(sorted(running))}." if running else "None runs in this kernel."
