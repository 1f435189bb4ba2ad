"""Systems of rows at the input: one branch a modality or vectors of one space; clips on one clock."""

from __future__ import annotations

from functools import partial

from tests.archetypes.blocks import (
    FRAMES,
    IMAGE,
    JOINT,
    JOINT_PICTURE,
    JOINT_SOUND,
    MEL,
    SOUND,
    SOUND_CLIPS,
    VIT,
    hub,
    per_frame,
    row,
)
from tests.archetypes.harness import Archetype
from tests.encoders.tiny_language_bind import BRANCHES, save_branch

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
    Archetype(
        "ModaVerse",
        "vectors of a joint space by one linear map, adapters of the language model, ModaVerse "
        "(arXiv:2401.06395); it asks other models for pictures and sounds by text",
        {
            "adapters": {"lora": {"type": "lora", "rank": 4, "targets": ["*.q_proj", "*.v_proj"]}},
            "components": {"map": {"room": "projectors", "type": "linear"}},
            "modalities": {
                "image": row("image", IMAGE, JOINT_PICTURE, {"component": "map"}),
                "clip": row("video", FRAMES, JOINT_PICTURE, {"component": "map"}),
                "sound": row("audio", SOUND_CLIPS, JOINT_SOUND, {"component": "map"}),
                "heat": row(
                    "map",
                    {"type": "map", "size_px": 16, "scale": "range", "low": 0.0, "high": 4.0},
                    {**JOINT, "kind": "thermal", "size": [16, 16], "patch": 8},
                    {"component": "map"},
                ),
            },
        },
        asks=[("image",), ("clip",), ("sound",), ("heat",)],
        forms={"clip": {"frames": 2}, "sound": {"seconds": 0.3}, "heat": {"channels": 1}},
    ),
    Archetype(
        "CoDi-2",
        "vectors of a joint space by one MLP, anywhere among the words, CoDi-2 (arXiv:2311.18775); the features "
        "that it says back are not part of this",
        {
            "adapters": {"lora": {"type": "lora", "rank": 4}},
            "components": {"into": {"room": "projectors", "type": "mlp", "norm": False}},
            "modalities": {
                "image": row("image", IMAGE, JOINT_PICTURE, {"component": "into"}),
                "sound": row("audio", SOUND_CLIPS, JOINT_SOUND, {"component": "into"}),
            },
        },
        asks=[("image", "sound"), ("image", "image", "sound"), ("sound",)],
        forms={"sound": {"seconds": 0.3}},
    ),
    Archetype(
        "WorldGPT",
        "vectors of LanguageBind, computed here or beforehand, by one linear map for all, WorldGPT "
        "(arXiv:2404.18202); the states that it predicts are not part of this",
        {
            "adapters": {"lora": {"type": "lora", "rank": 4}},
            "components": {"map": {"room": "projectors", "type": "linear"}},
            "modalities": {
                "image": row("image", IMAGE, hub("language_bind", "LanguageBindImage"), {"component": "map"}),
                "clip": row(
                    "video",
                    {"type": "video", "frames": 4, "size_px": 16},
                    hub("language_bind", "LanguageBindVideo"),
                    {"component": "map"},
                ),
                "sound": row(
                    "audio",
                    {"type": "sound_channels", "num_mels": 16, "frames": 24},
                    hub("language_bind", "LanguageBindAudio"),
                    {"component": "map"},
                ),
                "vector": row("series", "features", {"type": "identity", "width": 12}, {"component": "map"}),
            },
        },
        asks=[("image",), ("clip", "sound"), ("sound",), ("vector", "image")],
        forms={
            "clip": {"frames": 4},
            "sound": {"seconds": 0.3},
            "vector": {"steps": 1, "channels": 12, "same_size": True},
        },
        models={kind: partial(save_branch, kind=kind) for kind in BRANCHES},
    ),
]
