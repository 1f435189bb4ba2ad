"""Systems of rows at the input: one branch a modality, pooled, stacked or resampled; clips on one clock."""

from __future__ import annotations

from tests.archetypes.blocks import FRAMES, IMAGE, MEL, SOUND, VIT, per_frame, row
from tests.archetypes.harness import Archetype

TILES = {"type": "tiles", "rule": "area", "size_px": 16, "max_tiles": 4}
FEATURES = {"type": "identity", "width": 8}
RESAMPLER = {"type": "perceiver", "latents": 4, "width": 32, "depth": 1, "heads": 2}

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
        "chunks of one second, frames before sound; one resampler for each tile by area and each frame, sound "
        "averaged by five, MiniCPM-o 2.6 (2025) after MiniCPM-V (arXiv:2408.01800)",
        {
            "context": {"interleave": {"type": "chunks", "every_s": 1.0}},
            "components": {
                "tower": {"room": "encoders", **VIT},
                "resampler": {"room": "projectors", **per_frame(RESAMPLER)},
            },
            "modalities": {
                "image": row("image", TILES, {"component": "tower"}, {"component": "resampler"}),
                "frames": row("video", FRAMES, {"component": "tower"}, {"component": "resampler"}),
                "sound": row(
                    "audio",
                    SOUND,
                    MEL,
                    [{"type": "mlp", "activation": "relu", "norm": False}, {"type": "average", "factor": 5}],
                ),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("clip",), ("image",), ("sound",)],
        forms={"clip": {"frames": 2, "sound": True}},
    ),
    Archetype(
        "AVicuna",
        "features of frames and sounds computed elsewhere, those of sound put evenly between those of frames, "
        "AVicuna (arXiv:2403.16276)",
        {
            "context": {"interleave": "even"},
            "modalities": {
                "frames": row("series", "features", FEATURES, [{"type": "pool", "tokens": 6}, "mlp"]),
                "sound": row("series", "features", FEATURES, [{"type": "pool", "tokens": 2}, "mlp"]),
            },
        },
        asks=[("frames",), ("sound",), ("frames", "sound")],
        forms={"frames": {"channels": 8}, "sound": {"channels": 8}},
        is_clip=True,
    ),
    Archetype(
        "AnyMAL",
        "one Perceiver resampler or linear map a modality, AnyMAL (arXiv:2309.16058), IMU and points beside pictures",
        {
            "context": {"interleave": "in_order"},
            "modalities": {
                "image": row("image", IMAGE, VIT, RESAMPLER),
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
