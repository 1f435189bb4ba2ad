"""Room 2: a sample, its shapes, its codes and its Plan, as data."""

from omniloom.sequence.codes import Block, Codes, Vocabulary
from omniloom.sequence.packed import Packed, Shape
from omniloom.sequence.plan import IGNORE, Kind, Plan, PlannedItem
from omniloom.sequence.sample import Item, Role, Sample, Text, Turn

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
