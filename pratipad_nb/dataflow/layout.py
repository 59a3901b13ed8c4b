"""The places of a dataflow's nodes: in columns from left to right, each centred.

Owns places in units of columns and rows, for the live picture and the static picture alike, so that both look
the same. Sizes in pixels are for the module that draws. Needs nothing but the graph's own methods.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx

__all__ = ["layout"]


def layout(graph: networkx.DiGraph) -> dict[str, tuple[int, float]]:
    """Return column and row of every node.

    A node stands one column to the right of the rightmost node that leads to it. The nodes of a column are
    stacked around row 0 in the graph's order: one node stands at 0, two nodes at −0.5 and 0.5, three at −1, 0
    and 1. Rows count downward. The same graph gives the same places.

    Raises
    ------
    ValueError
        If the graph has a cycle, which no dataflow has.
    """
    columns = _columns(graph)
    stacks: defaultdict[int, list[str]] = defaultdict(list)
    for node in graph:
        stacks[columns[node]].append(node)
    places = {
        node: (column, row - (len(stack) - 1) / 2)
        for column, stack in stacks.items()
        for row, node in enumerate(stack)
    }
    return {node: places[node] for node in graph}


def _columns(graph: networkx.DiGraph) -> dict[str, int]:
    """Return the length of the longest path to every node.

    A node joins `ready` once all nodes that lead to it are ready, so its column is final by then: the loop is
    a topological sort. Nodes of a cycle never become ready.
    """
    waiting = {node: graph.in_degree(node) for node in graph}
    columns = {node: 0 for node, count in waiting.items() if not count}
    ready = list(columns)
    for node in ready:
        for successor in graph.successors(node):
            columns[successor] = max(columns.get(successor, 0), columns[node] + 1)
            waiting[successor] -= 1
            if not waiting[successor]:
                ready.append(successor)
    if len(ready) < len(waiting):
        raise ValueError("a graph with a cycle has no layers")
    return columns
