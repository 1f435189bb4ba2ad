"""The contracts of discrete encoding: a codec makes codes of a payload and a payload of codes; a layout places them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from omniloom.sequence import Codes, Shape

__all__ = ["Codec", "Layout"]


class Codec(nn.Module, ABC):
    """Payload <-> codes. `sizes`: entries of each codebook. `payload_kind`: the payload it reads and makes.

    A codec trains alone, as a stage `of:` its component: `loss(payloads)` gives {name: (sum, count)}.
    """

    payload_kind: str
    sizes: tuple[int, ...]

    @abstractmethod
    def encode(self, payload: Any) -> Codes:
        """The codes of one payload, without gradient."""

    @abstractmethod
    def decode(self, codes: Codes) -> Any:
        """A payload from codes."""

    @abstractmethod
    def code_shape(self) -> Shape | None:
        """The shape of the codes of any payload, if it is always the same; None otherwise."""

    @abstractmethod
    def loss(self, payloads: Sequence[Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """The codec's own training losses as {name: (sum, count)}."""


class Layout(ABC):
    """Codes of several codebooks <-> one sequence of block-local ids; wired with the codebooks' `sizes`.

    `size`: how many block-local ids they need.
    """

    sizes: tuple[int, ...]
    size: int

    @abstractmethod
    def place(self, codes: Codes) -> list[int]:
        """The block-local ids of the codes, in slot order."""

    @abstractmethod
    def read(self, slots: Sequence[int], shape: Shape) -> Codes:
        """The codes that a sequence of slots stands for."""

    @abstractmethod
    def length(self, shape: Shape) -> int:
        """How many slots codes of this shape take."""

    @abstractmethod
    def allowed(self, step: int) -> tuple[int, int]:
        """The half-open range of block-local ids that may stand in slot `step`."""
