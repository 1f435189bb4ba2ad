"""The composed graph as a drawing: one row per modality, one column per kind of part, arrows left to right.

What several modalities share (the language model, a shared projector) spans the rows of its neighbours. Numbered marks
in a box are the stages: filled where the part trains, hollow where it is frozen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from omniloom.errors import DataError
from omniloom.eval.report_data import GraphEdge, GraphNode
from omniloom.eval.svg import COLOURS, number

__all__ = ["count", "draw_graph"]

COLUMNS: tuple[tuple[str, ...], ...] = (
    ("payload",),
    ("processor",),
    ("encoder",),
    ("projector",),
    ("fuser",),
    ("backbone", "adapter", "vocabulary"),
    ("generator",),
    ("codec",),
    ("output",),
)
TITLES = ("input", "processor", "encoder", "projector", "fuser", "language model", "generator", "codec", "output")
CORE = 5  # the language model's column; rows left and right of it are counted apart
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, HEAD = 134, 70, 28, 12, 16, 26


@dataclass
class _Box:
    node: GraphNode
    column: int
    x: float = 0.0
    first: float = 0.0  # rows, from 0
    last: float = 0.0
    shift: float = 0.0

    @property
    def top(self) -> float:
        return HEAD + MARGIN + (self.first + self.shift) * (HEIGHT + GAP_Y)

    @property
    def height(self) -> float:
        return (self.last - self.first) * (HEIGHT + GAP_Y) + HEIGHT

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


def count(parameters: int) -> str:
    """1234567 -> "1.23 M", with a space that does not break."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g}\u00a0{unit}"
    return str(parameters)


def draw_graph(nodes: Sequence[GraphNode], edges: Sequence[GraphEdge], stages: Sequence[str]) -> Markup:
    """The drawing as SVG text.

    Raises:
        DataError: an edge names a node that is not there, or a node has an unknown kind.
    """
    boxes = _place(nodes, edges)
    used = sorted({box.column for box in boxes.values()})
    for box in boxes.values():
        box.x = MARGIN + used.index(box.column) * (WIDTH + GAP_X)
    width = MARGIN * 2 + len(used) * WIDTH + (len(used) - 1) * GAP_X
    height = max(box.top + box.height for box in boxes.values()) + MARGIN
    lanes = list(dict.fromkeys(node.lane for node in nodes if node.lane is not None))
    out = [
        f'<svg class="graph" viewBox="0 0 {width} {number(height)}" style="--w:{width}px" role="img" '
        'aria-label="the composed model, from inputs to outputs">',
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 1L7 4L0 7Z"/></marker>',
    ]
    out += [
        f'<text class="col" x="{MARGIN + position * (WIDTH + GAP_X) + WIDTH / 2:g}" y="18" text-anchor="middle">'
        f"{TITLES[column]}</text>"
        for position, column in enumerate(used)
    ]
    out += [_edge(boxes[edge.source], boxes[edge.target], edge.label) for edge in edges]
    out += [_box(box, stages, lanes) for box in boxes.values()]
    return Markup("".join([*out, "</svg>"]))


def _place(nodes: Sequence[GraphNode], edges: Sequence[GraphEdge]) -> dict[str, _Box]:
    column_of = {kind: column for column, kinds in enumerate(COLUMNS) for kind in kinds}
    for node in nodes:
        if node.kind not in column_of:
            known = ", ".join(column_of)
            raise DataError(f"graph node {node.id!r} has the kind {node.kind!r}; expected one of {known}.")
    boxes = {node.id: _Box(node, column_of[node.kind]) for node in nodes}
    for edge in edges:
        for end in (edge.source, edge.target):
            if end not in boxes:
                raise DataError(f"the graph has an edge to {end!r}, which is no node. Nodes: {', '.join(boxes)}.")
    sides = [[box for box in boxes.values() if box.column < CORE], [box for box in boxes.values() if box.column > CORE]]
    heights = [_rows(side, boxes, edges) for side in sides]
    rows = max(1, *heights)
    for side, used in zip(sides, heights, strict=True):
        for box in side:
            box.shift = (rows - used) / 2
    core = [box for box in boxes.values() if box.column == CORE]
    below = rows
    for box in core:
        if box.node.kind == "backbone":
            # Beside the language model stand its adapters; it keeps at least two rows to look like the trunk it is.
            box.first, box.last = 0, max(rows - 1, 1)
            below = max(below, int(box.last) + 1)
    for box in core:
        if box.node.kind != "backbone":
            box.first = box.last = below
            below += 1
    return boxes


def _rows(side: list[_Box], boxes: dict[str, _Box], edges: Sequence[GraphEdge]) -> int:
    """Give every box of a side its rows; the number of rows used."""
    stacks = Counter((box.node.lane, box.column) for box in side if box.node.lane)
    lanes: dict[str | None, int] = {}
    rows = 0
    for name in dict.fromkeys(lane for lane, _ in stacks):  # as high as its longest chain in one column
        lanes[name] = rows
        rows += max(height for (lane, _), height in stacks.items() if lane == name)
    taken: set[tuple[int, int]] = set()
    for box in sorted(side, key=lambda box: box.node.lane is None):
        if box.node.lane is not None:
            first = last = lanes[box.node.lane]
        else:
            ends = [edge.source if edge.target == box.node.id else edge.target for edge in edges
                    if box.node.id in (edge.source, edge.target)]  # fmt: skip
            near = [lanes[lane] for end in ends if (lane := boxes[end].node.lane) in lanes]
            first, last = (min(near), max(near)) if near else (rows, rows)
        if any((box.column, row) in taken for row in range(first, last + 1)):
            first = last = next(row for row in range(rows + 1) if (box.column, row) not in taken and row >= first)
        taken |= {(box.column, row) for row in range(first, last + 1)}
        rows = max(rows, last + 1)
        box.first, box.last = first, last
    return rows


def _edge(a: _Box, b: _Box, label: str) -> str:
    title = f"<title>{escape(label)}</title>" if label else ""
    if a.column == b.column and min(abs(a.top - b.top - b.height), abs(b.top - a.top - a.height)) > GAP_Y + 1:
        # Others stand between them: past those, on the left.
        left, bend = number(a.x), number(a.x - GAP_X / 2)
        first, last, half_way = number(a.middle), number(b.middle), number((a.middle + b.middle) / 2)
        curve = f"M{left} {first}C{bend} {first} {bend} {first} {bend} {half_way}S{bend} {last} {left} {last}"
        return f'<path class="edge" d="{curve}" marker-end="url(#arrow)">{title}</path>'
    if a.column == b.column:
        x = number(a.x + WIDTH / 2)
        y1, y2 = (a.top, b.top + b.height) if a.top > b.top else (a.top + a.height, b.top)
        return f'<path class="edge" d="M{x} {number(y1)}V{number(y2)}" marker-end="url(#arrow)">{title}</path>'
    # A tall box is met at the height of the other end, so that arrows stay level.
    y1 = _clamp(b.middle, a) if a.height > b.height else a.middle
    y2 = _clamp(a.middle, b) if b.height > a.height else b.middle
    x1, x2 = (a.x + WIDTH, b.x) if a.x < b.x else (a.x, b.x + WIDTH)
    half = (x1 + x2) / 2
    start, end = f"{number(x1)} {number(y1)}", f"{number(x2)} {number(y2)}"
    curve = f"M{start}C{number(half)} {number(y1)} {number(half)} {number(y2)} {end}"
    return f'<path class="edge" d="{curve}" marker-end="url(#arrow)">{title}</path>'


def _clamp(y: float, box: _Box) -> float:
    return min(max(y, box.top + 12), box.top + box.height - 12)


def _box(box: _Box, stages: Sequence[str], lanes: list[str]) -> str:
    node = box.node
    kind = "core" if node.kind == "backbone" else "io" if node.kind in ("payload", "output") else "part"
    if node.trained:
        kind += " trained"
    tip = f"{node.label}: {node.parameters:,} parameters" if node.parameters else node.label
    x, top, middle = box.x, box.top, box.middle
    out = [
        f'<g class="box {kind}"><title>{escape(tip)}</title>'
        f'<rect x="{number(x)}" y="{number(top)}" width="{WIDTH}" height="{number(box.height)}" rx="8"/>'
    ]
    if node.lane is not None:
        colour = lanes.index(node.lane) % COLOURS
        out.append(
            f'<rect class="lane" style="fill:var(--c{colour})" x="{number(x)}" y="{number(top + 8)}" width="3" '
            f'height="{number(box.height - 16)}"/>'
        )
    texts = [("name", node.label)]
    if node.detail:
        texts.append(("sub", node.detail))
    if node.parameters:
        texts.append(("sub", f"{count(node.parameters)} parameters"))
    marks = stages if node.parameters else ()
    lines = len(texts) + (1 if marks else 0)
    y = middle - (lines - 1) * 7
    for style, text in texts:
        out.append(
            f'<text class="{style}" x="{number(x + WIDTH / 2)}" y="{number(y)}" dy=".35em" text-anchor="middle">'
            f"{escape(_fit(text, 16 if style == 'name' else 21))}</text>"
        )
        y += 14
    for position, stage in enumerate(marks):
        cx = x + WIDTH / 2 + (position - (len(marks) - 1) / 2) * 16
        state = "on" if stage in node.trained else "off"
        what = f"trains {node.trained[stage]:,} parameters" if stage in node.trained else "frozen"
        out.append(
            f'<g class="stage {state}"><title>stage {escape(stage)}: {what}</title>'
            f'<circle cx="{number(cx)}" cy="{number(y)}" r="6"/>'
            f'<text x="{number(cx)}" y="{number(y)}" dy=".35em" text-anchor="middle">{position + 1}</text></g>'
        )
    return "".join([*out, "</g>"])


def _fit(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
