"""The graph of a dataflow as a `networkx.DiGraph`: the nodes and edges that the picture shows.

Owns node names and attributes. The nodes' places are in `pratipad_nb.dataflow.layout`; the views add numbers
(rates, errors). `networkx` is imported when a graph is made, since its import costs more than the rest of
this package.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx

    from pratipad_nb.dataflow.model import Dataflow, StageModel

__all__ = ["DEVICES", "MOST_DEVICE_NODES", "OUTPUT", "graph"]

#: Node of the device layer as a whole.
DEVICES = "devices"
#: Node of the cloud layer.
OUTPUT = "Output"
#: Up to so many devices have a node each: as many as fit in a picture beside the edge layer.
MOST_DEVICE_NODES = 12


def graph(dataflow: Dataflow, devices: Iterable[str] = ()) -> networkx.DiGraph:
    """Return the graph of `dataflow`, in the direction in which messages pass forward.

    ================== ========= ===========================================================================
    node               layer     further attributes
    ================== ========= ===========================================================================
    ``device:NAME``    device    ``label`` (the device's name); only if there are `MOST_DEVICE_NODES` at most
    ``devices``        device    ``label`` (the input: Push, Pull or Demand), ``devices`` (sorted names)
    a step's key       edge      ``label`` (the key), ``name`` (as written), ``stage`` (index), its ``kind``
    ``Output``         cloud     ``label``
    ================== ========= ===========================================================================

    An edge has ``hop``, the index of the arrow that it stands for, or ``None`` inside a sequential stage and
    between a device and ``devices``; and ``direction``, ``"~>"`` or ``"<~>"``. Inside a stage the direction
    is that of the arrow into the stage, for a reply from the stage has to pass both. Before and after a
    concurrent stage one arrow stands for several edges: to every member, and from every member to the next
    node.

    The edges of all devices lead to the one node ``devices``. So its place and its edges stay while devices
    come and go, and every device's path goes on from there. Nodes are added from the devices to Output,
    devices by name.

    Parameters
    ----------
    dataflow
        The dataflow.
    devices
        Names of the connected devices.
    """
    import networkx as nx

    names = sorted(devices)
    found = nx.DiGraph(notation=dataflow.notation)
    shown = names if len(names) <= MOST_DEVICE_NODES else []
    found.add_nodes_from((f"device:{name}", {"layer": "device", "label": name}) for name in shown)
    found.add_node(DEVICES, layer="device", label=dataflow.input, devices=names)
    found.add_edges_from(
        ((f"device:{name}", DEVICES) for name in shown), hop=None, direction=dataflow.hops[0]
    )
    exits = [DEVICES]
    for index, stage in enumerate(dataflow.stages):
        direction = dataflow.hops[index]
        entries = _add_stage(found, stage, index, direction)
        for before in exits:
            found.add_edges_from(((before, entry) for entry in entries), hop=index, direction=direction)
        exits = entries if stage.kind == "concurrent" else [stage.steps[-1].key]
    found.add_node(OUTPUT, layer="cloud", label=OUTPUT)
    last = len(dataflow.stages)
    found.add_edges_from(((before, OUTPUT) for before in exits), hop=last, direction=dataflow.hops[last])
    return found


def _add_stage(found: networkx.DiGraph, stage: StageModel, index: int, direction: str) -> list[str]:
    """Add the nodes of a stage and the edges inside it; return the nodes by which messages enter."""
    for step in stage.steps:
        found.add_node(step.key, layer="edge", label=step.key, name=step.name, stage=index, kind=stage.kind)
    keys = [step.key for step in stage.steps]
    if stage.kind == "concurrent":
        return keys
    found.add_edges_from(pairwise(keys), hop=None, direction=direction)
    return keys[:1]
