"""Pictures as published processors make them of 8-bit pixels, computed by our own code and Pillow.

A configuration says: fill up to a square, scale, cut out the middle, scale values, subtract the mean and divide by the
deviation. SigLIP 2's of any proportions (NaFlex, arXiv:2502.14786, section 2.4.2) names a number of patches instead of
a size: pictures keep their proportions and have as many patches as stay within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from omniloom.encoders.scaling import scaled
from omniloom.errors import ConfigError

__all__ = ["PICTURES", "check_picture_config", "processor_kind", "read_picture"]

_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CROP = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
_SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
_LARGER = {"size": {"height": 384, "width": 384}}

PICTURES: dict[str, dict[str, Any]] = {
    "Bit": {**_CLIP, **_CROP, "resample": 3},
    "Blip": {**_CLIP, **_SQUARE, **_LARGER, "resample": 3},
    "CLIP": {**_CLIP, **_CROP, "resample": 3},
    "GotOcr2": {**_CLIP, **_SQUARE, **_LARGER, "resample": 3},
    "Llava": {**_CLIP, **_CROP, "resample": 3},
    "LlavaOnevision": {**_CLIP, **_SQUARE, **_LARGER, "resample": 3},
    "Siglip": {**_HALF, **_SQUARE, "resample": 3},
    "Siglip2": {**_HALF, "patch_size": 16, "max_num_patches": 256, "do_center_crop": False, "resample": 2},
    "Timesformer": {**_IMAGENET, **_CROP, "resample": 2},
    "ViT": {**_HALF, **_SQUARE, "resample": 2},
    "VideoMAE": {**_HALF, **_CROP, "resample": 2},
    # Values become -1 to 1, and then the mean is subtracted all the same.
    "Vivit": {**_HALF, **_CROP, "size": {"shortest_edge": 256}, "resample": 2, "rescale_factor": 1 / 127.5}
    | {"offset": True},
}
"""What a file leaves out, by kind of processor. `resample` is Pillow's number: 2 bilinear, 3 bicubic."""
_BOTH_SIDES = ("Blip", "GotOcr2", "ViT")


def processor_kind(name: str) -> str:
    """The kind in the name of a published processor's class: CLIP of CLIPImageProcessorFast."""
    for suffix in ("Fast", "Pil", "ImageProcessor", "VideoProcessor", "FeatureExtractor"):
        name = name.removesuffix(suffix)
    return name


def check_picture_config(id: str, kind: str, config: dict[str, Any]) -> None:
    """Refuse sizes that would be guessed at, and write older ones as newer files do.

    Args:
        kind: a key of PICTURES; of some kinds one number is both sides, of others the shorter one.
    Raises:
        ConfigError: sides of other names, a middle that is larger than what it is cut from, or no patch at all.
    """
    if "max_num_patches" in PICTURES[kind]:
        if min(config["max_num_patches"], config["patch_size"]) < 1:
            raise ConfigError(
                f"{id!r} has max_num_patches={config['max_num_patches']} of {config['patch_size']} pixels; expected "
                "one or more. Correct its configuration."
            )
        return
    if config.get("image_processor_type", "").startswith("LlavaImage") and config.get("do_pad"):
        config["pad_to_square"] = True
    if isinstance(config["size"], int):
        side = config["size"]
        config["size"] = {"height": side, "width": side} if kind in _BOTH_SIDES else {"shortest_edge": side}
    keys = set(config["size"])
    if keys not in ({"shortest_edge"}, {"height", "width"}):
        raise ConfigError(f"{id!r} resizes by {sorted(keys)}; known are shortest_edge, or height and width.")
    if config["do_center_crop"] and config.get("do_resize", True):
        crop, side = max(_height_width(config["crop_size"])), min(config["size"].values())
        if crop > side:
            raise ConfigError(f"{id!r} crops {crop} pixels of a picture resized to {side}. Correct its configuration.")


def read_picture(config: Mapping[str, Any], pixels: np.ndarray) -> Tensor:
    """uint8 (Y, X, 3) to float32 (3, Y', X')."""
    picture = Pillow.fromarray(pixels)
    if config.get("pad_to_square"):
        picture = _squared(picture, config["image_mean"])
    if config.get("do_resize", True):
        height, width = _resized(picture.height, picture.width, config)
        picture = scaled(picture, height, width, config["resample"])
    if config["do_center_crop"]:
        height, width = _height_width(config["crop_size"])
        # Where the picture is smaller, black surrounds it, and of an odd rest the larger part lies right and below.
        left, top = int((picture.width - width) / 2), int((picture.height - height) / 2)
        picture = picture.crop((left, top, left + width, top + height))
    raw = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(torch.float32)
    if config.get("do_rescale", True):
        raw = raw * config.get("rescale_factor", 1 / 255) - float(config.get("offset", 0))
    if config.get("do_normalize", True):
        mean, std = (raw.new_tensor(config[key])[:, None, None] for key in ("image_mean", "image_std"))
        raw = (raw - mean) / std
    return raw.contiguous()


def _squared(picture: Pillow.Image, mean: Sequence[float]) -> Pillow.Image:
    """The picture in the middle of a square of its mean colour."""
    side = max(picture.size)
    square = Pillow.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _height_width(size: int | Mapping[str, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def _resized(height: int, width: int, config: Mapping[str, Any]) -> tuple[int, int]:
    if "size" not in config:
        return _within_patches(height, width, config["patch_size"], config["max_num_patches"])
    size = config["size"]
    if "shortest_edge" not in size:
        return size["height"], size["width"]
    side = size["shortest_edge"]
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def _within_patches(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """The largest size in whole patches, each side rounded up, of at most `most` patches.

    The scale is found by halving down to 1e-5, between bounds that decide the last pixel where it is a near thing.
    """

    def sides(scale: float) -> tuple[int, int]:
        return max(1, math.ceil(height * scale / patch)), max(1, math.ceil(width * scale / patch))

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        rows, columns = sides(middle)
        low, high = (middle, high) if rows * columns <= most else (low, middle)
    rows, columns = sides(low)
    return rows * patch, columns * patch
