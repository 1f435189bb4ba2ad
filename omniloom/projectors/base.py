"""The contract of projection alignment: rows of an encoder -> rows of the language model's width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from omniloom.errors import ShapeError
from omniloom.sequence import Packed, Shape

__all__ = ["Context", "Projector"]


@dataclass(frozen=True)
class Context:
    """What a projector may know beside its rows.

    `modality`: the row of the table that the items belong to; a part that several modalities share finds its own
    parameters of each by it. `embedding`: the language model's (V, D) embedding table. `instructions`: for each item,
    the text of its own turn; empty where there is none. `say`: text -> (N, D) embeddings of its tokens in the language
    model. `answers`: for each item, how many tokens its sample's answer has, 0 where that is unknown: outside of
    training it always is.
    """

    modality: str = ""
    embedding: Tensor | None = None
    instructions: Sequence[str] = ()
    say: Callable[[str], Tensor] | None = None
    answers: Sequence[int] = ()

    def item(self, index: int) -> Context:
        """The same for one of the items alone."""
        return replace(self, instructions=self.instructions[index : index + 1], answers=self.answers[index : index + 1])

    def pieces(self, counts: Sequence[int]) -> Context:
        """The same for the pieces of items, `counts` of each: a piece has the instruction and answer of its item.

        Raises:
            ShapeError: not one instruction or answer an item, where there are any.
        """
        for name, values in (("instructions", self.instructions), ("answers", self.answers)):
            if values and len(values) != len(counts):
                raise ShapeError(f"a context has {len(values)} {name} for {len(counts)} items; expected one each.")
        places = [place for place, count in enumerate(counts) for _ in range(count)]
        instructions = [self.instructions[place] for place in places] if self.instructions else ()
        return replace(
            self, instructions=instructions, answers=[self.answers[place] for place in places] if self.answers else ()
        )


class Projector(nn.Module, ABC):
    """(S, in_dim) packed rows -> (S', out_dim) packed rows; the signature starts with (in_dim, out_dim).

    `forward` and `out_shape` must agree for every item. `is_late`: only `forward` knows how many rows an item becomes;
    its items are projected before they are planned, and `out_shape` is not asked.
    """

    in_dim: int
    out_dim: int
    is_late: bool = False

    @abstractmethod
    def forward(self, packed: Packed, context: Context) -> Packed:
        """Projected rows of all items, in order."""

    @abstractmethod
    def out_shape(self, shape: Shape) -> Shape:
        """The shape after projection of an item of this shape. Integers only, no weights."""

    def serve(self, modality: str) -> None:
        """Told once for every modality that uses the part, in the order of the table, before weights are loaded.

        A part with parameters of its own per modality makes them here, by the modality's name, so that they can be
        selected, saved and added one modality at a time.
        """
