"""Systems of learned queries: Q-Formers and resamplers of one modality's own, or shared by all with queries of each."""

from __future__ import annotations

from tests.archetypes.blocks import (
    BANK,
    BEATS,
    CLOUD,
    FRAMES,
    IMAGE,
    JOINT_SOUND,
    POINTS,
    QUERIES,
    SHORT,
    SOUND_CLIPS,
    VIT,
    blip,
    hub,
    per_frame,
    row,
    tiny,
)
from tests.archetypes.harness import Archetype

EVA = hub("hub_vision", "blip2")
PICTURE = {"type": "image", "size_px": 16}
BLIP2 = hub("hub_qformer", "blip2", projection="new")
INSTRUCT = hub("hub_qformer", "instructblip")

SYSTEMS = [
    Archetype(
        "X-LLM",
        "BLIP-2's Q-Former for pictures, another for every frame, speech shortened to the rate of words, X-LLM "
        "(arXiv:2305.04160)",
        {
            "modalities": {
                "image": row("image", PICTURE, EVA, BLIP2),
                "clip": row("video", FRAMES, EVA, per_frame(BLIP2)),
                "speech": row(
                    "audio",
                    hub("hub", "conformer_10ms"),
                    hub("hub_speech", "conformer_10ms"),
                    [{"type": "cif", "width": 8, "quantity": 0.1}, {"type": "mlp"}],
                ),
            }
        },
        asks=[("image",), ("clip",), ("speech",)],
        forms={"clip": {"frames": 2}, "speech": {"seconds": 0.1}},
        models={**blip("blip2"), **tiny("conformer_10ms")},
    ),
    Archetype(
        "ChatBridge",
        "one BLIP-2 Q-Former for pictures, clips and sounds, with queries of each and positions of frames, "
        "ChatBridge (arXiv:2305.16103)",
        {
            "components": {
                "perceiver": {
                    "room": "projectors",
                    **hub("hub_qformer", "blip2", projection="new", own_queries=True),
                },
                "eva": {"room": "encoders", **EVA},
            },
            "modalities": {
                "image": row("image", PICTURE, {"component": "eva"}, {"component": "perceiver"}),
                "clip": row(
                    "video",
                    FRAMES,
                    {"component": "eva"},
                    [{"type": "positions", "axes": ["frame"], "max": 8}, {"component": "perceiver"}],
                ),
                "sound": row(
                    "audio",
                    BANK,
                    BEATS,
                    [
                        {"type": "linear", "width": 16},
                        {"type": "positions", "axes": ["frame"], "max": 32},
                        {"component": "perceiver"},
                    ],
                ),
            },
        },
        asks=[("image",), ("clip",), ("sound",), ("image", "sound")],
        forms={"clip": {"frames": 2}, "sound": SHORT},
        models=blip("blip2"),
    ),
    Archetype(
        "Video-LLaMA",
        "BLIP-2's Q-Former for every frame, positions of frames, then queries for the clip; a row and a position for "
        "each stretch of a sound, Video-LLaMA (arXiv:2306.02858)",
        {
            "context": {"interleave": "in_order"},
            "modalities": {
                "frames": row(
                    "video",
                    FRAMES,
                    EVA,
                    [per_frame(BLIP2), {"type": "positions", "max": 32}, {"type": "qformer", **QUERIES}, "linear"],
                ),
                "sound": row(
                    "audio",
                    SOUND_CLIPS,
                    {**JOINT_SOUND, "tokens": "patches"},
                    [
                        {"type": "grid_pool", "stride": None, "cells": 1},
                        {"type": "positions", "max": 8},
                        {"type": "qformer", **QUERIES},
                        "linear",
                    ],
                ),
                "clip": {"payload": "video", "split": ["frames", "sound"]},
            },
        },
        asks=[("clip",), ("frames",), ("sound",)],
        forms={"clip": {"frames": 2, "sound": True}, "frames": {"frames": 2}, "sound": {"seconds": 0.3}},
        models=blip("blip2"),
        # ImageBind keeps its joint vector beside the rows; nobody reads it here.
        unmoved=["sound/encoder.modality_heads.*"],
    ),
    Archetype(
        "BuboGPT",
        "a Q-Former and a linear map for pictures and for sounds, BuboGPT (arXiv:2307.08581)",
        {
            "modalities": {
                "image": row("image", PICTURE, EVA, BLIP2),
                "sound": row(
                    "audio",
                    SOUND_CLIPS,
                    {**JOINT_SOUND, "tokens": "patches"},
                    [{"type": "qformer", **QUERIES}, "linear"],
                ),
            }
        },
        asks=[("image",), ("sound",), ("image", "sound")],
        forms={"sound": {"seconds": 0.3}},
        models=blip("blip2"),
        # ImageBind keeps its joint vector beside the rows; nobody reads it here.
        unmoved=["sound/encoder.modality_heads.*"],
    ),
    Archetype(
        "X-InstructBLIP",
        "an InstructBLIP Q-Former for each modality, which reads the question, and a clip frame by frame; the "
        "modality's name as a cue, X-InstructBLIP (arXiv:2311.18799)",
        {
            "components": {"eva": {"room": "encoders", **hub("hub_vision", "instructblip")}},
            "modalities": {
                "image": {**row("image", PICTURE, {"component": "eva"}, INSTRUCT), "markers": ["image: ", ""]},
                "clip": {**row("video", FRAMES, {"component": "eva"}, per_frame(INSTRUCT)), "markers": ["video: ", ""]},
                "sound": {**row("audio", BANK, BEATS, INSTRUCT), "markers": ["audio: ", ""]},
                "points": {**row("points", CLOUD, POINTS, INSTRUCT), "markers": ["3d: ", ""]},
            },
        },
        asks=[("image",), ("clip",), ("sound",), ("points",), ("image", "sound")],
        forms={"clip": {"frames": 2}, "sound": SHORT},
        models=blip("instructblip"),
    ),
    Archetype(
        "PathWeave",
        "one Q-Former to which each further modality adds adapters that build on those before it, PathWeave "
        "(arXiv:2410.20178)",
        {
            "components": {
                "qformer": {
                    "room": "projectors",
                    "type": "qformer",
                    **QUERIES,
                    "own_queries": True,
                    "adapters": "path",
                    "rank": 2,
                }
            },
            "modalities": {
                "image": row("image", IMAGE, {**VIT, "width": 16}, {"component": "qformer"}),
                "clip": row("video", FRAMES, {**VIT, "width": 16}, {"component": "qformer"}),
                "sound": row("audio", BANK, BEATS, {"component": "qformer"}),
                "points": row("points", CLOUD, POINTS, {"component": "qformer"}),
            },
        },
        asks=[("image",), ("clip",), ("sound",), ("points",)],
        forms={"clip": {"frames": 2}, "sound": SHORT},
    ),
]
