"""Room 2: building blocks that several parts share."""

from omniloom.layers.attention import Adapters, Attention, Block
from omniloom.layers.positions import grid_positions, sinusoids
from omniloom.layers.ragged import by_shape, halved, in_stacks, pad_rows
from omniloom.layers.swiglu import SwiGLU

__all__ = [
    "Adapters",
    "Attention",
    "Block",
    "SwiGLU",
    "by_shape",
    "grid_positions",
    "halved",
    "in_stacks",
    "pad_rows",
    "sinusoids",
]
