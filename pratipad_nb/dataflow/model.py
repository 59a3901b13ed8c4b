"""`Dataflow`: the meaning of a notation in a namespace, as a frozen value for runtime, session and picture.

Owns the questions that the notation alone answers: the steps and their keys, the hops over which messages may
pass back, and the difference between two versions of a cell. Makes no processor and runs nothing. How names
become targets is in `pratipad_nb.dataflow.resolving`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pratipad_nb.dataflow.names import nearest
from pratipad_nb.errors import ProcessorError
from pratipad_nb.notation import Direction, Input, Problem, Span, StageKind, Tree, rendered
from pratipad_nb.notation.errors import located
from pratipad_nb.notation.printer import literal_text

__all__ = ["Dataflow", "Difference", "StageModel", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One processor in its place.

    Attributes
    ----------
    key
        The step's name in statistics, dead letters and the graph: the last part of `name`, with ``#2``,
        ``#3`` … from the second step of that name on.
    name
        The processor's name as it is written, dotted.
    target
        The object that the name stands for: a class, a function, or another callable. Not yet called.
    arguments
        The keyword arguments for `target`. Don't change them.
    span
        The step's place in ``tree.source``.
    """

    key: str
    name: str
    target: Any
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    span: Span = field(default=Span(0, 0), compare=False, repr=False)

    def same_as(self, other: Step) -> bool:
        """Return whether `other` has the same target and the same arguments.

        ``1`` and ``True``, and ``1`` and ``1.0``, are different arguments, though Python finds them equal. A
        class that was defined anew by running its cell again is another target.
        """
        same_target = self.target is other.target
        if inspect.ismethod(self.target):  # Python makes a bound method afresh at each look-up
            same_target = bool(self.target == other.target)
        return same_target and _texts(self.arguments) == _texts(other.arguments)


@dataclass(frozen=True, slots=True)
class StageModel:
    """The steps between two arrows: one, several in sequence, or several at the same time."""

    kind: StageKind
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Keys of the steps that differ between two dataflows, each in the order of its dataflow.

    Attributes
    ----------
    added
        Steps of the new dataflow only.
    removed
        Steps of the old dataflow only.
    changed
        Steps of both, with another target or other arguments.
    kept
        Steps of both, with the same target and arguments; such a step's state goes on even if its place is
        another.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dataflow:
    """A notation whose names have been looked up.

    Attributes
    ----------
    tree
        The notation's syntax tree.
    stages
        The stages, in the order in which messages pass forward. ``hops[i]`` is the arrow into ``stages[i]``,
        and the last hop is the arrow into Output.
    """

    tree: Tree
    stages: tuple[StageModel, ...]

    @property
    def notation(self) -> str:
        """The canonical notation."""
        return str(self.tree)

    @property
    def input(self) -> Input:
        """Who decides how many messages are sent: Push (devices), Pull (the cloud) or Demand (the edge)."""
        return self.tree.input

    @property
    def hops(self) -> tuple[Direction, ...]:
        """The direction of each arrow, from the devices to Output."""
        return self.tree.hops

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in the order of the notation."""
        return tuple(step for stage in self.stages for step in stage.steps)

    def step(self, key: str) -> Step:
        """Return the step of key `key`.

        Raises
        ------
        ProcessorError
            If the dataflow has no such step.
        """
        return self.stages[self.stage_of(key)].steps[self._place[key][1]]

    def stage_of(self, key: str) -> int:
        """Return the index of the stage of the step `key`.

        Raises
        ------
        ProcessorError
            If the dataflow has no such step.
        """
        try:
            return self._place[key][0]
        except (KeyError, TypeError):  # TypeError: `key` can't be hashed, as a slice in Python 3.11
            near = " or ".join(map(repr, nearest(str(key), list(self._place))))
            hint = f" Did you mean {near}?" if near else ""
            keys = ", ".join(self._place)
            raise ProcessorError(
                f"{key!r} is no processor of this dataflow; there are: {keys}.{hint}"
            ) from None

    @property
    def _place(self) -> dict[str, tuple[int, int]]:
        return {s.key: (i, j) for i, stage in enumerate(self.stages) for j, s in enumerate(stage.steps)}

    @property
    def first_one_way_hop(self) -> int | None:
        """Index of the first ``~>``, counted from the devices; ``None`` if every hop is ``<~>``."""
        return self.hops.index("~>") if "~>" in self.hops else None

    @property
    def cloud_reaches_devices(self) -> bool:
        """Whether an order can pass from Output back to the devices: every hop is ``<~>``."""
        return self.first_one_way_hop is None

    @property
    def reaches_devices(self) -> bool:
        """Whether anything can pass back to the devices: the first hop is ``<~>``."""
        return self.hops[0] == "<~>"

    def replies_from(self, key: str) -> bool:
        """Return whether the step `key` can `reply` to a device: all hops before its stage are ``<~>``.

        The arrows from the stage to Output don't matter, for a reply passes the other way.

        Raises
        ------
        ProcessorError
            If the dataflow has no such step.
        """
        stage = self.stage_of(key)
        one_way = self.first_one_way_hop
        return one_way is None or one_way > stage

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning, as rendered text, for each ``<~>`` that no message can pass backward.

        A message that passes backward over hop *i* is bound for a device, so it has to pass hops *i* − 1 … 0
        as well. Hence a ``<~>`` is of use only if all arrows before it are ``<~>`` too. A useless ``<~>`` is
        no error, since messages pass forward all the same.
        """
        blocked = self.first_one_way_hop
        spans = self.tree.hop_spans
        if blocked is None or len(spans) != len(self.hops):
            return ()
        line, column = located(self.tree.source, spans[blocked].start)
        place = f"line {line}, column {column}"
        message = f"nothing can pass back over this `<~>`: the `~>` at {place} ends the way to the devices"
        hint = "write `<~>` there too, or `~>` here"
        return tuple(
            rendered(self.tree.source, Problem(message, span, hint=hint))
            for hop, span in zip(self.hops[blocked + 1 :], spans[blocked + 1 :], strict=True)
            if hop == "<~>"
        )

    def diff(self, new: Dataflow) -> Difference:
        """Return the steps that differ between this dataflow and the `new` dataflow.

        Arrows, stages and the input are no part of the difference; compare `hops`, `stages` and `input` for
        these.
        """
        old_steps = {step.key: step for step in self.steps}
        new_steps = {step.key: step for step in new.steps}
        kept = {key for key, step in new_steps.items() if key in old_steps and old_steps[key].same_as(step)}
        return Difference(
            added=tuple(key for key in new_steps if key not in old_steps),
            removed=tuple(key for key in old_steps if key not in new_steps),
            changed=tuple(key for key in new_steps if key in old_steps and key not in kept),
            kept=tuple(key for key in new_steps if key in kept),
        )


def _texts(arguments: Mapping[str, Any]) -> dict[str, str]:
    return {name: literal_text(value) for name, value in arguments.items()}
