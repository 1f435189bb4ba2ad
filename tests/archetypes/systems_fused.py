"""Systems that make one item of several modalities before the language model, or hold them to one another."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.archetypes.blocks import (
    BANK,
    BEATS,
    CLOUD,
    FRAMES,
    IMAGE,
    JOINT,
    JOINT_PICTURE,
    JOINT_SOUND,
    MEL,
    POINTS,
    QUERIES,
    SHORT,
    SOUND,
    SOUND_CLIPS,
    VIT,
    blip,
    hub,
    per_frame,
    row,
    tiny,
)
from tests.archetypes.harness import Archetype, encoder_decoder

ONE = {"type": "pool", "tokens": 1}
EVA = hub("hub_vision", "instructblip")
INSTRUCT = per_frame(hub("hub_qformer", "instructblip"))
WINDOWS = {"type": "window_qformer", "queries": 2, "width": 16, "depth": 1, "heads": 2}


def prototypes(folder: Path) -> None:
    """Vectors of pictures that were seen before."""
    rows = torch.randn(12, 16, generator=torch.Generator().manual_seed(5))
    save_file({"prototypes": torch.nn.functional.normalize(rows, dim=-1)}, folder / "prototypes.safetensors")


SYSTEMS = [
    Archetype(
        "PandaGPT",
        "vectors of one joint space, summed where several are given, by one linear map and LoRA, PandaGPT "
        "(arXiv:2305.16355)",
        {
            "adapters": {"lora": {"type": "lora", "rank": 4}},
            "fusers": {
                "bound": {
                    "type": "sum",
                    "inputs": ["image", "sound", "depth", "motion"],
                    "when": "any",
                    "projector": "linear",
                }
            },
            "modalities": {
                "image": row("image", IMAGE, JOINT_PICTURE, ONE),
                "sound": row("audio", SOUND_CLIPS, JOINT_SOUND, ONE),
                "depth": row(
                    "map",
                    {"type": "map", "size_px": 16, "values": "inverse", "scale": "range", "low": 0.1, "high": 4.0},
                    {**JOINT, "kind": "depth", "size": [16, 16], "patch": 8},
                    ONE,
                ),
                "motion": row(
                    "series", {"type": "series", "length": 24}, {**JOINT, "kind": "imu", "size": [24], "patch": 8}, ONE
                ),
            },
        },
        asks=[("image",), ("sound",), ("depth",), ("motion",), ("image", "sound")],
        forms={"depth": {"channels": 1}, "motion": {"channels": 6}, "sound": {"seconds": 0.3}},
    ),
    Archetype(
        "ImageBind-LLM",
        "directions of a joint space near those of pictures seen before, a bind network, weighted together; "
        "biases and LoRA, ImageBind-LLM (arXiv:2309.03905)",
        {
            "adapters": {
                "reads": {"type": "gated_attention", "inputs": ["mixed"]},
                "biases": {"type": "bias"},
                "lora": {"type": "lora", "rank": 4},
            },
            "fusers": {
                "mixed": {
                    "type": "weighted",
                    "inputs": ["image", "sound"],
                    "when": "any",
                    "insert": "inject",
                    "weights": {"image": 2.0},
                    "projector": {"type": "residual", "layers": 2, "ratio": 2.0, "normalize": True},
                }
            },
            "modalities": {
                "image": row("image", IMAGE, JOINT_PICTURE, None),
                "sound": row(
                    "audio",
                    SOUND_CLIPS,
                    JOINT_SOUND,
                    {"type": "prototypes", "id": "./seen", "count": 12, "neighbours": 4, "temperature": 5.0},
                ),
            },
        },
        asks=[("image",), ("sound",), ("image", "sound")],
        forms={"sound": {"seconds": 0.3}},
        models={"seen": prototypes},
    ),
    Archetype(
        "FAVOR",
        "InstructBLIP's queries of every frame, each beside what is heard at its moment, a causal Q-Former over "
        "windows of time, FAVOR (arXiv:2310.05863)",
        {
            "fusers": {
                "moments": {
                    "type": "channels",
                    "inputs": ["frames", "speech"],
                    "when": "any",
                    "projector": [{**WINDOWS, "windows_s": [0.5]}, "linear"],
                }
            },
            "modalities": {
                "frames": row("video", FRAMES, EVA, INSTRUCT),
                "speech": row("audio", SOUND, MEL, {"type": "average", "factor": 1}),
                "clip": {"payload": "video", "split": ["frames", "speech"]},
            },
        },
        asks=[("clip",), ("frames",), ("speech",)],
        forms={"clip": {"frames": 2, "sound": True}, "frames": {"frames": 2}},
        models=blip("instructblip"),
    ),
    Archetype(
        "video-SALMONN",
        "three streams of channels, InstructBLIP's queries of every frame, speech and other sound, by one causal "
        "Q-Former at several resolutions, video-SALMONN (arXiv:2406.15704)",
        {
            "fusers": {
                "streams": {
                    "type": "channels",
                    "inputs": ["frames", "heard"],
                    "when": "any",
                    "projector": {**WINDOWS, "windows_s": [0.5, 1.0], "queries": 4},
                }
            },
            "adapters": {"lora": {"type": "lora", "rank": 4}},
            "modalities": {
                "frames": row("video", FRAMES, EVA, INSTRUCT),
                "heard": row(
                    "audio",
                    {"type": "together", "processors": [{"type": "log_mel", "num_mels": 16}, BANK]},
                    {"type": "together", "encoders": [MEL, BEATS]},
                    {"type": "average", "factor": 1},
                ),
                "clip": {"payload": "video", "split": ["frames", "heard"]},
            },
        },
        asks=[("clip",), ("frames",), ("heard",)],
        forms={"clip": {"frames": 4, "sound": True}},
        models=blip("instructblip"),
    ),
    Archetype(
        "CREMA",
        "one Q-Former with queries and LoRA of each modality, other modalities gated into what is seen, an "
        "encoder-decoder, CREMA (arXiv:2402.05889)",
        {
            "components": {
                "qformer": {
                    "room": "projectors",
                    "type": "qformer",
                    **QUERIES,
                    "own_queries": True,
                    "adapters": "lora",
                    "rank": 4,
                }
            },
            "fusers": {"gate": {"type": "gated", "inputs": ["clip", "sound", "points"], "when": "all"}},
            "modalities": {
                "clip": row("video", FRAMES, {**VIT, "width": 16}, {"component": "qformer"}),
                "sound": row("audio", BANK, BEATS, {"component": "qformer"}),
                "points": row("points", CLOUD, POINTS, {"component": "qformer"}),
            },
        },
        asks=[("clip", "sound", "points"), ("clip",), ("sound",), ("points",)],
        forms={"clip": {"frames": 2}, "sound": SHORT},
        backbone=encoder_decoder,
        options={"type": "seq2seq_lm", "template": "bare"},
    ),
    Archetype(
        "CAT",
        "clues that the question asks of what is seen and heard, beside the rows themselves, CAT (arXiv:2403.04640)",
        {
            "fusers": {
                "clues": {
                    "type": "clue",
                    "inputs": ["clip", "sound"],
                    "queries": 2,
                    "width": 16,
                    "heads": 2,
                    "depth": 1,
                    "when": "any",
                    "keep": ["clip", "sound"],
                }
            },
            "modalities": {
                "clip": row("video", FRAMES, VIT, [{"type": "pool", "tokens": 2}, "linear"]),
                "sound": row(
                    "audio",
                    SOUND_CLIPS,
                    {**JOINT_SOUND, "tokens": "patches"},
                    [{"type": "pool", "tokens": 2}, "linear"],
                ),
            },
        },
        asks=[("clip",), ("sound",), ("clip", "sound")],
        forms={"clip": {"frames": 2}, "sound": {"seconds": 0.3}},
        # ImageBind keeps its joint vector beside the rows; nobody reads it here.
        unmoved=["sound/encoder.modality_heads.*"],
    ),
    Archetype(
        "Meerkat",
        "rows of a picture that read those of its sound, Meerkat (arXiv:2407.01851); its losses on attention are "
        "not part of this",
        {
            "fusers": {
                "listening": {"type": "cross", "inputs": ["image", "sound"], "width": 16, "heads": 2, "keep": ["sound"]}
            },
            "modalities": {
                "image": row("image", hub("hub", "clip"), hub("hub_vision", "clip"), "mlp"),
                "sound": row("audio", hub("hub", "clap"), hub("hub_audio", "clap"), "mlp"),
            },
        },
        asks=[("image",), ("sound",), ("image", "sound")],
        forms={"sound": SHORT},
        models=tiny("clip", "clap"),
    ),
    Archetype(
        "OmniVinci",
        "rows turned by their time, items of one scene held together by a contrast, in groups of time, OmniVinci "
        "(arXiv:2510.15870)",
        {
            "context": {"interleave": {"type": "chunks", "every_s": 1.0}},
            "fusers": {
                "together": {
                    "type": "align",
                    "inputs": ["frames", "sound"],
                    "width": 16,
                    "heads": 2,
                    "layers": 1,
                    "weight": 0.1,
                }
            },
            "modalities": {
                "frames": row("video", FRAMES, VIT, ["mlp", {"type": "rotary_time", "max_time_s": 8.0}]),
                "sound": row(
                    "audio",
                    SOUND,
                    MEL,
                    [{"type": "average", "factor": 2}, "mlp", {"type": "rotary_time", "max_time_s": 8.0}],
                ),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("clip",), ("frames",), ("sound",)],
        forms={"clip": {"frames": 2, "sound": True}, "frames": {"frames": 2}},
    ),
]
