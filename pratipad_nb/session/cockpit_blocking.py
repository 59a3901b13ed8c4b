"""The cockpit: what can be seen of a flow while it runs, and changed. The methods of `Flow`.

Owns these methods, which are a part of `Flow` and stand here because there are many; they stand on those of
`AsyncFlow` in `cockpit`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pratipad_nb.dataflow import Step as StepModel
from pratipad_nb.message import Message
from pratipad_nb.portal import Portal, PortalClosed
from pratipad_nb.runtime.stages.line import Line
from pratipad_nb.runtime.values.history import FlowHistory
from pratipad_nb.runtime.values.stats_tables import DeviceTable
from pratipad_nb.session.callers import names_for
from pratipad_nb.session.inspection.shadow import Shadow, shadow_of
from pratipad_nb.session.inspection.step import Step, Trace, trace
from pratipad_nb.session.inspection.tape import MAX_BYTES, Tape
from pratipad_nb.session.letters import LetterList
from pratipad_nb.session.views import view

if TYPE_CHECKING:
    from pratipad_nb.session.asynchronous import AsyncFlow

__all__ = ["Cockpit"]

Result = TypeVar("Result")


class Cockpit:
    """The part of `Flow` that looks at what runs and changes it."""

    _flow: AsyncFlow
    _portal: Portal | None

    if TYPE_CHECKING:

        def _run(self, work: Coroutine[Any, Any, Result]) -> Result: ...

    # -- looking ------------------------------------------------------------------------------------------------

    @property
    def graph(self) -> Any:
        """A `networkx.DiGraph` with the same nodes as the picture."""
        return self._flow.graph

    @property
    def devices(self) -> DeviceTable:
        """The devices that are connected now, by name: a dictionary, that shows itself as a table."""
        return self._flow.devices

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that run here, counted from 0: all of them, unless several edges share the flow.

        A flow is divided by ``options=FlowOptions(partitions=n)``. Then every process that starts it, against one
        server, is one more edge: partitions move to it from the others, and back when it ends or is lost.
        """
        return self._flow.partitions

    def __getitem__(self, key: str) -> Step:
        """Return one processor by its key, to look at and to pause: ``flow["P2"].show(20)``.

        Raises
        ------
        ProcessorError
            If there is none; it names the nearest ones.
        """
        return Step(self, key)  # type: ignore[arg-type] # it is a Flow

    def __contains__(self, key: object) -> bool:
        """Whether there is a processor of that key."""
        return key in self._flow

    def _ipython_key_completions_(self) -> list[str]:
        """Offer the processors' keys after ``flow["``, in IPython."""
        return [step.key for step in self._flow.dataflow.steps]

    @property
    def lines(self) -> list[Line]:
        """The processors of each edge in this process, with their samples and logs; `flow[key]` is made of them."""
        return self._flow.lines

    @property
    def history(self) -> FlowHistory:
        """Its main numbers, once a second, over the last hour; `plot` draws them."""
        return self._flow.history

    def trace(self, message: Message | str) -> Trace:
        """Return what each processor made of one message, given as it was taken, or by its id.

        Up to 50 messages a second are followed (all, at lower rates), and the last 500 kept.

        Raises
        ------
        FlowError
            If that one wasn't followed, or is too long ago.
        """
        return trace(self._flow, message)

    def newer(self, namespace: Mapping[str, Any] | None = None) -> tuple[StepModel, ...]:
        """Return the processors that are defined anew in `namespace` and don't run yet.

        The picture and `stats().processors[key].newer` say so, until they are swapped in by `update`.
        """
        return self._flow.newer(names_for(namespace))

    # -- controls -----------------------------------------------------------------------------------------------

    def pause(self, processor: str | None = None) -> None:
        """Let the flow, or one processor by its key, begin nothing further; what comes waits."""
        self._run(self._flow.pause(processor))

    def resume(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, go on."""
        self._run(self._flow.resume(processor))

    def dead_letters(self) -> LetterList:
        """Return the messages that processors failed on, oldest first: a list, that shows itself as a table."""
        return self._run(self._flow.dead_letters())

    def retry_dead_letters(self) -> int:
        """Put all dead letters through again from where they failed; returns how many there were."""
        return self._run(self._flow.retry_dead_letters())

    def clear_dead_letters(self) -> int:
        """Delete all dead letters; returns how many there were."""
        return self._run(self._flow.clear_dead_letters())

    @property
    def rate(self) -> float | None:
        """Demand and Pull: most messages a second that devices are asked for; None for no limit. Acts at once."""
        return self._flow.rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        self._change(lambda: setattr(self._flow, "rate", value))

    @property
    def max_demand(self) -> int:
        """Demand: most messages in flight or asked for. Acts at once; `min_demand` falls to half of it if it is above."""
        return self._flow.max_demand

    @max_demand.setter
    def max_demand(self, value: int) -> None:
        self._change(lambda: setattr(self._flow, "max_demand", value))

    @property
    def min_demand(self) -> int:
        """Demand: ask for more when no more than this are in flight or asked for. Acts at once; None: half of the other."""
        return self._flow.min_demand

    @min_demand.setter
    def min_demand(self, value: int | None) -> None:
        self._change(lambda: setattr(self._flow, "min_demand", value))

    def demand(self, max_demand: int, min_demand: int | None = None) -> None:
        """Demand: change both bounds at once, so that no old one is in a new one's way. They act at once.

        Parameters
        ----------
        min_demand
            Default: half of `max_demand`.

        Raises
        ------
        SettingsError
            If they are not whole numbers with ``0 <= min_demand < max_demand``; nothing has changed then.
        """
        self._change(lambda: self._flow.demand(max_demand, min_demand))

    def _change(self, change: Callable[[], None]) -> None:
        """Do `change` on the flow's event loop, where what it changes is used; if there is none, or from there, here."""

        async def changed() -> None:
            change()

        portal = self._portal
        if portal is None or portal.inside:
            change()
            return
        try:
            portal.run(changed())
        except PortalClosed:  # it stops meanwhile: the change holds from the next start on
            change()

    # -- tapes --------------------------------------------------------------------------------------------------

    def record(
        self, n: int | None = None, seconds: float | None = None, *, max_bytes: int = MAX_BYTES
    ) -> Tape:
        """Record the next inputs, as devices send them, and return them as a tape; waits until it is full.

        Parameters
        ----------
        n, seconds
            How many messages, or for how long. With both it ends with the first.
        max_bytes
            The bound of the tape, in bytes of payloads. Default: 64 MiB. What it cuts off, `Tape.cut` says.

        Raises
        ------
        SettingsError
            If neither is given.
        """
        return self._run(self._flow.record(n, seconds, max_bytes=max_bytes))

    def replay(self, tape: Tape, speed: float | str | None = 1.0) -> int:
        """Put a tape through the flow once more; return how many messages, once all are taken in.

        They go through as messages of the devices that sent them then, with their recorded `Message.time`, and reach
        Output like any other; `settled` waits for that. They are counted in a numbering of their own, so that what
        devices send meanwhile is undisturbed. What processors answer to them (`reply`) is not sent.

        Parameters
        ----------
        speed
            1.0: the pace at which they came; 2.0: twice as fast; ``"max"`` or None: as fast as the processors take them.

        Raises
        ------
        FlowError
            If the flow stops before all are in.
        """
        return self._run(self._flow.replay(tape, speed))

    def shadow(
        self,
        tape: Tape | None = None,
        namespace: Mapping[str, Any] | None = None,
        *,
        notation: str | None = None,
    ) -> Shadow:
        """Put inputs through what runs and through what is defined now, and return the outputs that differ.

        What to do before a hot swap: the running flow isn't touched. Both sides are made anew and begin without state;
        what `setup` and `process` do to the world outside, they do here as well.

        Parameters
        ----------
        tape
            The inputs. Default: the last ones that were followed, up to 500, which under load are not all there were.
        namespace
            Where the new processors are looked up. Default: what is visible where this is called.
        notation
            The new notation. Default: the one that runs.

        Raises
        ------
        NotationError, ProcessorError
            If the new side is no good.
        """
        return shadow_of(self._flow, tape, names_for(namespace), notation)

    # -- pictures -----------------------------------------------------------------------------------------------

    def plot(self) -> Any:
        """Return a figure of throughput, latency and queue lengths over the last hour (matplotlib).

        Raises
        ------
        SettingsError
            If what draws it isn't installed: ``pip install pratipad-nb[lab]``.
        """
        return view("plot")(self)

    def picture(self, path: str | Path | None = None) -> Any:
        """Return the graph as it is now, for a paper; with `path`, write it there, as SVG or PNG by its ending.

        Raises
        ------
        SettingsError
            If the ending is another, or what draws it isn't installed: ``pip install pratipad-nb[lab]``.
        """
        return view("picture")(self, path)

    def panel(self) -> Any:
        """Return the processors' throughput as plain ipywidgets, for a dashboard of one's own.

        They follow the flow, at most five times a second, until it has stopped.

        Raises
        ------
        SettingsError
            If what draws it isn't installed: ``pip install pratipad-nb[lab]``.
        """
        return view("panel")(self)
