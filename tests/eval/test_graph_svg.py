import re

import pytest

from omniloom.errors import DataError
from omniloom.eval import GraphEdge, GraphNode
from omniloom.eval.graph_svg import count, draw_graph

from .report_example import graph


def rectangles(drawing: str) -> dict[str, tuple[float, float, float, float]]:
    found = re.findall(
        r'<title>([^<:]*)[^<]*</title><rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" rx', drawing
    )
    return {name: (float(x), float(y), float(w), float(h)) for name, x, y, w, h in found}


def test_boxes_never_overlap() -> None:
    nodes, edges = graph()
    numbered = [GraphNode(n.id, n.id, n.kind, n.lane, n.detail, n.parameters, n.trained) for n in nodes]
    boxes = list(rectangles(draw_graph(numbered, edges, ["align"])).values())
    assert len(boxes) == len(nodes)
    for k, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[k + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_a_chain_makes_the_row_of_its_modality_high_and_arrows_stay_level() -> None:
    nodes = []
    for lane in ("a", "b"):
        nodes += [GraphNode(f"{lane}/{part}", f"{lane} {part}", "projector", lane) for part in ("pool", "mlp")]
        nodes.append(GraphNode(lane, lane, "encoder", lane))
    boxes = rectangles(draw_graph(nodes, [GraphEdge("a", "a/pool"), GraphEdge("b", "b/pool")], []))
    assert boxes["a pool"][1] == boxes["a"][1] and boxes["b pool"][1] == boxes["b"][1]
    assert boxes["a"][1] < boxes["a mlp"][1] < boxes["b"][1] < boxes["b mlp"][1]


def test_a_shared_projector_spans_the_rows_of_its_modalities() -> None:
    nodes = [GraphNode(lane, lane, "encoder", lane) for lane in ("a", "b", "c")]
    nodes += [GraphNode("p", "shared", "projector"), GraphNode("l", "llm", "backbone")]
    edges = [GraphEdge("a", "p"), GraphEdge("b", "p"), GraphEdge("p", "l"), GraphEdge("c", "l")]
    boxes = rectangles(draw_graph(nodes, edges, []))
    assert boxes["shared"][1] == boxes["a"][1]
    assert boxes["shared"][1] + boxes["shared"][3] == boxes["b"][1] + boxes["b"][3]


def test_every_stage_is_marked_as_training_or_frozen() -> None:
    node = GraphNode("e", "vit", "encoder", "image", parameters=1000, trained={"align": 1000})
    drawing = draw_graph([node], [], ["align", "instruct"])
    assert "stage align: trains 1,000 parameters" in drawing and "stage instruct: frozen" in drawing
    assert drawing.count('class="stage on"') == drawing.count('class="stage off"') == 1


def test_names_are_escaped() -> None:
    drawing = draw_graph([GraphNode("x", "<b>&", "encoder", "<i>")], [], [])
    assert "&lt;b&gt;&amp;" in drawing and "<b>" not in drawing


def test_a_graph_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="'nobody'"):
        draw_graph([GraphNode("x", "x", "encoder")], [GraphEdge("x", "nobody")], [])
    with pytest.raises(DataError, match="kind"):
        draw_graph([GraphNode("x", "x", "talker")], [], [])  # type: ignore[arg-type]


def test_counts_are_short() -> None:
    assert [count(n) for n in (7, 1200, 134_515_008, 2_500_000_000)] == ["7", "1.2\xa0k", "135\xa0M", "2.5\xa0B"]
