"""What a caller may ask of a loader, beside the source itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import MediaError
from .limits import Limits

__all__ = ["LoadOptions"]


@dataclass(frozen=True)
class LoadOptions:
    """Passed to every loader.

    `max_frames` and `fps` choose frames of a video (see `sampling.choose_times`); None keeps every frame, and a clip of
    more frames than the limits allow is then refused. Other kinds refuse both by `refuse_sampling`.
    """

    limits: Limits = field(default_factory=Limits)
    max_frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.max_frames is not None and (not isinstance(self.max_frames, int) or self.max_frames < 1):
            raise MediaError("unsupported_option", "max_frames must be a whole number of at least 1, or None.")
        if self.fps is not None and not (isinstance(self.fps, int | float) and 0 < self.fps <= 1000):
            raise MediaError("unsupported_option", "fps must be a number above 0 and at most 1000, or None.")

    def refuse_sampling(self, kind: str) -> None:
        """Called by loaders that have no frames: an ignored option would be a silent surprise."""
        if self.max_frames is not None or self.fps is not None:
            raise MediaError(
                "unsupported_option", f"max_frames and fps are for video; {kind} has no frames. Leave them out."
            )
