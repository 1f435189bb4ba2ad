"""Qwen2-VL and Qwen2.5-VL: pictures and clips of any size, merged two by two, on positions of time, height and width.

Source: Qwen2-VL (arXiv:2409.12191), Qwen2.5-VL (arXiv:2502.13923).
"""

from __future__ import annotations

from typing import Any

from omniloom.published.source import Part, Published, Row, Source

__all__ = ["merger", "qwen2_5_vl", "qwen2_vl", "seen_rows"]

_RATE_HZ, _FRAMES = 2.0, 768  # of clips, as the published processors sample them


def qwen2_vl(source: Source) -> Published:
    """Qwen2-VL: a frame of a clip is one step in time, whatever its rate."""
    return Published(seen_rows(source, merger("layer")), context={"positions": _positions()})


def qwen2_5_vl(source: Source) -> Published:
    """Qwen2.5-VL: so many steps a second."""
    rate_hz = float(source.config.vision_config.tokens_per_second)
    return Published(seen_rows(source, merger("rms")), context={"positions": _positions(rate_hz=rate_hz)})


def _positions(**options: float) -> dict[str, Any]:
    """As transformers places slots: behind the larger side of a grid."""
    return {"type": "mrope", "advance": "grid", **options}


def merger(norm: str) -> Part:
    """The patch merger, which pictures and clips share."""
    tensors = {"input_norm": "merger.ln_q", "maps.0": "merger.mlp.0", "maps.1": "merger.mlp.2"}
    return Part({"type": "merge", "norm": norm}, tensors, shared="merger")


def seen_rows(source: Source, merger: Part, **bounds: int) -> list[Row]:
    """Pictures and clips through one tower and one merger.

    Args:
        bounds: min_px and max_px of a clip's frames, where they are not those of the processor's file.
    """
    config = source.config
    tower = Part(source.named("native_vision"), shared="tower")
    clip = source.named("native_image", frames=_FRAMES, rate_hz=_RATE_HZ, **bounds)
    return [
        _row("image", source, config.image_token_id, source.named("native_image"), tower, merger),
        _row("video", source, config.video_token_id, clip, tower, merger),
    ]


def _row(kind: str, source: Source, placeholder: int, processor: dict[str, Any], tower: Part, merger: Part) -> Row:
    return Row(kind, kind, source.markers(kind, placeholder), processor, tower, [merger])
