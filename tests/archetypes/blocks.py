"""What archetypes are put together from: rows of the table, and parts at tiny sizes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.encoders.tiny_models import save_tiny_model
from tests.projectors.tiny_blip import save_tiny

VIT = {"type": "patch_vit", "patch_px": 8, "width": 32, "depth": 1, "heads": 2}
MEL = {"type": "log_mel_conv", "num_mels": 16, "width": 32, "depth": 1, "heads": 2, "conv_width": 8}
IMAGE = {"type": "image", "size_px": 16}
SOUND = {"type": "log_mel", "num_mels": 16}
FRAMES = {"type": "video", "frames": 8, "rate_hz": 2.0, "size_px": 16}
BANK = {"type": "filter_bank", "num_mels": 16}
BEATS = {
    "type": "beats",
    "weights": False,
    "num_mels": 16,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "hidden": 32,
    "stem_width": 8,
    "patch": 8,
    "reach": 8,
    "groups": 2,
    "buckets": 16,
    "distance": 10,
}
JOINT = {"type": "joint", "weights": False, "width": 16, "depth": 1, "heads": 2, "joint_width": 16}
JOINT_PICTURE = {**JOINT, "kind": "vision", "size": [16, 16], "patch": 8}
JOINT_SOUND = {**JOINT, "kind": "audio", "size": [16, 22], "patch": 8, "stride": 7}
SOUND_CLIPS = {"type": "sound_clips", "clips": 2, "clip_s": 0.2, "num_mels": 16, "frames": 22}
CLOUD = {"type": "points", "count": 16}
POINTS = {"type": "point_net", "width": 16, "groups": 4, "neighbours": 5, "depth": 1, "heads": 2}
MOTION = {"type": "series_conv", "channels": 2, "width": 16, "stride": 8, "heads": 2}
QUERIES = {"queries": 4, "width": 16, "depth": 1, "heads": 2}
# Tiny models read sounds of at most 0.4 seconds.
SHORT = {"seconds": 0.2}


def row(payload: str, processor: object, encoder: object, projector: object, **more: object) -> dict[str, Any]:
    """A row of the table of modalities that comes in."""
    return {"payload": payload, "in": {"processor": processor, "encoder": encoder, "projector": projector, **more}}


def hub(room: str, name: str, **options: object) -> dict[str, Any]:
    """A part that reads the tiny model `name` beside the run."""
    return {"type": room, "id": f"./{name}", **options}


def tiny(*names: str) -> dict[str, Callable[[Path], Any]]:
    """Tiny published encoders beside the run, by the names of `tests.encoders.tiny_models`."""
    return {name: partial(_save_tiny, name) for name in names}


def _save_tiny(name: str, folder: Path) -> None:
    save_tiny_model(folder, name, change=awake)


@torch.no_grad()
def awake(model: torch.nn.Module) -> None:
    """Weights that keep the size of what passes, as published ones do and new ones of 0.02 do not: a frozen tower then
    tells its media apart, and a frozen language model listens."""
    for value in model.parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)


def per_frame(projector: object) -> dict[str, Any]:
    """The projector on each frame of a clip, or each tile of a picture, alone."""
    return {"type": "per_frame", "projector": projector}


def blip(name: str) -> dict[str, Callable[[Path], Any]]:
    """A tiny "blip2" or "instructblip" beside the run; its vision tower is 16 wide, its map goes to 32."""
    return {name: partial(_save_blip, name)}


def _save_blip(name: str, folder: Path) -> None:
    save_tiny(folder, rows=16, width=32)
    for file in (folder / name).iterdir():
        shutil.move(str(file), folder / file.name)
