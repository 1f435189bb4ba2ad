"""Room 3: from an encoder's rows to rows of the language model's width."""

from omniloom.projectors.base import Context, Projector
from omniloom.projectors.fusing import Fuser, Group

__all__ = ["Context", "Fuser", "Group", "Projector"]
