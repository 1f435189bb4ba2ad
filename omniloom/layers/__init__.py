"""Room 2: building blocks that several parts share."""

from omniloom.layers.attention import Attention, Block
from omniloom.layers.positions import grid_positions, sinusoids
from omniloom.layers.ragged import by_shape, halved, pad_rows

__all__ = ["Attention", "Block", "by_shape", "grid_positions", "halved", "pad_rows", "sinusoids"]
