"""The dataflow: the meaning of a notation in a namespace, and its graph.

Owns the model that all packages above read. Makes no processor, runs nothing and draws nothing.

==============  ============================================================================================
``model``       `Dataflow`: a frozen value, and the difference between two of them
``resolving``   `resolve`: from a syntax tree and a namespace to a `Dataflow`
``names``       looks a name up, and suggests the nearest names for an unknown one
``targets``     checks that an object can be a processor and takes its arguments
``graph``       the graph of a dataflow, as the picture shows it
``layout``      the columns and rows in which the graph's nodes stand
==============  ============================================================================================
"""

from __future__ import annotations

from pratipad_nb.dataflow.graph import DEVICES, OUTPUT, graph
from pratipad_nb.dataflow.layout import layout
from pratipad_nb.dataflow.model import Dataflow, Difference, StageModel, Step
from pratipad_nb.dataflow.resolving import resolve

__all__ = [
    "DEVICES",
    "OUTPUT",
    "Dataflow",
    "Difference",
    "StageModel",
    "Step",
    "graph",
    "layout",
    "resolve",
]
