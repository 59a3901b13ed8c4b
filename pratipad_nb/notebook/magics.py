"""The magics: ``%%dataflow`` starts or changes a flow and shows it; ``%dataflow`` lists flows and acts on one.

Owns what the two lines do. Options are read by `pratipad_nb.notebook.options`, commands are in
`pratipad_nb.notebook.commands`, pictures kept by `pratipad_nb.notebook.shows`, and everything that runs is
`pratipad_nb.session`.
"""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from pratipad_nb.dataflow import Step
from pratipad_nb.dataflow.names import nearest
from pratipad_nb.errors import FlowError, PratipadError
from pratipad_nb.notebook.commands import COMMANDS, USAGE, addressed
from pratipad_nb.notebook.faults import without_frames
from pratipad_nb.notebook.options import CellOptions, HelpAsked, cell_options
from pratipad_nb.notebook.shows import Shows
from pratipad_nb.notebook.text import listing
from pratipad_nb.session import Flow, flows
from pratipad_nb.session.asynchronous import DEFAULT_MAX_DEMAND

__all__ = ["DataflowMagics"]

#: Options that a running flow can't change: they name where it stores and how it delivers.
_FIXED = ("delivery", "server", "certs", "keep")


@magics_class
class DataflowMagics(Magics):
    """``%%dataflow`` and ``%dataflow``."""

    shell: Any

    def __init__(self, shell: Any, shows: Shows) -> None:
        super().__init__(shell)
        self._shows = shows
        self._started: dict[str, tuple[Flow, CellOptions]] = {}
        #: What could not be swapped in, by flow, so that it isn't tried after every cell.
        self._refused: dict[str, tuple[Step, ...]] = {}

    # -- the cell -----------------------------------------------------------------------------------------------

    @no_var_expand
    @cell_magic("dataflow")  # type: ignore[arg-type] # IPython's decorators are typed for functions, not methods
    def dataflow_cell(self, line: str, cell: str) -> None:
        """Start a dataflow, or change the running one of that name, bind it and show it live."""
        try:
            self._run_cell(cell_options(line), cell)
        except HelpAsked as text:
            print(text)  # noqa: T201 - the answer to --help
        except PratipadError as error:
            # Running the cell has taken the picture off the page, and what it shows goes on.
            running = next((flow for name, flow in flows().items() if name in line.split()), None)
            if running is not None:
                self._shows.show(running)
            raise without_frames(error) from None

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
            self._adjust(flow, before, options)
        receipt = flow.update(notation, self.shell.user_ns)
        if receipt is not None:
            print(f"{flow.name}: {receipt}")  # noqa: T201 - the receipt belongs into the cell's output

    @staticmethod
    def _adjust(flow: Flow, before: CellOptions, options: CellOptions) -> None:
        """Change what may change while the flow runs, where the cell says something else than before.

        What it says no differently stays as the sliders and commands have left it since.
        """
        if options.rate != before.rate:
            flow.rate = options.rate
        if (options.max_demand, options.min_demand) != (before.max_demand, before.min_demand):
            flow.max_demand = options.max_demand or DEFAULT_MAX_DEMAND
            flow.min_demand = flow.max_demand // 2 if options.min_demand is None else options.min_demand

    def swap_redefined(self) -> None:
        """Swap into running flows what the cell that has just run defined anew, and say so.

        Where ``--no-swap`` was given the picture says that there is something newer, no more. A flow that wasn't
        started by a cell is left alone. If the new processor can't be set up, the old one stays and the error is shown,
        once: it is tried again when the processor is defined anew again.
        """
        for flow, options in list(self._started.values()):
            if flows().get(flow.name) is not flow:
                continue
            newer = flow.newer(self.shell.user_ns)
            if (
                not newer
                or not options.swap
                or flow.state != "running"
                or newer == self._refused.get(flow.name)
            ):
                continue
            self._refused.pop(flow.name, None)
            try:
                receipt = flow.update(flow.notation, self.shell.user_ns)
            except PratipadError as error:
                self._refused[flow.name] = newer
                self.shell.showtraceback((type(error), without_frames(error), None))
                continue
            if receipt is not None:
                print(f"{flow.name}: {receipt}")  # noqa: T201 - the receipt belongs into the cell's output

    # -- the line -----------------------------------------------------------------------------------------------

    @no_var_expand
    @line_magic("dataflow")  # type: ignore[arg-type]
    def dataflow_line(self, line: str) -> None:
        """List this kernel's flows, or act on one; ``%dataflow --help`` tells all commands."""
        command, _, rest = line.strip().partition(" ")
        if command in ("--help", "-h", "help"):
            print(USAGE)  # noqa: T201 - the answer
        elif command in ("", "list") and not rest.strip():
            print(listing(flows()))  # noqa: T201 - the answer
        elif command not in COMMANDS:
            near = nearest(command, ["list", *COMMANDS])
            hint = f"Did you mean {near[0]!r}?\n" if near else ""
            raise UsageError(f"{command!r} is no command of %dataflow. {hint}{USAGE}")
        else:
            try:
                self._act(command, rest)
            except PratipadError as error:
                raise without_frames(error) from None

    def _act(self, command: str, rest: str) -> None:
        running = flows()
        flow, words = addressed(command, rest, lambda name: running.get(name) or self._bound(name), running)
        print(COMMANDS[command].act(flow, words))  # noqa: T201 - the answer
        self._shows.settle()

    def _bound(self, name: str) -> Flow | None:
        """Return the stopped flow that a variable still holds: its numbers can be looked at and it can be forgotten."""
        bound = self.shell.user_ns.get(name)
        return bound if isinstance(bound, Flow) else None


def _described(value: Any) -> str:
    return f"of type {type(value).__name__!r}"
