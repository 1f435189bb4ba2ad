"""Layouts: how the codes of several codebooks stand in one sequence of slots.

Source: flattening frame by frame with an offset per codebook, AnyGPT (arXiv:2402.12226); patterns are named as in
MusicGen (arXiv:2306.05284), section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from omniloom.codecs.base import Layout
from omniloom.errors import ConfigError, ShapeError
from omniloom.sequence import Codes, Shape

__all__ = ["Flattened"]


class Flattened(Layout):
    """Frame after frame, in each frame all codebooks in order; each codebook has block-local ids of its own.

    `sizes` are the entries of each codebook, wired from the codec. Slot s holds codebook s mod K of frame s div K.
    `places`: frames are counted modulo this number, and each count has ids of its own, so that an id also tells where
    it stands; a language model without positions for pictures then learns a small grid from far fewer examples.
    """

    def __init__(self, sizes: Sequence[int], *, places: int = 1) -> None:
        if not sizes or min(sizes) < 1 or places < 1:
            raise ConfigError(
                f"a layout needs codebooks with entries and one place or more, got {list(sizes)}, {places} places."
            )
        self.sizes = tuple(int(size) for size in sizes)
        self.places = places
        self.offsets = tuple(accumulate((0, *self.sizes * places)))[:-1]
        self.size = sum(self.sizes) * places

    def place(self, codes: Codes) -> list[int]:
        """K slots per frame.

        Raises:
            ShapeError: another number of codebooks, books of different lengths, or an id outside its codebook.
        """
        frames = {book.shape[0] for book in codes.books}
        if len(codes.books) != len(self.sizes) or frames != {codes.shape.len}:
            raise ShapeError(
                f"codes have books of {[book.shape[0] for book in codes.books]} ids; expected {len(self.sizes)} books "
                f"of {codes.shape.len} each. A flattened layout needs codebooks of one rate."
            )
        for index, (book, size) in enumerate(zip(codes.books, self.sizes, strict=True)):
            if int(book.min()) < 0 or int(book.max()) >= size:
                raise ShapeError(
                    f"codebook {index} has an id {int(book.min())}..{int(book.max())} outside 0..{size - 1}."
                )
        plain = torch.stack(list(codes.books), 1).flatten().tolist()
        return [self.allowed(step)[0] + code for step, code in enumerate(plain)]

    def read(self, slots: Sequence[int], shape: Shape) -> Codes:
        """The codes of `length(shape)` slots.

        Raises:
            ShapeError: another number of slots, or a slot whose id belongs to another codebook or place.
        """
        if len(slots) != self.length(shape):
            raise ShapeError(f"{len(slots)} slots for codes of {shape.len} frames; expected {self.length(shape)}.")
        plain = []
        for step, slot in enumerate(slots):
            first, stop = self.allowed(step)
            if not first <= slot < stop:
                raise ShapeError(f"slot {step} holds {slot}; expected an id in {first}..{stop - 1}. Mask by allowed().")
            plain.append(slot - first)
        frames = torch.tensor(plain, dtype=torch.int64).view(shape.len, len(self.sizes))
        return Codes(tuple(frames[:, index] for index in range(len(self.sizes))), shape)

    def length(self, shape: Shape) -> int:
        """Frames times codebooks."""
        return shape.len * len(self.sizes)

    def allowed(self, step: int) -> tuple[int, int]:
        """The ids of codebook `step` mod K at the place of frame `step` div K."""
        column = step % (len(self.sizes) * self.places)
        return self.offsets[column], self.offsets[column] + self.sizes[column % len(self.sizes)]
