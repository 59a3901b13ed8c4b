"""The cockpit: the methods of `Flow` that look at a running flow and change it.

Owns these methods, a part of `Flow` in a module of its own because they are many, and their descriptions.
They call the methods of `AsyncFlow` in `cockpit`.
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
    """The part of `Flow` that looks at the running flow and changes it."""

    _flow: AsyncFlow
    _portal: Portal | None

    if TYPE_CHECKING:

        def _run(self, work: Coroutine[Any, Any, Result]) -> Result: ...

    # -- looking ---------------------------------------------------------------------------------------------

    @property
    def graph(self) -> Any:
        """A `networkx.DiGraph` with the same nodes as the picture."""
        return self._flow.graph

    @property
    def devices(self) -> DeviceTable:
        """The devices that are connected now, by name: a dictionary that shows itself as a table."""
        return self._flow.devices

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that run in this process, counted from 0: all, unless several edges share the flow.

        ``options=FlowOptions(partitions=n)`` divides a flow. Then every process that starts the flow, against
        one server, is one more edge: partitions move to that edge from the others, and back when it ends or
        is lost.
        """
        return self._flow.partitions

    def __getitem__(self, key: str) -> Step:
        """Return one processor by its key, to look at and to pause: ``flow["P2"].show(20)``.

        Raises
        ------
        ProcessorError
            If there is no such processor; the error's text names the nearest keys.
        """
        return Step(self, key)  # type: ignore[arg-type] # a Cockpit is a Flow

    def __contains__(self, key: object) -> bool:
        """Return whether there is a processor of that key."""
        return key in self._flow

    def _ipython_key_completions_(self) -> list[str]:
        """Offer the processors' keys after ``flow["``, in IPython."""
        return [step.key for step in self._flow.dataflow.steps]

    @property
    def lines(self) -> list[Line]:
        """The lines of processors in this process, with their samples and logs; `flow[key]` reads them."""
        return self._flow.lines

    @property
    def history(self) -> FlowHistory:
        """The flow's main numbers, once a second, over the last hour; `plot` draws them."""
        return self._flow.history

    def trace(self, message: Message | str) -> Trace:
        """Return the results of each processor for one message, given as `take` returned it, or by its id.

        Up to 50 messages a second are followed (all, at lower rates), and the last 500 are kept.

        Raises
        ------
        FlowError
            If the message wasn't followed, or is not among the last 500.
        """
        return trace(self._flow, message)

    def newer(self, namespace: Mapping[str, Any] | None = None) -> tuple[StepModel, ...]:
        """Return the processors that are defined anew in `namespace` and don't run yet.

        The picture and `stats().processors[key].newer` mark these processors until `update` swaps them in.
        """
        return self._flow.newer(names_for(namespace))

    # -- controls --------------------------------------------------------------------------------------------

    def pause(self, processor: str | None = None) -> None:
        """Let the flow, or one processor by its key, begin no further message; new messages wait."""
        self._run(self._flow.pause(processor))

    def resume(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, go on."""
        self._run(self._flow.resume(processor))

    def dead_letters(self) -> LetterList:
        """Return the messages that processors failed on, oldest first; the list shows itself as a table."""
        return self._run(self._flow.dead_letters())

    def retry_dead_letters(self) -> int:
        """Put all dead letters through again from the processors where they failed; return their number."""
        return self._run(self._flow.retry_dead_letters())

    def clear_dead_letters(self) -> int:
        """Delete all dead letters; return their number."""
        return self._run(self._flow.clear_dead_letters())

    @property
    def rate(self) -> float | None:
        """Demand and Pull: most messages a second asked of devices; None: no limit. A change acts at once."""
        return self._flow.rate

    @rate.setter
    def rate(self, value: float | None) -> None:
        self._change(lambda: setattr(self._flow, "rate", value))

    @property
    def max_demand(self) -> int:
        """Demand: most messages in flight or asked for.

        A change acts at once, and lowers a `min_demand` above half of the new value to that half.
        """
        return self._flow.max_demand

    @max_demand.setter
    def max_demand(self, value: int) -> None:
        self._change(lambda: setattr(self._flow, "max_demand", value))

    @property
    def min_demand(self) -> int:
        """Demand: ask for more when no more than this are in flight or asked for.

        A change acts at once; setting None means half of `max_demand`.
        """
        return self._flow.min_demand

    @min_demand.setter
    def min_demand(self, value: int | None) -> None:
        self._change(lambda: setattr(self._flow, "min_demand", value))

    def demand(self, max_demand: int, min_demand: int | None = None) -> None:
        """Demand: change both bounds together, so that neither old bound excludes a new bound. Acts at once.

        Parameters
        ----------
        min_demand
            Default: half of `max_demand`.

        Raises
        ------
        SettingsError
            If the bounds are not whole numbers with ``0 <= min_demand < max_demand``; neither has changed
            then.
        """
        self._change(lambda: self._flow.demand(max_demand, min_demand))

    def _change(self, change: Callable[[], None]) -> None:
        """Call `change` on the flow's event loop, or directly if there is none or the caller runs on it."""

        async def changed() -> None:
            change()

        portal = self._portal
        if portal is None or portal.inside:
            change()
            return
        try:
            portal.run(changed())
        except PortalClosed:  # the flow stops meanwhile: the change holds from the next start on
            change()

    # -- tapes -----------------------------------------------------------------------------------------------

    def record(
        self, n: int | None = None, seconds: float | None = None, *, max_bytes: int = MAX_BYTES
    ) -> Tape:
        """Record the next inputs, as devices send them, and return them as a tape once the tape is full.

        Parameters
        ----------
        n, seconds
            Number of messages, and how long to record. With both, the first bound ends the recording.
        max_bytes
            The bound of the tape, in bytes of payloads. Default: 64 MiB. `Tape.cut` says if this bound ended
            the tape.

        Raises
        ------
        SettingsError
            If neither `n` nor `seconds` is given.
        """
        return self._run(self._flow.record(n, seconds, max_bytes=max_bytes))

    def replay(self, tape: Tape, speed: float | str | None = 1.0) -> int:
        """Put a tape through the flow once more; return the number of messages once all are taken in.

        The tape's messages go through as messages of the devices that sent them, with their recorded
        `Message.time`, and reach Output like any other message; `settled` waits for that. The tape's messages
        have numbers of their own, so that messages which devices send meanwhile are undisturbed. Replies of
        processors to the tape's messages (`reply`) are not sent.

        Parameters
        ----------
        speed
            1.0: the pace at which the messages came; 2.0: twice as fast; ``"max"`` or None: as fast as the
            processors take them.

        Raises
        ------
        FlowError
            If the flow stops before all messages are taken in.
        """
        return self._run(self._flow.replay(tape, speed))

    def shadow(
        self,
        tape: Tape | None = None,
        namespace: Mapping[str, Any] | None = None,
        *,
        notation: str | None = None,
    ) -> Shadow:
        """Return the outputs that differ between the processors that run and the processors as defined now.

        A trial before a hot swap: the running flow isn't touched. The processors of both sides are made anew
        and begin without state. Side effects of `setup` and `process` happen here as well.

        Parameters
        ----------
        tape
            The inputs. Default: the last inputs that were followed, up to 500; under load not every input is
            followed.
        namespace
            The names in which the new processors are looked up. Default: the names visible to the caller.
        notation
            The new notation. Default: the notation that runs.

        Raises
        ------
        NotationError, ProcessorError
            If the new notation is wrong, or a processor can't be set up.
        """
        return shadow_of(self._flow, tape, names_for(namespace), notation)

    # -- pictures --------------------------------------------------------------------------------------------

    def plot(self) -> Any:
        """Return a figure of throughput, latency and queue lengths over the last hour (matplotlib).

        Raises
        ------
        SettingsError
            If the drawing library isn't installed: ``pip install pratipad-nb[lab]``.
        """
        return view("plot")(self)

    def picture(self, path: str | Path | None = None) -> Any:
        """Return a picture of the graph as it is now, for a paper; with `path`, write an SVG or PNG file.

        Raises
        ------
        SettingsError
            If `path` ends otherwise than in ``.svg`` or ``.png``, or if the drawing library isn't installed:
            ``pip install pratipad-nb[lab]``.
        """
        return view("picture")(self, path)

    def panel(self) -> Any:
        """Return the processors' throughput as plain ipywidgets, for a dashboard of your own.

        The widgets follow the flow, at most five times a second, until it has stopped.

        Raises
        ------
        SettingsError
            If the drawing library isn't installed: ``pip install pratipad-nb[lab]``.
        """
        return view("panel")(self)
