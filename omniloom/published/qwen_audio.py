"""Qwen2-Audio: sounds of up to 30 s, each with its number before it, through one linear map.

Source: Qwen2-Audio (arXiv:2407.10759).
"""

from __future__ import annotations

from omniloom.published.source import Part, Published, Row, Source

__all__ = ["qwen2_audio"]


def qwen2_audio(source: Source) -> Published:
    """Qwen2-Audio: one row per 40 ms. A sound of over 30 s is refused, where the published processor cuts it."""
    return Published(
        [
            Row(
                "audio",
                "audio",
                source.markers("audio", source.config.audio_token_id),
                source.named("hub", lengths=True),
                Part(source.named("qwen_audio")),
                [Part({"type": "linear"}, {"map": "multi_modal_projector.linear"})],
            )
        ]
    )
