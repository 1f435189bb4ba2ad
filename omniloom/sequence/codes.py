"""Discrete codes of an item, and the vocabulary that gives every code a token id.

A codec turns a payload into `Codes`; a layout places them into slots; a `Block` of the vocabulary gives the slots
ids behind the language model's own, with a begin and an end of its own. Source: embedding alignment by an extended
vocabulary, AnyGPT (arXiv:2402.12226).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from omniloom.errors import PlanError, ShapeError
from omniloom.sequence.packed import Shape

__all__ = ["Block", "Codes", "Vocabulary"]


@dataclass(frozen=True)
class Codes:
    """`books`: one (T_k,) int64 tensor per codebook. `shape`: what the codes cover, for their decoder."""

    books: tuple[Tensor, ...]
    shape: Shape

    def __post_init__(self) -> None:
        if not self.books or any(book.dim() != 1 or book.dtype.is_floating_point for book in self.books):
            raise ShapeError("codes need at least one codebook, each a 1-D integer tensor.")


@dataclass(frozen=True)
class Block:
    """The ids of one output modality: `begin`, `end`, then `size` code ids from `first` on."""

    modality: str
    begin: int
    end: int
    first: int
    size: int

    @property
    def stop(self) -> int:
        """One past the last id of the block."""
        return self.first + self.size


@dataclass(frozen=True)
class Vocabulary:
    """The language model's own `base_size` ids, then one block per output modality, in table order."""

    base_size: int
    blocks: Mapping[str, Block]

    @classmethod
    def of(cls, base_size: int, sizes: Mapping[str, int]) -> Vocabulary:
        """`sizes`: output modality -> number of code ids its layout needs."""
        blocks: dict[str, Block] = {}
        start = base_size
        for modality, size in sizes.items():
            blocks[modality] = Block(modality, start, start + 1, start + 2, size)
            start = blocks[modality].stop
        return cls(base_size, blocks)

    @property
    def size(self) -> int:
        """All ids: the base and every block."""
        return max((block.stop for block in self.blocks.values()), default=self.base_size)

    def block_of(self, token_id: int) -> Block | None:
        """The block an id lies in; None for the language model's own ids."""
        for block in self.blocks.values():
            if block.begin <= token_id < block.stop:
                return block
        if token_id >= self.size or token_id < 0:
            raise PlanError(f"token id {token_id} is outside the vocabulary of {self.size} ids.")
        return None
