"""The cockpit: what can be seen of a flow while it runs, and changed. The methods of `Flow`.

Owns these methods, which are a part of `Flow` and stand here because there are many; they stand on those of
`AsyncFlow` in `cockpit`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pratipad_nb.dataflow import Step as StepModel
from pratipad_nb.dataflow import resolve
from pratipad_nb.message import Message
from pratipad_nb.runtime.dead_letters import DeadLetter
from pratipad_nb.runtime.history import FlowHistory
from pratipad_nb.runtime.line import Line
from pratipad_nb.session.callers import callers_namespace
from pratipad_nb.session.shadow import Shadow, compare
from pratipad_nb.session.step import Step, Trace, trace
from pratipad_nb.session.tape import MAX_BYTES, Tape
from pratipad_nb.session.views import view

if TYPE_CHECKING:
    from pratipad_nb.session.asynchronous import AsyncFlow

__all__ = ["Cockpit"]

Result = TypeVar("Result")


class Cockpit:
    """The part of `Flow` that looks at what runs and changes it."""

    _flow: AsyncFlow

    if TYPE_CHECKING:

        def _run(self, work: Coroutine[Any, Any, Result]) -> Result: ...

    # -- looking ------------------------------------------------------------------------------------------------

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
        return self._flow.newer(callers_namespace(1) if namespace is None else namespace)

    # -- controls -----------------------------------------------------------------------------------------------

    def pause(self, processor: str | None = None) -> None:
        """Let the flow, or one processor by its key, begin nothing further; what comes waits."""
        self._run(self._flow.pause(processor))

    def resume(self, processor: str | None = None) -> None:
        """Let the flow, or one processor, go on."""
        self._run(self._flow.resume(processor))

    def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that processors failed on, oldest first."""
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
        self._set("rate", value)

    @property
    def max_demand(self) -> int:
        """Demand: most messages in hand or asked for. Acts at once; `min_demand` falls to half of it if it is above."""
        return self._flow.max_demand

    @max_demand.setter
    def max_demand(self, value: int) -> None:
        self._set("max_demand", value)

    @property
    def min_demand(self) -> int:
        """Demand: ask for more when no more than this are in hand or asked for. Acts at once."""
        return self._flow.min_demand

    @min_demand.setter
    def min_demand(self, value: int) -> None:
        self._set("min_demand", value)

    def _set(self, name: str, value: Any) -> None:
        if not self._flow.edges:  # nothing runs: it holds from the next start on
            setattr(self._flow, name, value)
            return

        async def change() -> None:
            setattr(self._flow, name, value)

        self._run(change())

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
        names = callers_namespace(1) if namespace is None else namespace
        flow = self._flow
        new = resolve(notation or flow.dataflow.notation, names)
        return compare(flow.dataflow, new, flow.entries(tape), flow.settings.options)

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
