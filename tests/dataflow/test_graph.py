"""The graph has the nodes and edges of the picture, and layers from left to right."""

import subprocess
import sys
from typing import Any

import networkx as nx
import pytest

from pratipad_nb.dataflow import graph, layout, resolve


def passing(payload: Any) -> Any:
    return payload


NAMES = dict.fromkeys("ABCDE", passing)


def graph_of(text: str, devices: tuple[str, ...] = ()) -> nx.DiGraph:
    return graph(resolve(text, NAMES), devices)


def edges(found: nx.DiGraph) -> set[tuple[str, str, int | None, str]]:
    return {(a, b, data["hop"], data["direction"]) for a, b, data in found.edges(data=True)}


def test_a_sequential_stage_is_a_chain_and_its_inner_edges_go_as_the_arrow_before_it() -> None:
    assert edges(graph_of("Push <~> [A, B] ~> Output")) == {
        ("devices", "A", 0, "<~>"),
        ("A", "B", None, "<~>"),
        ("B", "Output", 1, "~>"),
    }


def test_a_concurrent_stage_fans_out_and_joins() -> None:
    assert edges(graph_of("Push ~> A <~> {B, C} ~> {D, E} ~> Output")) == {
        ("devices", "A", 0, "~>"),
        ("A", "B", 1, "<~>"),
        ("A", "C", 1, "<~>"),
        ("B", "D", 2, "~>"),
        ("B", "E", 2, "~>"),
        ("C", "D", 2, "~>"),
        ("C", "E", 2, "~>"),
        ("D", "Output", 3, "~>"),
        ("E", "Output", 3, "~>"),
    }


def test_nodes_know_their_layer_and_what_they_are_called() -> None:
    found = graph_of("Demand ~> A ~> {A, B} ~> Output", ("room2", "room1"))
    assert found.nodes["devices"] == {"layer": "device", "label": "Demand", "devices": ["room1", "room2"]}
    assert found.nodes["A#2"] == {
        "layer": "edge",
        "label": "A#2",
        "name": "A",
        "stage": 1,
        "kind": "concurrent",
    }
    assert found.nodes["Output"] == {"layer": "cloud", "label": "Output"}
    assert found.graph["notation"] == "Demand ~> A ~> {A, B} ~> Output"


def test_a_few_devices_have_nodes_and_many_are_only_listed() -> None:
    few = graph_of("Push <~> A ~> Output", ("b", "a"))
    assert list(few) == ["device:a", "device:b", "devices", "A", "Output"]
    assert few.edges["device:a", "devices"] == {"hop": None, "direction": "<~>"}
    assert nx.shortest_path(few, "device:a", "Output") == ["device:a", "devices", "A", "Output"]
    many = graph_of("Push ~> A ~> Output", tuple(f"d{i}" for i in range(13)))
    assert [node for node in many if node.startswith("device:")] == []
    assert len(many.nodes["devices"]["devices"]) == 13


def test_the_layout_goes_from_left_to_right_and_centres_each_column() -> None:
    assert layout(graph_of("Push ~> A ~> {B, C, D} ~> [E, A] ~> Output", ("x", "y"))) == {
        "device:x": (0, -0.5),
        "device:y": (0, 0.5),
        "devices": (1, 0),
        "A": (2, 0),
        "B": (3, -1),
        "C": (3, 0),
        "D": (3, 1),
        "E": (4, 0),
        "A#2": (5, 0),
        "Output": (6, 0),
    }


def test_no_two_nodes_stand_in_one_place_and_every_edge_leads_to_the_right() -> None:
    found = graph_of("Push ~> {A, B} ~> {C, D, E} ~> [A, B] ~> {C} ~> Output", tuple("abcdefghijkl"))
    places = layout(found)
    assert len(set(places.values())) == len(found)
    assert all(places[a][0] < places[b][0] for a, b in found.edges)


def test_a_cycle_has_no_layout() -> None:
    with pytest.raises(ValueError, match="cycle"):
        layout(nx.DiGraph([("a", "b"), ("b", "a")]))


def test_networkx_is_imported_only_for_a_graph() -> None:
    code = (
        "import sys, pratipad_nb.dataflow; "
        "print(sorted({'networkx', 'asyncio', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
