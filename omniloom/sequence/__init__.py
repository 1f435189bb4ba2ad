"""Room 2: a sample, its shapes, its codes and its Plan, as data."""

from omniloom.sequence.codes import Block, Codes, Vocabulary
from omniloom.sequence.context import Context
from omniloom.sequence.packed import Auxiliary, Packed, Projected, Shape
from omniloom.sequence.plan import Plan
from omniloom.sequence.raws import Bundle, Raw, same_raw
from omniloom.sequence.sample import Item, Role, Sample, Text, Turn
from omniloom.sequence.slots import IGNORE, Kind, PlannedItem

__all__ = [
    "IGNORE",
    "Auxiliary",
    "Block",
    "Bundle",
    "Codes",
    "Context",
    "Item",
    "Kind",
    "Packed",
    "Plan",
    "PlannedItem",
    "Projected",
    "Raw",
    "Role",
    "Sample",
    "Shape",
    "Text",
    "Turn",
    "Vocabulary",
    "same_raw",
]
