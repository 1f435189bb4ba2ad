"""Systems of rows at the input: one branch a modality, pooled, stacked or queried; clips on one clock."""

from __future__ import annotations

from tests.archetypes.harness import Archetype

VIT = {"type": "patch_vit", "patch_px": 8, "width": 32, "depth": 1, "heads": 2}
MEL = {"type": "log_mel_conv", "num_mels": 16, "width": 32, "depth": 1, "heads": 2, "conv_width": 8}
IMAGE = {"type": "image", "size_px": 16}
SOUND = {"type": "log_mel", "num_mels": 16}
FRAMES = {"type": "video", "frames": 8, "rate_hz": 2.0, "size_px": 16}


def row(payload: str, processor: object, encoder: object, projector: object, **more: object) -> dict[str, object]:
    """A row of the table of modalities that comes in."""
    return {"payload": payload, "in": {"processor": processor, "encoder": encoder, "projector": projector, **more}}


SYSTEMS = [
    Archetype(
        "VITA",
        "a causal convolution in time before the language model, VITA (arXiv:2408.05211)",
        {
            "modalities": {
                "image": row("image", IMAGE, VIT, "mlp"),
                "sound": row(
                    "audio",
                    SOUND,
                    MEL,
                    [{"type": "conv", "kernels": [5], "strides": [2], "padding": "causal"}, "linear"],
                ),
            }
        },
        asks=[("image",), ("sound",), ("sound", "image")],
    ),
    Archetype(
        "MiniCPM-o",
        "chunks of one second, frames before sound, MiniCPM-o; a resampler of frames, sound stacked by five",
        {
            "context": {"interleave": {"type": "chunks", "every_s": 1.0}},
            "modalities": {
                "frames": row("video", FRAMES, VIT, "mlp"),
                "sound": row("audio", SOUND, MEL, [{"type": "stack", "factor": 5}, "linear"]),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("clip",), ("frames",), ("sound",)],
        forms={"clip": {"sound": True}},
    ),
    Archetype(
        "AVicuna",
        "rows of sound put evenly between rows of video, AVicuna (arXiv:2403.16276)",
        {
            "context": {"interleave": "even"},
            "modalities": {
                "frames": row("video", FRAMES, VIT, [{"type": "pool", "tokens": 6}, "mlp"]),
                "sound": row("audio", SOUND, MEL, [{"type": "pool", "tokens": 2}, "mlp"]),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("clip",), ("sound",)],
        forms={"clip": {"sound": True}},
    ),
    Archetype(
        "AnyMAL",
        "one Perceiver resampler or linear map a modality, AnyMAL (arXiv:2309.16058), IMU and points beside pictures",
        {
            "context": {"interleave": "in_order"},
            "modalities": {
                "image": row(
                    "image", IMAGE, VIT, {"type": "perceiver", "latents": 4, "width": 32, "depth": 1, "heads": 2}
                ),
                "motion": row(
                    "series", "series", {"type": "series_conv", "channels": 2, "width": 32, "stride": 8}, "linear"
                ),
                "points": row(
                    "points",
                    {"type": "points", "count": 16},
                    {"type": "point_net", "width": 32, "groups": 4, "neighbours": 5, "depth": 1},
                    "linear",
                ),
            },
        },
        asks=[("image",), ("motion",), ("points",)],
    ),
]
