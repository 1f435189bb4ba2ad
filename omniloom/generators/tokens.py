"""Generation by tokens: what a row of an answer may say next, and what it has said.

An answer is text until it begins a block of codes; inside a block the layout says which ids may stand in each slot
and how many there are; then the block ends and text goes on. Source: modality-token-based generation with
constrained sampling per modality, AnyGPT (arXiv:2402.12226).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from omniloom.sequence import Block, Codes, Shape, Vocabulary

__all__ = ["CodeOutput", "TokenStream"]


@dataclass(frozen=True)
class CodeOutput:
    """One learned output by codes: its block of ids, its layout, the shape of its codes, and codes -> payload."""

    block: Block
    layout: Any
    shape: Shape
    decode: Callable[[Codes], Any]


@dataclass
class TokenStream:
    """One row of a decode loop. `parts` collects ("text", ids) and (modality, block-local ids) in reading order.

    `wanted`: the outputs this answer may begin; None allows every one. `required`: the answer must begin with this
    output at once.
    """

    vocabulary: Vocabulary
    outputs: Mapping[str, CodeOutput]
    stop: frozenset[int]
    wanted: frozenset[str] | None = None
    required: str | None = None
    parts: list[tuple[str, list[int]]] = field(default_factory=list)
    inside: str | None = None
    is_done: bool = False
    finish: str = "length"

    def allow(self, logits: Tensor) -> Tensor:
        """(V,) logits -> the same with what may not come next at minus infinity."""
        allowed = torch.zeros_like(logits, dtype=torch.bool)
        if self.inside is not None:
            output = self.outputs[self.inside]
            step = len(self.parts[-1][1])
            if step == output.layout.length(output.shape):
                allowed[output.block.end] = True
            else:
                low, high = output.layout.allowed(step)
                allowed[output.block.first + low : output.block.first + high] = True
        elif self.required is not None and not self.parts:
            allowed[self.outputs[self.required].block.begin] = True
        else:
            allowed[: self.vocabulary.base_size] = True
            for name, output in self.outputs.items():
                if self.wanted is None or name in self.wanted:
                    allowed[output.block.begin] = True
        return logits.masked_fill(~allowed, float("-inf"))

    @property
    def needs_mask(self) -> bool:
        """Whether `allow` can change anything: without code blocks every id may follow."""
        return bool(self.outputs)

    def push(self, token: int) -> None:
        """Take the chosen id."""
        if token in self.stop and self.inside is None:
            self.is_done, self.finish = True, "stop"
            return
        block = self.vocabulary.block_of(token)
        if block is None:
            if not self.parts or self.parts[-1][0] != "text":
                self.parts.append(("text", []))
            self.parts[-1][1].append(token)
        elif token == block.begin:
            self.inside = block.modality
            self.parts.append((block.modality, []))
        elif token == block.end:
            self.inside = None
        else:
            self.parts[-1][1].append(token - block.first)

    def route_of(self, token: int, modalities: Sequence[str]) -> int:
        """The route of a slot that holds this id, as plans have it: 1 + modality index for a code, 0 for all else, the
        begin and end of a block too."""
        block = self.vocabulary.block_of(token)
        return 0 if block is None or token in (block.begin, block.end) else 1 + modalities.index(block.modality)
