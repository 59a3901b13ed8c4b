"""The shape of a run: the line of processors, and the pipeline that leads through the line.

Owns which line and which pipeline are the current ones. Only `changes` replaces them; every other part asks
for the current line or pipeline each time, and keeps neither.
"""

from __future__ import annotations

from collections.abc import Callable

from pratipad_nb.runtime.edge.pipeline import Pipeline
from pratipad_nb.runtime.stages.line import Line

__all__ = ["Shape"]


class Shape:
    """The line and the pipeline of a run, which a change of the dataflow replaces.

    Parameters
    ----------
    line
        The first line of processors.
    new_pipeline
        Returns a new pipeline through a line.
    """

    def __init__(self, line: Line, new_pipeline: Callable[[Line], Pipeline]) -> None:
        self._new_pipeline = new_pipeline
        self.line = line
        self.pipeline = new_pipeline(line)

    def replace(self, line: Line) -> None:
        """Make `line`, with a pipeline of its own, the current line; the last pipeline has ended."""
        self.line = line
        self.pipeline = self._new_pipeline(line)
