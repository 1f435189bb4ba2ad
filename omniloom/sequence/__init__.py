"""Room 2: a sample, its shapes, its codes and its Plan, as data."""

from omniloom.sequence.codes import Block, Codes, Vocabulary
from omniloom.sequence.packed import Packed, Shape
from omniloom.sequence.plan import Plan
from omniloom.sequence.sample import Item, Role, Sample, Text, Turn
from omniloom.sequence.slots import IGNORE, Kind, PlannedItem

__all__ = [
    "IGNORE",
    "Block",
    "Codes",
    "Item",
    "Kind",
    "Packed",
    "Plan",
    "PlannedItem",
    "Role",
    "Sample",
    "Shape",
    "Text",
    "Turn",
    "Vocabulary",
]
