"""The instruction of every item, as the language model embeds its tokens."""

from __future__ import annotations

from torch import Tensor, nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context

__all__ = ["spoken"]


def spoken(part: nn.Module, context: Context, items: int, width: int, like: Tensor) -> list[Tensor]:
    """(N, width) rows of each item's instruction, none for an empty one, as `like` in dtype and device.

    Raises:
        ConfigError: no language model to say them.
        ShapeError: not one instruction an item, or embeddings of another width.
    """
    name = type(part).__name__
    if context.say is None:
        raise ConfigError(
            f"{name} needs a language model to embed the instruction, the context has none. "
            "Call it with Context(say=...); a composed model does."
        )
    if len(context.instructions) != items:
        raise ShapeError(
            f"{name} got {len(context.instructions)} instructions for {items} items; expected one each, "
            "empty where there is none."
        )
    said = {text: context.say(text).to(like) for text in set(context.instructions) if text}
    rows = [said[text] if text else like.new_zeros(0, width) for text in context.instructions]
    if any(tokens.dim() != 2 or tokens.shape[1] != width for tokens in rows):
        raise ShapeError(
            f"{name} got instructions as {[tuple(tokens.shape) for tokens in rows]}; expected (N, {width}). "
            "Only a part that is given the language model's width can read instructions."
        )
    return rows
