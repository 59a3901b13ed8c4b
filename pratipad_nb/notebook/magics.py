"""The magics: ``%%dataflow`` starts or changes a flow and shows it; ``%dataflow`` lists and controls flows.

Owns the actions of the two magics. Options are read by `pratipad_nb.notebook.cell_line`, commands are in
`pratipad_nb.notebook.commands`, pictures are kept by `pratipad_nb.notebook.shows`, and flows are run by
`pratipad_nb.session`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from pratipad_nb.dataflow import Step
from pratipad_nb.dataflow.names import nearest
from pratipad_nb.errors import FlowError, Forked, PratipadError
from pratipad_nb.forks import forked_error, watch
from pratipad_nb.notebook.cell_line import CellOptions, HelpAsked, cell_options, named_in
from pratipad_nb.notebook.commands import COMMANDS, USAGE, addressed
from pratipad_nb.notebook.faults import without_frames
from pratipad_nb.notebook.shows import Shows
from pratipad_nb.notebook.text import listing
from pratipad_nb.session import Flow, flows
from pratipad_nb.session.asynchronous import DEFAULT_MAX_DEMAND
from pratipad_nb.session.checks import Demand, checked_demand
from pratipad_nb.settings import Keep
from pratipad_nb.transport.parties import flow_key

__all__ = ["DataflowMagics"]

#: Options that a running flow can't change: they name its storage and its delivery.
_FIXED = ("delivery", "server", "certs", "keep")
#: The defaults of the options in `_FIXED`.
_ANYWAY = {"delivery": "durable", "keep": Keep().seconds}
#: A flow in one of these states can be changed as it runs; in another state the flow has to be started.
_ALIVE = ("starting", "running", "paused")
#: The options of each flow's cell when it last succeeded. They belong to the flow, and so outlive an
#: extension that is loaded anew, as the flow does.
_said: WeakKeyDictionary[Flow, CellOptions] = WeakKeyDictionary()


@magics_class
class DataflowMagics(Magics):
    """``%%dataflow`` and ``%dataflow``."""

    shell: Any

    def __init__(self, shell: Any, shows: Shows) -> None:
        super().__init__(shell)
        self._shows = shows
        #: Processors that could not be swapped in, by flow, so that the swap isn't tried after every cell.
        self._refused: dict[str, tuple[Step, ...]] = {}
        self._forked = ""
        watch(self)

    def _find_forked(self) -> bool:
        # Not stranded by its class: IPython has the methods.
        self._forked = str(forked_error("the magic %dataflow, with the flows of this kernel,"))
        return False

    def _check_process(self) -> None:
        if self._forked:
            raise without_frames(Forked(self._forked))

    # -- the cell --------------------------------------------------------------------------------------------

    @no_var_expand
    @cell_magic("dataflow")  # type: ignore[arg-type] # IPython's decorators are typed for functions, not methods
    def dataflow_cell(self, line: str, cell: str) -> None:
        """Start a dataflow, or change the running flow of that name; bind it to its name and show it live."""
        self._check_process()
        try:
            self._run_cell(cell_options(line), cell)
        except HelpAsked as text:
            print(text)  # noqa: T201 - the answer to --help
        except PratipadError as error:
            # Running the cell has taken the picture off the page, and the flow goes on.
            running = flows().get(named_in(line))
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
            flow = self._made(options, notation).start()
        elif flow.state in _ALIVE:
            self._change(flow, options, notation)
        else:
            flow = self._started_again(flow, options, notation)
        namespace[name] = flow
        _said[flow] = options
        self._shows.show(flow)

    def _made(self, options: CellOptions, notation: str) -> Flow:
        given = {
            "delivery": options.delivery,
            "max_demand": options.max_demand,
            "min_demand": options.min_demand,
        }
        return Flow(
            notation,
            name=options.name,
            namespace=self.shell.user_ns,
            server=options.server,
            certs=options.certs,
            rate=options.rate,
            keep=options.keep,
            **{key: value for key, value in given.items() if value is not None},  # type: ignore[arg-type]
        )

    def _change(self, flow: Flow, options: CellOptions, notation: str) -> None:
        """Change a running flow completely, or raise with nothing changed."""
        fixed = _fixed_that_change(flow, options)
        if fixed:
            named = ", ".join("--" + key.replace("_", "-") for key in fixed)
            raise FlowError(
                f"{named} can't change while flow {flow.name!r} runs. `%dataflow stop {flow.name}`, then run "
                "this cell again: stored messages stay."
            )
        rate, demand = _wanted(flow, options)
        receipt = flow.update(notation, self.shell.user_ns)
        _adjust(flow, rate, demand)
        if receipt is not None:
            print(f"{flow.name}: {receipt}")  # noqa: T201 - the receipt belongs into the cell's output

    def _started_again(self, flow: Flow, options: CellOptions, notation: str) -> Flow:
        """Start a flow that has failed, or that is listed only since a device connected before its start."""
        if _fixed_that_change(flow, options):
            fresh = self._made(options, notation)
            flow.stop()
            return fresh.start()
        rate, demand = _wanted(flow, options)
        flow.update(notation, self.shell.user_ns)
        _adjust(flow, rate, demand)
        return flow.start()

    def swap_redefined(self) -> None:
        """Swap the processors that the cell just run has defined anew into running flows, and say so.

        With ``--no-swap`` the picture only says that there are newer processors. A flow that wasn't started
        by a cell is left alone. If a new processor can't be set up, the old processor stays and the error is
        shown, once: the swap is tried again when the processor is defined anew again.
        """
        for flow, options in list(_said.items()):
            key = flow_key(flow.name, flow.tenant)
            if flows().get(key) is not flow:
                continue
            newer = flow.newer(self.shell.user_ns)
            if not newer or not options.swap or flow.state != "running" or newer == self._refused.get(key):
                continue
            self._refused.pop(key, None)
            try:
                receipt = flow.update(flow.notation, self.shell.user_ns)
            except PratipadError as error:
                self._refused[key] = newer
                goes_on = f" The old {' and '.join(step.key for step in newer)} goes on."
                shown = without_frames(error, f"{flow.name}: ", goes_on)
                self.shell.showtraceback((type(error), shown, None))
                continue
            if receipt is not None:
                print(f"{flow.name}: {receipt}")  # noqa: T201 - the receipt belongs into the cell's output

    # -- the line --------------------------------------------------------------------------------------------

    @no_var_expand
    @line_magic("dataflow")  # type: ignore[arg-type]
    def dataflow_line(self, line: str) -> None:
        """List this kernel's flows, or act on a flow; ``%dataflow --help`` lists all commands."""
        self._check_process()
        command, _, rest = line.strip().partition(" ")
        if command in ("--help", "-h", "help"):
            print(USAGE)  # noqa: T201 - the answer
        elif command in ("", "list"):
            if rest.strip():
                raise UsageError(
                    f"`%dataflow list` lists all flows and takes no {rest.strip()!r}. "
                    "`%dataflow status NAME` shows one."
                )
            print(listing(flows()))  # noqa: T201 - the answer
        elif command not in COMMANDS:
            near = nearest(command, ["list", *COMMANDS])
            hint = f"Did you mean {near[0]!r}? " if near else ""
            if command in flows():
                hint = f"The flow of that name: `%dataflow status {command}`. "
            raise UsageError(f"{command!r} is no command of %dataflow. {hint}`%dataflow --help` lists them.")
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
        """Return the stopped flow `name` that a variable still holds: it can be looked at and forgotten."""
        held = (value for value in list(self.shell.user_ns.values()) if isinstance(value, Flow))
        return next((flow for flow in held if flow_key(flow.name, flow.tenant) == name), None)


def _fixed_that_change(flow: Flow, options: CellOptions) -> list[str]:
    """Return those of the options in `_FIXED` whose values in the cell differ from the running flow's.

    An option missing from the cell differs if an earlier run of the cell gave it, unless the earlier value is
    the default.
    """
    settings, endpoint = flow.settings, flow.endpoint
    folder = endpoint.credentials.certificate.parent if endpoint and endpoint.credentials else None
    held = {
        "delivery": settings.delivery,
        "server": endpoint.url if endpoint else None,
        "certs": folder,
        "keep": settings.keep.seconds,
    }
    before, given = _held_by(_said.get(flow, CellOptions(flow.name))), _held_by(options)
    return [
        key
        for key in _FIXED
        if given[key] != held[key]
        and (given[key] is not None or (before[key] is not None and held[key] != _ANYWAY.get(key)))
    ]


def _held_by(options: CellOptions) -> dict[str, object]:
    return {
        "delivery": options.delivery,
        "server": options.server,
        "certs": options.certs and Path(options.certs).expanduser(),
        "keep": options.keep and options.keep.seconds,
    }


def _adjust(flow: Flow, rate: float | None, demand: Demand) -> None:
    if rate != flow.rate:
        flow.rate = rate
    if (demand["max_demand"], demand["min_demand"]) != (flow.max_demand, flow.min_demand):
        flow.demand(**demand)


def _wanted(flow: Flow, options: CellOptions) -> tuple[float | None, Demand]:
    """Return the rate and the bounds of demand that hold once the cell has run.

    An option unchanged since the cell's last run stays at the value that sliders and commands have set since.
    """
    before = _said.get(flow, CellOptions(flow.name))
    rate = flow.rate if options.rate == before.rate else options.rate
    if (options.max_demand, options.min_demand) == (before.max_demand, before.min_demand):
        return rate, checked_demand(flow.max_demand, flow.min_demand)
    unsaid = flow.max_demand if before.max_demand is None else DEFAULT_MAX_DEMAND
    return rate, checked_demand(options.max_demand or unsaid, options.min_demand)


def _described(value: Any) -> str:
    return f"of type {type(value).__name__!r}"
