"""What a projector may know beside its rows: of the items, their turns, and the language model they are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from omniloom.errors import ShapeError

__all__ = ["Context"]


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
