"""What an ordinary item of a kind becomes on its way in: for people, where no item of their own is at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from omniloom.errors import OmniloomError
from omniloom.media import Audio, Image, Map, Points, Series, Video
from omniloom.sequence import Shape

__all__ = ["ordinary_item"]


def ordinary_item(kind: str, processor: Any, encoder: Any) -> tuple[str, Shape | None, Shape | None]:
    """What the item is, its shape behind the processor, and behind the encoder.

    Of a kind that is not known here, or where the processor takes others only, the smallest that the encoder takes;
    None where its shape cannot be told.
    """
    smallest = encoder.minimal_raw()
    width = int(smallest.shape[-1]) if hasattr(smallest, "shape") else 0  # a bundle has no width of its own
    made: dict[str, tuple[str, Callable[[], Any]]] = {
        "image": ("64 x 48 px", lambda: Image(np.zeros((48, 64, 3), np.uint8))),
        "audio": ("1 s", lambda: Audio(np.zeros((1, 16_000), np.float32), 16_000)),
        "video": ("8 frames", lambda: Video(np.zeros((8, 48, 64, 3), np.uint8), np.arange(8) / 8.0)),
        "series": ("128 steps", lambda: Series(np.zeros((128, width), np.float32))),
        "map": ("64 x 48 px", lambda: Map(np.zeros((1, 48, 64), np.float32))),
        "points": (
            "256 points",
            lambda: Points(np.zeros((256, 3), np.float32), np.zeros((256, max(width - 3, 0)), np.float32)),
        ),
    }
    if kind in made:
        what, make = made[kind]
        try:
            taken = processor.shape(processor(make(), None))
            return what, taken, encoder.out_shape(taken)
        except OmniloomError:
            pass  # other lengths or channels are taken; the smallest item is certain
    try:
        taken = processor.shape(smallest)
        return "smallest item", taken, encoder.out_shape(taken)
    except (OmniloomError, IndexError):  # a tower of pictures behind a processor of clips has no smallest clip
        return "an item", None, None
