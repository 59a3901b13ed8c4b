"""The dataflow: what a notation means where its names are known, and its graph.

Owns the model that everything above reads. Makes no processor, runs nothing and draws nothing.
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
