"""Systems whose media are read inside the layers, or that change the layers for them."""

from __future__ import annotations

from pathlib import Path

from omniloom.testing.doubles import tiny_language_model
from tests.archetypes.blocks import (
    BANK,
    BEATS,
    CLOUD,
    FRAMES,
    IMAGE,
    MEL,
    POINTS,
    QUERIES,
    SHORT,
    SOUND,
    VIT,
    hub,
    row,
    tiny,
)
from tests.archetypes.harness import Archetype, save_tokenizer

RESIDUAL = {"type": "residual", "layers": 1, "ratio": 2.0, "normalize": True}
PERCEIVER = {"type": "perceiver", "latents": 4, "width": 16, "depth": 1, "heads": 2}
LORA = {"type": "lora", "rank": 4}


def deeper(folder: Path) -> None:
    """A tiny random Llama of four layers."""
    tiny_language_model(folder, layers=4)
    save_tokenizer(folder)


SYSTEMS = [
    Archetype(
        "eP-ALM",
        "class tokens of the last layers of ViT, TimeSformer and AST replace one slot in the upper layers; "
        "connectors and a soft prompt alone are trained, eP-ALM (arXiv:2303.11403)",
        {
            "adapters": {
                "connectors": {
                    "type": "token_injection",
                    "inputs": ["image", "clip", "sound"],
                    "taps": {2: -2, 3: -1},
                    "vector": "first",
                },
                "soft": {"type": "prompt", "length": 4},
            },
            "modalities": {
                "image": row(
                    "image", hub("hub", "vit"), hub("hub_vision", "vit", tokens="cls", taps=[-2, -1]), "linear"
                ),
                "clip": row(
                    "video",
                    hub("hub_video", "timesformer", frames=4, exact=True),
                    hub("hub_video", "timesformer", tokens="cls", taps=[-2, -1]),
                    "linear",
                ),
                "sound": row(
                    "audio", hub("hub", "ast"), hub("hub_audio", "ast", tokens="cls", taps=[-2, -1]), "linear"
                ),
            },
        },
        asks=[("image",), ("clip",), ("sound",)],
        forms={"sound": {"seconds": 0.15}},
        models=tiny("vit", "timesformer", "ast"),
        train=["connectors", "soft"],
        backbone=deeper,
        options={"system": "look"},
    ),
    Archetype(
        "Flamingo",
        "a resampler's rows read by gated cross-attention in front of every few layers, Flamingo "
        "(arXiv:2204.14198), as the survey's injections go back to it",
        {
            "adapters": {"reads": {"type": "cross_attention", "inputs": ["image", "clip"], "every": 2, "heads": 2}},
            "modalities": {
                "image": row("image", hub("hub", "clip"), hub("hub_vision", "clip"), PERCEIVER, insert="inject"),
                "clip": row(
                    "video",
                    hub("hub_video", "clip", frames=4, rate_hz=2.0),
                    hub("hub_vision", "clip"),
                    PERCEIVER,
                    insert="inject",
                ),
            },
        },
        asks=[("image",), ("clip",)],
        forms={"clip": {"frames": 2}},
        models=tiny("clip"),
    ),
    Archetype(
        "MoshiVis",
        "cross-attention in every layer, one set of projections for all, a gate for each token, MoshiVis "
        "(arXiv:2503.15633); its stream of speech is not part of this",
        {
            "adapters": {
                "reads": {
                    "type": "cross_attention",
                    "inputs": ["image"],
                    "every": 1,
                    "heads": 2,
                    "ffn": 0,
                    "shared": True,
                    "gate": "token",
                    "reads": "all",
                }
            },
            "modalities": {
                "image": row("image", hub("hub", "siglip"), hub("hub_vision", "siglip"), "linear", insert="inject"),
                "sound": row("audio", SOUND, MEL, "linear"),
            },
        },
        asks=[("image",), ("image", "sound")],
        models=tiny("siglip"),
    ),
    Archetype(
        "TVL-LLaMA",
        "touch and pictures by one map and a bind network, added to every layer by zero-gated attention, "
        "TVL-LLaMA (arXiv:2402.13232)",
        {
            "adapters": {"touching": {"type": "gated_attention", "inputs": ["image", "touch"]}},
            "components": {"bind": {"room": "projectors", **RESIDUAL}},
            "modalities": {
                "image": row(
                    "image", IMAGE, VIT, [{"type": "average", "factor": None}, {"component": "bind"}], insert="inject"
                ),
                "touch": row(
                    "image", IMAGE, VIT, [{"type": "average", "factor": None}, {"component": "bind"}], insert="inject"
                ),
            },
        },
        asks=[("image",), ("touch",), ("image", "touch")],
    ),
    Archetype(
        "MuMu-LLaMA",
        "a block of layers for each modality: music by a mixture of all layers of its encoder, the rows "
        "of ViT and ViViT by a weight for each place, MuMu-LLaMA (arXiv:2412.06660)",
        {
            "adapters": {
                "blocks": {
                    "type": "gated_attention",
                    "inputs": ["music", "image", "clip"],
                    "layers": {"music": [1], "image": [2], "clip": [3]},
                },
                "lora": LORA,
            },
            "modalities": {
                "music": row(
                    "audio",
                    hub("hub", "hubert_10ms"),
                    hub("hub_speech", "hubert_10ms", taps="all"),
                    [
                        {"type": "layer_mix", "taps": [0, 1, 2], "mode": "linear"},
                        {"type": "average", "factor": None},
                        RESIDUAL,
                    ],
                    insert="inject",
                ),
                "image": row(
                    "image",
                    hub("hub", "vit"),
                    hub("hub_vision", "vit", tokens="all"),
                    [{"type": "row_mix", "rows": 5}, RESIDUAL],
                    insert="inject",
                ),
                "clip": row(
                    "video",
                    hub("hub_video", "vivit", frames=4, exact=True),
                    hub("hub_video", "vivit", tokens="all"),
                    [{"type": "row_mix", "rows": 9}, RESIDUAL],
                    insert="inject",
                ),
            },
        },
        asks=[("music",), ("image",), ("clip",)],
        forms={"music": SHORT},
        models=tiny("hubert_10ms", "vit", "vivit"),
        backbone=deeper,
    ),
    Archetype(
        "Uni-MoE",
        "experts in the place of feed-forwards; an MLP for pictures, a Q-Former and a linear map for sounds, "
        "Uni-MoE (arXiv:2405.11273)",
        {
            "adapters": {
                "experts": {"type": "moe_ffn", "experts": 3, "top_k": 2},
                "lora": {**LORA, "targets": ["*.q_proj", "*.v_proj"]},
            },
            "modalities": {
                "image": row(
                    "image", hub("hub", "clip"), hub("hub_vision", "clip", layer=-2), {"type": "mlp", "norm": False}
                ),
                "sound": row("audio", BANK, BEATS, [{"type": "qformer", **QUERIES}, "linear"]),
                "speech": row(
                    "audio",
                    hub("hub", "whisper", trim=True),
                    hub("hub_speech", "whisper"),
                    [{"type": "qformer", **QUERIES}, "linear"],
                ),
            },
        },
        asks=[("image",), ("sound",), ("speech",), ("image", "speech")],
        forms={"sound": SHORT, "speech": SHORT},
        models=tiny("clip", "whisper"),
    ),
    Archetype(
        "Uni-MoE-2.0-Omni",
        "as many experts as reach a share of the router together, some shared, some that do nothing, those of "
        "sound apart, Uni-MoE-2.0-Omni (arXiv:2511.12609)",
        {
            "adapters": {
                "experts": {
                    "type": "moe_ffn",
                    "experts": 4,
                    "top_p": 0.7,
                    "shared": 1,
                    "null": 1,
                    "residual": True,
                    "route": {"sound": [2, 3]},
                }
            },
            "modalities": {
                "image": row("image", hub("hub", "siglip"), hub("hub_vision", "siglip"), "mlp"),
                "sound": row(
                    "audio",
                    hub("hub", "whisper", trim=True),
                    hub("hub_speech", "whisper"),
                    [{"type": "qformer", **QUERIES}, "linear"],
                ),
            },
        },
        asks=[("image",), ("sound",), ("image", "sound")],
        forms={"sound": SHORT},
        models=tiny("siglip", "whisper"),
    ),
    Archetype(
        "Llama-AVSR",
        "what is seen of lips and heard of a voice, rows stacked and mapped apart, adapters at queries and "
        "values, Llama-AVSR (arXiv:2409.12319)",
        {
            "context": {"interleave": "in_order"},
            "adapters": {"lora": {**LORA, "targets": ["*.q_proj", "*.v_proj"]}},
            "modalities": {
                "lips": row(
                    "video", FRAMES, VIT, [{"type": "stack", "factor": 4}, {"type": "mlp", "activation": "relu"}]
                ),
                "voice": row(
                    "audio",
                    hub("hub", "whisper", trim=True),
                    hub("hub_speech", "whisper"),
                    [{"type": "stack", "factor": 3}, {"type": "mlp", "activation": "relu"}],
                ),
                "speaker": {"payload": "video", "split": ["lips", "voice"]},
            },
        },
        asks=[("speaker",), ("lips",), ("voice",)],
        forms={"speaker": {"frames": 1, "rate_hz": 8.0, "sound": True}, "lips": {"frames": 2}, "voice": SHORT},
        models=tiny("whisper"),
    ),
    Archetype(
        "Octavius",
        "LoRA experts chosen by the whole conversation, pictures by an MLP, points resampled, Octavius "
        "(arXiv:2311.02684) after LAMM (arXiv:2306.06687)",
        {
            "adapters": {"experts": {"type": "lora_experts", "experts": 3, "top_k": 2, "rank": 4, "alpha": 8.0}},
            "modalities": {
                "image": row("image", hub("hub", "clip"), hub("hub_vision", "clip"), "mlp"),
                "points": row("points", CLOUD, POINTS, PERCEIVER),
            },
        },
        asks=[("image",), ("points",)],
        models=tiny("clip"),
    ),
    Archetype(
        "Phi-4-Multimodal",
        "an adapter of the language model for conversations with pictures and one for those with speech, its base "
        "never changed, Phi-4-Multimodal (arXiv:2503.01743)",
        {
            "adapters": {
                "vision_lora": {**LORA, "routes": ["image"], "when": "document"},
                "speech_lora": {**LORA, "routes": ["speech"], "when": "document"},
            },
            "modalities": {
                "image": row(
                    "image",
                    hub("hub", "siglip"),
                    hub("hub_vision", "siglip", layer=-2),
                    [{"type": "mlp", "norm": False}],
                ),
                "speech": row("audio", hub("hub", "phi"), hub("phi_audio", "phi"), {"type": "mlp", "norm": False}),
            },
        },
        asks=[("image",), ("speech",), ("image", "speech")],
        forms={"speech": SHORT},
        models=tiny("siglip", "phi"),
    ),
    Archetype(
        "DAMC",
        "language models tuned for one modality each, composed: the adapters of each modality on its slots, those "
        "of text merged with coefficients, DAMC of Model Composition (arXiv:2402.12750)",
        {
            "adapters": {
                "image_lora": {**LORA, "routes": ["image"]},
                "sound_lora": {**LORA, "routes": ["sound"]},
                "points_lora": {**LORA, "routes": ["points"]},
                "text_lora": {**LORA, "routes": ["text"], "merged": {"image": 0.4, "sound": 0.3, "points": 0.3}},
            },
            "modalities": {
                "image": row("image", hub("hub", "clip"), hub("hub_vision", "clip"), "mlp"),
                "sound": row("audio", BANK, BEATS, {"type": "qformer", **QUERIES}),
                "points": row("points", CLOUD, POINTS, "mlp"),
            },
        },
        asks=[("image",), ("sound",), ("points",), ("image", "sound")],
        forms={"sound": SHORT},
        models=tiny("clip"),
        # In the last layer nobody reads a slot of media but for its keys and values.
        unmoved=[
            f"{name}_lora.*.layers.1.*.{part}.*"
            for name in ("image", "sound", "points")
            for part in ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        ],
    ),
]
