"""Systems whose pictures and clips keep their place: tiles and grids, pooled, merged or convolved."""

from __future__ import annotations

from tests.archetypes.blocks import BANK, BEATS, FRAMES, IMAGE, MEL, SHORT, SOUND, VIT, hub, row, tiny
from tests.archetypes.harness import Archetype

TILES = {"type": "tiles", "rule": "sizes", "size_px": 16, "sizes_px": [[16, 32], [32, 16], [32, 32]]}
PATCHES = {**VIT, "patch_px": 4}
CLIP = {"frames": 4, "rate_hz": 2.0}

SYSTEMS = [
    Archetype(
        "LLaVA-NeXT",
        "tiles of the size that keeps most of the picture, CLIP's last layer but one, an MLP, and newlines behind "
        "lines of tiles, LLaVA-NeXT (2024) after LLaVA-1.5 (arXiv:2310.03744)",
        {
            "modalities": {
                "image": row(
                    "image",
                    TILES,
                    hub("hub_vision", "clip", layer=-2),
                    [{"type": "mlp", "norm": False}, "mosaic"],
                )
            }
        },
        asks=[("image",), ("image", "image")],
        models=tiny("clip"),
    ),
    Archetype(
        "LLaVA-OneVision",
        "SigLIP over tiles of at most nine, over frames pooled by interpolation, LLaVA-OneVision (arXiv:2408.03326)",
        {
            "modalities": {
                "image": row(
                    "image",
                    TILES,
                    hub("hub_vision", "siglip"),
                    [{"type": "mlp", "norm": False}, {"type": "mosaic", "max_tiles": 9}],
                ),
                "clip": row(
                    "video",
                    hub("hub_video", "siglip", **CLIP),
                    hub("hub_vision", "siglip"),
                    [
                        {"type": "mlp", "norm": False},
                        {"type": "grid_pool", "mode": "bilinear"},
                        {"type": "boundaries", "start": False, "end": True},
                    ],
                ),
            }
        },
        asks=[("image",), ("clip",)],
        forms={"clip": {"frames": 2}},
        models=tiny("siglip"),
    ),
    Archetype(
        "VideoLLaMA2",
        "frames convolved in space and time before the language model, BEATs with an MLP, VideoLLaMA2 "
        "(arXiv:2406.07476)",
        {
            "context": {"interleave": "in_order"},
            "modalities": {
                "frames": row(
                    "video",
                    {**FRAMES, "rate_hz": 2.0},
                    PATCHES,
                    {"type": "stc", "depth": 1, "width": 16},
                ),
                "sound": row("audio", BANK, BEATS, {"type": "mlp", "norm": False}),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("frames",), ("sound",), ("clip",)],
        forms={"frames": {"frames": 2}, "sound": SHORT, "clip": {"frames": 1, "rate_hz": 5.0, "sound": True}},
    ),
    Archetype(
        "EMOVA",
        "a large picture in tiles, each abstracted by convolutions to a small grid, EMOVA (arXiv:2409.18042) "
        "after Honeybee (arXiv:2312.06742); its discrete speech is text to the language model and not part of "
        "this",
        {
            "modalities": {
                "image": row(
                    "image",
                    {**TILES, "rule": "proportions", "max_tiles": 4},
                    PATCHES,
                    {"type": "c_abstractor", "cells": 2, "depth": 1, "width": 16},
                ),
                "speech": row("audio", SOUND, MEL, [{"type": "pool", "tokens": 3}, "mlp"]),
            }
        },
        asks=[("image",), ("speech", "image")],
    ),
    Archetype(
        "Baichuan-Omni",
        "2 x 2 pooled patches for pictures and frames, gated convolutions of Whisper's rows, Baichuan-Omni "
        "(arXiv:2410.08565)",
        {
            "components": {"tower": {"room": "encoders", **hub("hub_vision", "siglip")}},
            "modalities": {
                "image": row(
                    "image", hub("hub", "siglip"), {"component": "tower"}, [{"type": "grid_pool"}, {"type": "mlp"}]
                ),
                "clip": row(
                    "video",
                    hub("hub_video", "siglip", **CLIP),
                    {"component": "tower"},
                    [{"type": "grid_pool", "mode": "max"}, {"type": "mlp"}],
                ),
                "sound": row(
                    "audio",
                    hub("hub", "whisper", trim=True),
                    hub("hub_speech", "whisper"),
                    {"type": "conv_gmlp", "factor": 4},
                ),
            },
        },
        asks=[("image",), ("clip",), ("sound",)],
        forms={"clip": {"frames": 2}, "sound": SHORT},
        models=tiny("siglip", "whisper"),
    ),
    Archetype(
        "Ola",
        "cells pooled by learned scores, lines closed by newlines; Whisper beside BEATs, ten rows stacked, Ola "
        "(arXiv:2502.04328)",
        {
            "modalities": {
                "image": row(
                    "image",
                    IMAGE,
                    PATCHES,
                    ["score_pool", {"type": "boundaries", "newline": True}],
                ),
                "sound": row(
                    "audio",
                    {"type": "together", "processors": [hub("hub", "whisper", trim=True), BANK]},
                    {"type": "together", "encoders": [hub("hub_speech", "whisper"), BEATS]},
                    [{"type": "stack", "factor": 10}, {"type": "mlp", "activation": "relu", "norm": False}],
                ),
            }
        },
        asks=[("image",), ("sound",), ("sound", "image")],
        forms={"sound": SHORT},
        models=tiny("whisper"),
    ),
    Archetype(
        "InternOmni",
        "pixels shuffled four to one behind InternViT, Whisper with an MLP, InternOmni (2024) after InternVL 1.5 "
        "(arXiv:2404.16821)",
        {
            "modalities": {
                "image": row(
                    "image",
                    {"type": "tiles", "rule": "proportions", "size_px": 16, "max_tiles": 4},
                    PATCHES,
                    {"type": "merge", "norm_at": "merged", "hidden": 32},
                ),
                "sound": row("audio", SOUND, MEL, {"type": "mlp"}),
            }
        },
        asks=[("image",), ("sound",), ("image", "sound")],
        forms={"sound": SHORT},
    ),
]
