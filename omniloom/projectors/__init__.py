"""Room 3: from an encoder's rows to rows of the language model's width."""

from omniloom.projectors.base import Context, Projector

__all__ = ["Context", "Projector"]
