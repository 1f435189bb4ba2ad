"""A sample: turns of text and items. What every source gives, and every reader of media takes.

Sample("a", turns=(Turn("user", (Text("What is this?"), Item("image", payload))), Turn("assistant", (Text("a cat"),))))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from omniloom.errors import DataError

__all__ = ["Item", "Role", "Sample", "Text", "Turn"]

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = ("system", "user", "assistant")


@dataclass(frozen=True)
class Text:
    """A run of text. Special tokens written in it are plain text.

    `learn`: whether its tokens bear loss; None means as its turn does. `weight` multiplies that loss.
    """

    text: str
    learn: bool | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Item:
    """One piece of media of one modality.

    `payload` is a typed payload, or `Codes` where codes were already made. `role` None means: what the assistant
    says is "out" (codes that bear loss), everything else is "in" (encoder rows). `clip` names the recording it is of:
    neighbours of one clip are interleaved by time; `t0`, `t1` are seconds on the clip's clock. `key` is the payload's
    digest, for caches.
    """

    modality: str
    payload: Any
    role: Literal["in", "out"] | None = None
    t0: float | None = None
    t1: float | None = None
    weight: float = 1.0
    key: str | None = None
    clip: str | None = None

    def is_output_of(self, turn: Turn) -> bool:
        """Whether the item is said, as codes, rather than shown."""
        return (self.role or ("out" if turn.role == "assistant" else "in")) == "out"


@dataclass(frozen=True)
class Turn:
    """What one speaker says: parts in reading order. `learn` None means: assistants are learned, others are not."""

    role: Role
    parts: tuple[Text | Item, ...]
    learn: bool | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(f"a turn has the role {self.role!r}; expected one of {', '.join(ROLES)}.")

    @property
    def text(self) -> str:
        """All text of the turn, without its items."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True)
class Sample:
    """One conversation. `group` names the subject, voice or file it comes from, so that splits never share one."""

    id: str
    turns: tuple[Turn, ...]
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def items(self) -> Iterator[tuple[Turn, Item]]:
        """Every item with its turn, in reading order."""
        for turn in self.turns:
            for part in turn.parts:
                if isinstance(part, Item):
                    yield turn, part

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that occur, each once, in reading order."""
        return tuple(dict.fromkeys(item.modality for _, item in self.items()))

    def prompt(self) -> Sample:
        """The sample without its last assistant turn: what a model is asked."""
        if not self.turns or self.turns[-1].role != "assistant":
            return self
        return replace(self, turns=self.turns[:-1])

    def answer(self) -> Turn | None:
        """The last turn, if the assistant speaks it."""
        return self.turns[-1] if self.turns and self.turns[-1].role == "assistant" else None

    def map_items(self, change: Any) -> Sample:
        """A copy with `change(turn, item) -> Item` applied to every item."""
        turns = tuple(
            replace(turn, parts=tuple(change(turn, part) if isinstance(part, Item) else part for part in turn.parts))
            for turn in self.turns
        )
        return replace(self, turns=turns)
