"""Qwen2.5-Omni's thinker: pictures, clips, sounds, and clips with their sound on one clock.

Source: Qwen2.5-Omni (arXiv:2503.20215).
"""

from __future__ import annotations

from omniloom.published.qwen_vl import merger, seen_rows
from omniloom.published.source import Part, Published, Row, Source

__all__ = ["qwen2_5_omni"]

_LONGEST_S = 300.0
_LEAST_CELLS, _MOST_CELLS = 128, 768  # of a clip's frame: its processor says so, whatever the file says of pictures


def qwen2_5_omni(source: Source) -> Published:
    """Qwen2.5-Omni's thinker: what it sees and hears.

    The row `movie` is a clip with its sound, in chunks of time; `video` is one without.
    """
    config = source.config
    cell_px = (config.vision_config.patch_size * config.vision_config.spatial_merge_size) ** 2
    seen = seen_rows(source, merger("rms"), min_px=_LEAST_CELLS * cell_px, max_px=_MOST_CELLS * cell_px)
    sound = Row(
        "audio",
        "audio",
        source.markers("audio", config.audio_token_id),
        source.named("hub", medium="audio", lengths=True, max_s=_LONGEST_S),
        Part(source.named("qwen_audio")),
        [Part({"type": "linear"}, {"map": "audio_tower.proj"})],
    )
    return Published(
        [*seen, sound, Row("movie", "video", split=["video", "audio"])],
        context={
            "positions": {"type": "tmrope", "rate_hz": float(config.position_id_per_seconds)},
            "interleave": {"type": "chunks", "every_s": float(config.seconds_per_chunk)},
        },
    )
