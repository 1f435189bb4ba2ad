"""The graph is derived from the table: what is read inside the layers, split or fused has its arrows."""

from __future__ import annotations

from omniloom.model import compose
from omniloom.model.graph import graph_of, mermaid
from tests.examples import config_of, example_values


def arrows(folder, **changes):
    config = config_of(folder, **changes)
    model = compose(config, base=folder)
    nodes, edges = graph_of(model, config)
    assert mermaid(nodes, edges).startswith("flowchart LR")
    return {(edge.source, edge.target) for edge in edges}


def test_rows_that_are_read_inside_the_layers_go_to_their_adapter_and_not_to_the_input(omni_folder):
    run = example_values()["modalities"]
    run["image"]["in"]["insert"] = "inject"
    adapters = {"look": {"type": "cross_attention", "inputs": ["image"], "every": 1}}
    found = arrows(omni_folder, modalities=run, adapters=adapters)
    assert ("image/projector", "look") in found and ("look", "backbone") in found
    assert ("image/projector", "backbone") not in found and ("sound/projector2", "backbone") in found


def test_a_modality_that_splits_points_at_what_it_becomes(omni_folder):
    run = example_values()["modalities"]
    run["clip"] = {"payload": "video", "split": ["image", "sound"]}
    found = arrows(omni_folder, modalities=run)
    assert {("in/clip", "in/image"), ("in/clip", "in/sound")} <= found


def test_a_projector_whose_example_is_too_small_is_drawn_without_its_rows(omni_folder):
    """The smallest picture of the encoder is one cell, which cannot be merged two by two."""
    run = example_values()["modalities"]
    run["image"]["in"]["projector"] = ["merge"]
    found = arrows(omni_folder, modalities=run)
    assert ("image/encoder", "image/projector1") in found
