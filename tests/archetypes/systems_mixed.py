"""Systems of many senses: one trunk or one map for all, scenes, brains, faces, codes in the vocabulary."""

from __future__ import annotations

from tests.archetypes.blocks import (
    BANK,
    BEATS,
    CLOUD,
    FRAMES,
    IMAGE,
    JOINT_PICTURE,
    JOINT_SOUND,
    MEL,
    POINTS,
    QUERIES,
    SHORT,
    SOUND,
    SOUND_CLIPS,
    VIT,
    hub,
    row,
    tiny,
)
from tests.archetypes.harness import Archetype, encoder_decoder

TRUNK = [{"component": "trunk"}, {"component": "upm"}, {"component": "ends"}]
STEM = {"type": "stem", "width": 16, "kernel": 8, "size": [16, 16]}
MIX = {"type": "soft_moe", "queries": 3, "experts": 2, "width": 16, "depth": 1, "heads": 2}
DRAWING = {
    "payload": "image",
    "out": {"codec": {"type": "image_fsq", "size_px": 8, "grid": 2, "levels": [8, 8, 8], "width": 16}},
}
GROUPS = {"type": "groups", "groups": [3], "depths": [1, 0], "width": 16, "heads": 2}
WINDOWS = {"type": "window_qformer", "queries": 2, "width": 16, "depth": 1, "heads": 2, "causal": False}
JOINED = {"tokens": "patches"}
# ImageBind keeps its joint vectors beside the rows; nobody reads them here.
UNREAD = ["*/encoder.modality_heads.*"]

SYSTEMS = [
    Archetype(
        "OneLLM",
        "a stem for each of seven senses, one trunk of CLIP, one mixture of projection experts with queries and "
        "routers of each, learned rows at both ends, OneLLM (arXiv:2312.03700)",
        {
            "components": {
                "trunk": {"room": "projectors", "type": "trunk", "id": "./clip", "token": "keep"},
                "upm": {"room": "projectors", **MIX},
                "ends": {"room": "projectors", "type": "boundaries", "own_rows": True},
            },
            "modalities": {
                "image": row("image", IMAGE, STEM, TRUNK),
                "clip": row("video", FRAMES, STEM, TRUNK),
                "sound": row(
                    "audio",
                    {"type": "filter_bank", "style": "ast", "num_mels": 16, "frames": 32},
                    {**STEM, "channels": 1, "kernel": 8, "stride": 5, "size": [32, 16]},
                    TRUNK,
                ),
                "points": row("points", CLOUD, POINTS, TRUNK),
                "depth": row(
                    "map",
                    {"type": "map", "size_px": 16, "channels": 3, "scale": "range", "low": 0.0, "high": 4.0},
                    STEM,
                    TRUNK,
                ),
                "motion": row(
                    "series",
                    {"type": "series", "length": 24},
                    {"type": "series_stem", "channels": 2, "width": 16, "kernel": 8, "stride": 4, "length": 24},
                    TRUNK,
                ),
                "brain": row("series", "vector", {"type": "vector", "length": 12, "rows": 4, "width": 16}, TRUNK),
            },
        },
        asks=[("image",), ("clip",), ("sound",), ("points",), ("depth",), ("motion",), ("brain",)],
        forms={
            "clip": {"frames": 2},
            "sound": SHORT,
            "depth": {"channels": 1},
            "brain": {"steps": 1, "channels": 12, "same_size": True},
        },
        models=tiny("clip"),
    ),
    Archetype(
        "LEO",
        "objects of a scene that attend to one another by where they lie, and what the agent itself sees, LEO "
        "(arXiv:2311.12871); its actions are not part of this",
        {
            "adapters": {"lora": {"type": "lora", "rank": 4}},
            "modalities": {
                "scene": row(
                    "points",
                    {"type": "objects", "count": 8, "objects": 4},
                    {
                        "type": "object_points",
                        "features": 3,
                        "groups": [4],
                        "neighbours": [4],
                        "radii": [0.8],
                        "widths": [[8], [10]],
                    },
                    {"type": "objects", "layers": 1, "width": 16, "heads": 2, "hidden": 16},
                ),
                "view": row("image", IMAGE, VIT, [{"type": "average", "factor": None}, "mlp"]),
            },
        },
        asks=[("scene",), ("view",), ("view", "scene")],
        forms={"scene": {"objects": 3, "features": 3}},
    ),
    Archetype(
        "Unified-IO 2",
        "an encoder-decoder that reads pictures by a linear map, and former pictures and sounds by a resampler "
        "with scaled cosines, Unified-IO 2 (arXiv:2312.17172); what it draws and says in codes is not part of "
        "this",
        {
            "components": {
                "resampler": {
                    "room": "projectors",
                    "type": "perceiver",
                    "latents": 4,
                    "width": 16,
                    "depth": 1,
                    "heads": 2,
                    "qk_norm": True,
                }
            },
            "modalities": {
                "image": row("image", hub("hub", "clip"), hub("hub_vision", "clip", layer=1), "linear"),
                "history": row("image", hub("hub", "clip"), hub("hub_vision", "clip"), {"component": "resampler"}),
                "sound": row("audio", hub("hub", "ast"), hub("hub_audio", "ast"), {"component": "resampler"}),
            },
        },
        asks=[("image",), ("history",), ("sound",), ("history", "image")],
        forms={"sound": {"seconds": 0.15}},
        models=tiny("clip", "ast"),
        backbone=encoder_decoder,
        options={"type": "seq2seq_lm", "template": "bare"},
    ),
    Archetype(
        "AnyGPT",
        "pictures as codes in the vocabulary, read and said like words, AnyGPT (arXiv:2402.12226); only the new "
        "rows and adapters are trained, as in TEAL (arXiv:2311.04589)",
        {
            "adapters": {"lora": {"type": "lora", "rank": 4}},
            "modalities": {
                "drawing": DRAWING,
                "sound": row("audio", SOUND, MEL, "mlp"),
            },
        },
        asks=[("drawing",), ("drawing", "sound")],
        train=["vocab", "lora", "sound/*"],
    ),
    Archetype(
        "TEAL",
        "pictures as codes, the language model frozen, rows of its own for them at its input and its head, TEAL "
        "(arXiv:2311.04589)",
        {"modalities": {"drawing": DRAWING}},
        asks=[("drawing",), ("drawing", "drawing")],
        train=["vocab"],
    ),
    Archetype(
        "Macaw-LLM",
        "convolved rows that attend to the embeddings of all words, Macaw-LLM (arXiv:2306.09093)",
        {
            "modalities": {
                "image": row(
                    "image",
                    hub("hub", "clip"),
                    hub("hub_vision", "clip"),
                    [
                        {
                            "type": "conv",
                            "kernels": [2],
                            "strides": [1],
                            "widen": [1],
                            "padding": "none",
                            "norm": False,
                            "activation": None,
                            "project": False,
                        },
                        {"type": "vocabulary", "heads": 1},
                        "boundaries",
                    ],
                ),
                "sound": row(
                    "audio",
                    hub("hub", "whisper", trim=True),
                    hub("hub_speech", "whisper"),
                    [
                        {
                            "type": "conv",
                            "kernels": [6],
                            "strides": [4],
                            "widen": [1],
                            "padding": "none",
                            "norm": False,
                            "activation": None,
                            "project": False,
                        },
                        {"type": "vocabulary", "heads": 1},
                        "boundaries",
                    ],
                ),
            }
        },
        asks=[("image",), ("sound",)],
        forms={"sound": SHORT},
        models=tiny("clip", "whisper"),
    ),
    Archetype(
        "NExT-GPT",
        "rows of a joint space gathered into a few groups by one projector, NExT-GPT (arXiv:2309.05519); its "
        "decoders of pictures, clips and sounds are not part of this",
        {
            "components": {"gather": {"room": "projectors", **GROUPS}},
            "modalities": {
                "image": row("image", IMAGE, {**JOINT_PICTURE, **JOINED}, {"component": "gather"}),
                "clip": row("video", FRAMES, {**JOINT_PICTURE, **JOINED}, {"component": "gather"}),
                "sound": row("audio", SOUND_CLIPS, {**JOINT_SOUND, **JOINED}, {"component": "gather"}),
            },
        },
        asks=[("image",), ("clip",), ("sound",)],
        forms={"clip": {"frames": 2}, "sound": {"seconds": 0.3}},
        unmoved=UNREAD,
    ),
    Archetype(
        "GroundingGPT",
        "an MLP for pictures, queries and a linear map for sounds and clips, regions and times as text, "
        "GroundingGPT (arXiv:2401.06071)",
        {
            "modalities": {
                "image": row("image", hub("hub", "clip"), hub("hub_vision", "clip"), "mlp"),
                "clip": row(
                    "video",
                    FRAMES,
                    VIT,
                    [{"type": "positions", "axes": ["frame"], "max": 16}, {"type": "qformer", **QUERIES}, "linear"],
                ),
                "sound": row(
                    "audio", SOUND_CLIPS, {**JOINT_SOUND, **JOINED}, [{"type": "qformer", **QUERIES}, "linear"]
                ),
            }
        },
        asks=[("image",), ("clip",), ("sound",)],
        forms={"clip": {"frames": 2}, "sound": {"seconds": 0.3}},
        models=tiny("clip"),
        unmoved=UNREAD,
    ),
    Archetype(
        "OMCAT",
        "queries over rows turned by their time, and times as text between them, OMCAT (arXiv:2410.12109)",
        {
            "context": {"interleave": {"type": "chunks", "every_s": 1.0}},
            "modalities": {
                "frames": row(
                    "video",
                    FRAMES,
                    VIT,
                    ["rotary_time", {**WINDOWS, "windows": [4]}, "linear"],
                    timestamps={"format": "{:.0f}", "every_s": 1.0},
                ),
                "sound": row("audio", SOUND, MEL, ["rotary_time", {**WINDOWS, "windows": [3]}, "linear"]),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("frames",), ("sound",), ("clip",)],
        forms={"frames": {"frames": 2}, "clip": {"frames": 2, "sound": True}},
    ),
    Archetype(
        "Emotion-LLaMA",
        "several encoders of one face side by side, VideoMAE for what it does, HuBERT for its voice, "
        "Emotion-LLaMA (arXiv:2406.11161)",
        {
            "adapters": {"lora": {"type": "lora", "rank": 4, "targets": ["*.q_proj", "*.v_proj"]}},
            "modalities": {
                "face": row(
                    "image",
                    {"type": "together", "processors": [hub("hub", "vit"), hub("hub", "clip")]},
                    {"type": "together", "encoders": [hub("hub_vision", "vit"), hub("hub_vision", "clip")]},
                    "linear",
                ),
                "motion": row(
                    "video",
                    hub("hub_video", "videomae", frames=4, exact=True),
                    hub("hub_video", "videomae"),
                    [{"type": "average", "factor": None}, "linear"],
                ),
                "voice": row(
                    "audio",
                    hub("hub", "hubert_10ms"),
                    hub("hub_speech", "hubert_10ms", taps=[1, 2]),
                    [{"type": "layer_mix", "taps": [1, 2]}, {"type": "average", "factor": None}, "linear"],
                ),
            },
        },
        asks=[("face",), ("motion",), ("voice",), ("face", "voice")],
        forms={"voice": SHORT},
        models=tiny("vit", "clip", "videomae", "hubert_10ms"),
    ),
    Archetype(
        "Lyra",
        "pictures at native size, speech by Whisper, other sound by ImageBind; adapters for speech, and less "
        "context from layer to layer, Lyra (arXiv:2412.09501)",
        {
            "adapters": {
                "speech_lora": {"type": "lora", "rank": 4, "routes": ["speech"], "when": "document"},
                "fewer": {"type": "token_reduction", "layers": [0], "keep": 0.5, "least": 4},
            },
            "modalities": {
                "image": row(
                    "image",
                    hub("native_image", "qwen2_5_vl"),
                    hub("native_vision", "qwen2_5_vl"),
                    {"type": "merge", "norm": "rms"},
                ),
                "speech": row(
                    "audio",
                    hub("hub", "whisper", trim=True),
                    hub("hub_speech", "whisper"),
                    [{"type": "stack", "factor": 2}, "mlp"],
                ),
                "sound": row("audio", SOUND_CLIPS, JOINT_SOUND, "mlp"),
            },
        },
        asks=[("image",), ("speech",), ("sound",), ("image", "speech")],
        forms={"speech": SHORT, "sound": {"seconds": 0.3}},
        models=tiny("qwen2_5_vl", "whisper"),
    ),
    Archetype(
        "VITA-1.5",
        "a grid of tiles by area, sounds convolved twice as wide and half as long, VITA-1.5 (arXiv:2501.01957); "
        "its speech decoder is not part of this",
        {
            "modalities": {
                "image": row(
                    "image",
                    {"type": "tiles", "rule": "area", "size_px": 16, "max_tiles": 4},
                    VIT,
                    [{"type": "mlp", "norm": False}],
                ),
                "sound": row("audio", BANK, BEATS, {"type": "conv"}),
            }
        },
        asks=[("image",), ("sound",), ("sound", "image")],
        forms={"sound": SHORT},
    ),
]
