"""The composed graph, derived from the table of modalities: the same wiring that training, decoding and reports use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from omniloom.config import RunConfig
from omniloom.encoders.ordinary import ordinary_item
from omniloom.model.omni import OmniModel
from omniloom.planner import FuserRow, InputPath, ModalityRow

__all__ = ["GraphEdge", "GraphNode", "NodeKind", "graph_of", "mermaid"]

NodeKind = Literal[
    "payload",
    "processor",
    "encoder",
    "projector",
    "fuser",
    "backbone",
    "adapter",
    "vocabulary",
    "generator",
    "codec",
    "output",
]


@dataclass(frozen=True)
class GraphNode:
    """A box of the composed graph. `lane`: the modality whose row it lies in; None for what several share.

    `detail` is one short line, such as "16 rows of 128"; `trained` maps a stage's name to the number of parameters
    that train in it, and a stage that is absent leaves the part frozen.
    """

    id: str
    label: str
    kind: NodeKind
    lane: str | None = None
    detail: str = ""
    parameters: int = 0
    trained: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphEdge:
    """An arrow from one box to another, by their ids."""

    source: str
    target: str
    label: str = ""


def graph_of(model: OmniModel, config: RunConfig) -> tuple[list[GraphNode], list[GraphEdge]]:
    """Boxes and arrows of a model, with the parameters each box has and how many of them train in each stage."""
    return _Drawing(model, config).draw()


def mermaid(nodes: Sequence[GraphNode], edges: Sequence[GraphEdge]) -> str:
    """The graph as Mermaid text; names of parts only, so it can be pasted anywhere."""
    number = {node.id: f"n{index}" for index, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    for node in nodes:
        text = node.label + (f"<br/>{node.detail}" if node.detail else "")
        lines.append(f'  {number[node.id]}["{text}"]')
    for edge in edges:
        arrow = f'-- "{edge.label}" -->' if edge.label else "-->"
        lines.append(f"  {number[edge.source]} {arrow} {number[edge.target]}")
    trained = ",".join(number[node.id] for node in nodes if node.trained)
    if trained:
        lines += ["  classDef trained stroke-width:3px", f"  class {trained} trained"]
    return "\n".join(lines) + "\n"


class _Drawing:
    def __init__(self, model: OmniModel, config: RunConfig) -> None:
        self.model, self.config = model, config
        self.nodes: dict[str, GraphNode] = {}
        self.edges: list[GraphEdge] = []
        self.sizes = {
            name: sum(value.numel() for value in values.values()) for name, values in model.components().items()
        }
        self.trained: dict[str, dict[str, int]] = {}
        for stage in config.stages:
            for name, value in model.select(stage.train).items():
                counts = self.trained.setdefault(name.partition(".")[0], {})
                counts[stage.name] = counts.get(stage.name, 0) + value.numel()

    def draw(self) -> tuple[list[GraphNode], list[GraphEdge]]:
        users: dict[str, int] = {}
        for first, chain in (*self.model.inputs.values(), *self.model.fused.values()):
            for name in {first, *chain}:
                users[name] = users.get(name, 0) + 1
        self.shared = {name for name, count in users.items() if count > 1}
        self._component(
            "backbone",
            "backbone",
            self.config.backbone.id.rpartition("/")[2],
            None,
            f"width {self.model.backbone.width}",
        )
        for name, row in self.model.rows.items():
            if row.input is not None:
                self._input(name, row, row.input)
        for fuser in self.model.planner.fusers:
            self._fuser(fuser)
        for name, row in self.model.rows.items():
            if row.split:
                self._node(f"in/{name}", name, "payload", name, row.payload_kind)
                for target in row.split:
                    self._arrow(f"in/{name}", f"in/{target}")
        for name, adapter in self.model.adapters.items():
            self._component(name, "adapter", name, None, self._class(adapter))
            for modality in adapter.inputs:
                self._arrow(self._end(modality), name)
            self._arrow(name, "backbone")
        self._node("out/text", "text", "output", "text")
        self._arrow("backbone", "out/text")
        if self.model.vocab is not None:
            blocks = self.model.vocabulary.size - self.model.vocabulary.base_size
            self._component("vocab", "vocabulary", "vocabulary rows", None, f"{blocks} ids")
            self._arrow("vocab", "backbone")
        for name, row in self.model.rows.items():
            if row.output is not None:
                self._component(
                    f"{name}/codec", "codec", self._class(row.output.codec), name, f"{row.output.block.size} codes"
                )
                self._node(f"out/{name}", name, "output", name, row.payload_kind)
                self._arrow("backbone", f"{name}/codec", "codes")
                self._arrow(f"{name}/codec", f"out/{name}")
        for name, tool in self.model.tools.items():
            self._node(f"{name}/generator", self._class(tool), "generator", name)
            self._node(f"out/{name}", name, "output", name, self.model.rows[name].payload_kind)
            self._arrow("backbone", f"{name}/generator", "text")
            self._arrow(f"{name}/generator", f"out/{name}")
        return list(self.nodes.values()), self.edges

    def _input(self, name: str, row: ModalityRow, path: InputPath) -> None:
        encoder_name, chain = self.model.inputs[name]
        self._node(f"in/{name}", name, "payload", name, row.payload_kind)
        self._node(f"{name}/processor", self._class(path.processor), "processor", name)
        self._arrow(f"in/{name}", f"{name}/processor")
        encoder: Any = self.model.parts[encoder_name]
        _, _, shape = ordinary_item(row.payload_kind, path.processor, encoder)
        self._component(encoder_name, "encoder", self._class(encoder), name, f"rows of {encoder.out_dim}")
        self._arrow(f"{name}/processor", encoder_name)
        previous = encoder_name
        before = None if shape is None else shape.len
        for component, (part, known) in zip(chain, path.told(shape), strict=True):
            changes = known is not None and known.len != before
            detail = f"{known.len} rows of {part.out_dim}" if known and changes else f"rows of {part.out_dim}"
            before = known.len if known is not None else None
            self._component(component, "projector", self._class(part), name, detail)
            self._arrow(previous, component)
            previous = component
        is_source = any(
            name in fuser.inputs and name not in fuser.keep and fuser.has_rows for fuser in self.model.planner.fusers
        )
        if path.insert != "inject" and not is_source:
            self._arrow(previous, "backbone")

    def _fuser(self, row: FuserRow) -> None:
        component, chain = self.model.fused[row.name]
        previous, part = component, row.fuser
        self._component(
            component, "fuser", self._class(part), None, f"rows of {part.out_dim}" if row.has_rows else "a loss"
        )
        for modality in row.inputs:
            self._arrow(self._end(modality), component)
        for link in chain:
            self._component(link, "fuser", self._class(self.model.parts[link]), None)
            self._arrow(previous, link)
            previous = link
        if row.has_rows and row.insert != "inject":
            self._arrow(previous, "backbone")

    def _end(self, name: str) -> str:
        """The box that the rows of a modality or a fuser come out of."""
        first, chain = self.model.fused[name] if name in self.model.fused else self.model.inputs[name]
        return chain[-1] if chain else first

    def _component(self, name: str, kind: NodeKind, label: str, lane: str | None, detail: str = "") -> None:
        lane = None if name in self.shared else lane
        if name not in self.nodes:
            self.nodes[name] = GraphNode(
                name, label, kind, lane, detail, self.sizes.get(name, 0), self.trained.get(name, {})
            )

    def _node(self, name: str, label: str, kind: NodeKind, lane: str | None, detail: str = "") -> None:
        self.nodes[name] = GraphNode(name, label, kind, lane, detail)

    def _arrow(self, source: str, target: str, label: str = "") -> None:
        edge = GraphEdge(source, target, label)
        if edge not in self.edges:
            self.edges.append(edge)

    @staticmethod
    def _class(part: Any) -> str:
        return type(part).__name__
