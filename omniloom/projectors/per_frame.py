"""Frame by frame: every frame of a clip, and every tile of a picture, is an item of its own to an inner projector.

Source: Video-LLaMA (arXiv:2306.02858), where a Q-Former for pictures reads each frame and one for clips the queries of
all frames; X-LLM (arXiv:2305.04160), FAVOR (arXiv:2310.05863) and X-InstructBLIP (arXiv:2311.18799) with queries of
each frame; the resampler over each tile of MiniCPM-V (arXiv:2408.01800).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.grids import require_grid
from omniloom.projectors.own import Own
from omniloom.projectors.width import require_width
from omniloom.registry import build, untrained
from omniloom.sequence import Packed, Shape

__all__ = ["PerFrame"]


class PerFrame(Projector):
    """(S, in_dim) grids of frames to what `projector` gives of each frame alone, one frame behind the other.

    The result is a grid of as many frames, so that positions of frames, or queries over all of them, can follow. To
    the inner projector a frame begins at zero seconds, as a picture does, and has the instruction and the answer of its
    item. Its parameters are at `inner`, those of a modality's own at `inner.own.NAME`.

    Args:
        projector: the spec of a projector that is not late.
        weights: False builds a projector that would be pretrained with random weights.
    Raises:
        ConfigError: a late projector, or what the projector itself refuses.
    """

    def __init__(self, in_dim: int, out_dim: int, *, projector: str | Mapping[str, Any], weights: bool = True) -> None:
        super().__init__()
        self.projector, self.weights = projector, weights
        spec = projector if weights else untrained("projectors", projector)
        self.inner: Projector = build("projectors", spec, in_dim, out_dim)
        if getattr(self.inner, "is_late", False):
            raise ConfigError(
                f"PerFrame got the late projector {projector!r}, which itself decides how many rows a frame becomes; "
                "frames of unequal rows are no grid. Put it into the chain by itself, where it reads whole items."
            )
        self.in_dim, self.out_dim = in_dim, self.inner.out_dim

    @property
    def own(self) -> Own | None:
        """What the inner projector has of each modality's own."""
        return getattr(self.inner, "own", None)

    @property
    def id(self) -> str | None:
        """Where the inner projector's weights are published; None if they began at random."""
        return getattr(self.inner, "id", None) if getattr(self.inner, "weights", True) else None

    def serve(self, modality: str) -> None:
        """Told to the inner projector."""
        self.inner.serve(modality)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Rows of every frame of every item, in order, with the losses of the inner projector.

        Raises:
            ShapeError: an item without a grid, frames that become unequal numbers of rows, or not one instruction or
                answer an item.
        """
        require_width(self, packed)
        frames = [self._frames(shape) for shape in packed.shapes]
        # The rows of an item are those of its frames in order already, and so are the rows of its taps.
        alone = Packed(packed.x, tuple(frame for item in frames for frame in item), taps=packed.taps)
        out: Packed = self.inner(alone, context.pieces([len(item) for item in frames]))
        made = iter(out.shapes)
        shapes = (
            self._joined(shape, list(islice(made, len(item))))
            for shape, item in zip(packed.shapes, frames, strict=True)
        )
        return replace(out, shapes=tuple(shapes), pooled=None)

    def out_shape(self, shape: Shape) -> Shape:
        """A grid of as many frames: of the inner projector's lines and cells, or one line of a frame's rows.

        Rows have the time of their frame, and what the inner projector adds to it. Tiles stay tiles where the inner
        projector keeps cells in their places; queries have none.

        Raises:
            ShapeError: as `forward`.
        """
        return self._joined(shape, [self.inner.out_shape(frame) for frame in self._frames(shape)])

    def _frames(self, shape: Shape) -> list[Shape]:
        """The shape of every frame alone, on its own clock."""
        t, y, x = require_grid(self, shape)
        if shape.times is None:
            return [Shape(y * x, (1, y, x))] * t
        frames = [shape.times[first : first + y * x] for first in range(0, shape.len, y * x)]
        return [Shape(y * x, (1, y, x), tuple(time - times[0] for time in times)) for times in frames]

    def _joined(self, shape: Shape, frames: Sequence[Shape]) -> Shape:
        """The shape of an item whose frames became these."""
        counts = {frame.len for frame in frames}
        if len(counts) > 1:
            raise ShapeError(
                f"PerFrame got {sorted(counts)} rows of {type(self.inner).__name__} for frames of one item; expected "
                "as many of each. Take a projector whose rows do not depend on the times within a frame."
            )
        count, grid = frames[0].len, frames[0].grid
        places = None if grid is None or grid[0] != 1 else grid[1:]
        lines, cells = places or (1, count)
        times = None
        if shape.times is not None:
            begins = shape.times[:: shape.len // len(frames)]
            times = tuple(
                begin + later
                for begin, frame in zip(begins, frames, strict=True)
                for later in frame.times or (0.0,) * count
            )
        return Shape(len(frames) * count, (len(frames), lines, cells), times, shape.mosaic if places else None)
