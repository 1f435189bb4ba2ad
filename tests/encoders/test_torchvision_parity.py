"""Published processors as transformers runs them where torchvision is: sizes, crops, order and grids are equal.

Values differ by roundings only. Both scale 8-bit pixels along x, round, and scale along y, but weigh with other
numbers of bits: single values are one step of 8 bits apart, rarely two. On average it is 0.01
steps for bicubic (CLIP, SigLIP, DINOv2, BLIP, the LLaVA and Qwen-VL families), and for bilinear (ViT, VideoMAE,
TimeSformer, ViViT) up to 0.06, or 0.27 where torchvision goes through floats for want of AVX2. Two steps, and half of
one on average, are therefore the tolerance of all. What is not scaled is equal up to float32.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Pillow

from omniloom.encoders.hub_frames import HubVideoProcessor
from omniloom.encoders.hub_processor import HubProcessor
from omniloom.encoders.native_image import NativeImageProcessor
from omniloom.encoders.tiles import TilesProcessor
from omniloom.media import Image, Video, load
from omniloom.testing.doubles import tiny_tokenizer
from tests.encoders.rounding import assert_rounded, by_channel, noise, patches

pytest.importorskip("torchvision")

SIZES = [(1, 1), (1, 9), (7, 3), (33, 47), (50, 211), (640, 97), (13, 900), (300, 400)]
CLIPS = [(4, 30, 40), (5, 97, 64), (5, 190, 239), (2, 1, 71), (3, 240, 135), (6, 50, 211)]
_LAST = {"input_data_format": "channels_last", "return_tensors": "pt"}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIP", {}),
    "clip-336": ("CLIP", {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}),
    "siglip": ("Siglip", {}),
    "siglip-384": ("Siglip", {"size": {"height": 384, "width": 384}}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 256}, **_IMAGENET}),
    "vit": ("ViT", {}),
    "blip": ("Blip", {}),
    "llava": ("Llava", {}),
    "llava, squared": ("Llava", {"do_pad": True}),
    "cut only": ("CLIP", {"do_resize": False, "crop_size": {"height": 45, "width": 96}}),
}
PINPOINTS = [[64, 128], [128, 64], [128, 128], [192, 64], [64, 192]]
TILES: dict[str, tuple[str, dict[str, Any]]] = {
    "llava_next": ("LlavaNext", {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}),
    "llava_onevision": ("LlavaOnevision", {"size": {"height": 64, "width": 64}}),
}
NATIVE: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"max_pixels": 400_000},
    "as the files of qwen2.5 have it": {"min_pixels": 3136, "max_pixels": 12_845_056},
    "qwen3_vl": {"patch_size": 16, "min_pixels": 65_536, "max_pixels": 200_000, "image_mean": [0.5] * 3},
}
FRAMES = {
    "LlavaOnevision": {"size": {"height": 96, "width": 96}},
    "VideoMAE": {},
    "Timesformer": {},
    "Vivit": {},
}


def saved(folder: Path, kind: str, options: dict[str, Any]) -> Any:
    """transformers' own processor of that name, and its file in the folder."""
    published = getattr(transformers, kind)(**options)
    assert published.backend == "torchvision"
    published.save_pretrained(folder)
    return published


def clip(frames: int, height: int, width: int) -> Video:
    return Video(np.stack([noise(height, width) for _ in range(frames)]), np.arange(frames) / 10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_one_size(name, size, tmp_path):
    kind, options = PICTURES[name]
    published, pixels = saved(tmp_path, f"{kind}ImageProcessor", options), noise(*size)
    expected = published(images=pixels, **_LAST)["pixel_values"][0]
    assert_rounded(HubProcessor(id=str(tmp_path))(Image(pixels)), expected, published.image_std)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_within_a_number_of_patches(size, tmp_path):
    published, pixels = saved(tmp_path, "Siglip2ImageProcessor", {}), noise(*size)
    expected = published(images=pixels, **_LAST)
    rows, columns = expected["spatial_shapes"][0].tolist()
    cells = expected["pixel_values"][0, : rows * columns].reshape(rows, columns, 16, 16, 3)
    picture = cells.permute(4, 0, 2, 1, 3).reshape(3, rows * 16, columns * 16)
    assert_rounded(HubProcessor(id=str(tmp_path))(Image(pixels)), picture, published.image_std)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip", "ViT", "Blip"])
def test_one_number_as_the_size(kind, tmp_path):
    published, pixels = saved(tmp_path, f"{kind}ImageProcessor", {}), noise(40, 60)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text()) | {"size": 32, "do_center_crop": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    published = type(published).from_pretrained(tmp_path)
    expected = published(images=pixels, **_LAST)["pixel_values"][0]
    assert_rounded(HubProcessor(id=str(tmp_path))(Image(pixels)), expected, published.image_std)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "1", "P", "CMYK"])
def test_files_of_other_modes_through_the_gateway(mode, tmp_path):
    published = saved(tmp_path, "CLIPImageProcessor", {})
    picture = Pillow.fromarray(np.dstack([noise(50, 70), noise(50, 70)[..., :1]]), "RGBA")
    picture = picture if mode == "RGBA" else picture.convert("RGB").convert(mode)
    if mode == "LA":
        picture.putalpha(Pillow.fromarray(noise(50, 70)[..., 0]))
    content = io.BytesIO()
    picture.save(content, "JPEG" if mode == "CMYK" else "PNG", **({"transparency": 3} if mode == "P" else {}))
    expected = published(images=Pillow.open(content), return_tensors="pt")["pixel_values"][0]
    raw = HubProcessor(id=str(tmp_path))(load(content.getvalue(), "image"))
    assert_rounded(raw, expected, published.image_std)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TILES)
def test_a_picture_in_tiles(name, size, tmp_path):
    kind, options = TILES[name]
    published = saved(tmp_path, f"{kind}ImageProcessor", {**options, "image_grid_pinpoints": PINPOINTS})
    pixels = noise(*size)
    expected, raw = published(images=pixels, **_LAST), TilesProcessor(id=str(tmp_path))(Image(pixels))
    assert_rounded(raw["pixels"], expected["pixel_values"][0], published.image_std)
    assert raw["mosaic"][2:].tolist() == list(expected["image_sizes"][0]) == list(size)


@pytest.mark.parametrize("size", SIZES)
def test_several_pictures_of_llava_onevision_are_squared(size, tmp_path):
    published = saved(tmp_path, "LlavaOnevisionImageProcessor", {"size": {"height": 64, "width": 64}})
    pixels = noise(*size)
    expected = published(images=[[pixels, noise(9, 9)]], **_LAST)["pixel_values"][0, 0]
    assert_rounded(HubProcessor(id=str(tmp_path), square=True)(Image(pixels)), expected, published.image_std)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("most", [1, 6])
def test_the_grid_of_the_nearest_proportions(most, size, tmp_path):
    options = {"size": {"height": 64, "width": 64}, "crop_to_patches": True, "max_patches": most}
    published, pixels = saved(tmp_path, "GotOcr2ImageProcessor", options), noise(*size)
    expected = published(images=pixels, **_LAST)["pixel_values"]
    whole_first = torch.cat([expected[-1:], expected[:-1]])  # it puts the whole behind its tiles
    raw = TilesProcessor(id=str(tmp_path), max_tiles=most)(Image(pixels))
    assert_rounded(raw["pixels"], whole_first, published.image_std)


@pytest.mark.parametrize("size", [*SIZES, (14, 14), (43, 42), (3, 599)])
@pytest.mark.parametrize("name", NATIVE)
def test_pictures_of_their_own_size(name, size, tmp_path):
    published, pixels = saved(tmp_path, "Qwen2VLImageProcessor", NATIVE[name]), noise(*size)
    part, expected = NativeImageProcessor(id=str(tmp_path)), published(images=pixels, **_LAST)
    raw = part(Image(pixels))
    assert list(part.shape(raw).grid) == expected["image_grid_thw"][0].tolist()
    ours = by_channel(patches(raw, published.patch_size, 2))
    assert_rounded(ours, by_channel(expected["pixel_values"]), published.image_std)


@pytest.mark.parametrize("size", CLIPS)
@pytest.mark.parametrize("kind,bounds", [("Qwen2VL", (3136, 60_000)), ("Qwen3VL", (60_000, 200_000))])
def test_clips_of_their_own_size(kind, bounds, size, tmp_path):
    options = {"size": {"shortest_edge": bounds[0], "longest_edge": bounds[1]}, "do_sample_frames": False}
    published, video = saved(tmp_path, f"{kind}VideoProcessor", options), clip(*size)
    part, expected = NativeImageProcessor(id=str(tmp_path), frames=8), published(videos=[video.frames], **_LAST)
    raw = part(video)
    assert list(part.shape(raw).grid) == expected["video_grid_thw"][0].tolist()
    ours = by_channel(patches(raw, published.patch_size, 2))
    assert_rounded(ours, by_channel(expected["pixel_values_videos"]), published.image_std)


@pytest.mark.parametrize("size", CLIPS)
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_one_size(kind, size, tmp_path):
    published, video = saved(tmp_path, f"{kind}VideoProcessor", FRAMES[kind]), clip(*size)
    batch = published(videos=[video.frames], **_LAST)
    expected = batch["pixel_values_videos" if "pixel_values_videos" in batch else "pixel_values"][0]
    raw = HubVideoProcessor(id=str(tmp_path), frames=8)(video)
    assert_rounded(raw, expected, published.image_std, scale=published.rescale_factor)


@pytest.mark.parametrize("size", [(3, 30, 40), (2, 1080, 1920), (4, 480, 640)])
def test_qwen2_5_omni_bounds_its_clips_by_itself(size, tmp_path):
    files = {"min_pixels": 3136, "max_pixels": 12_845_056}
    parts = [getattr(transformers, f"Qwen2VL{kind}Processor")(**files) for kind in ("Image", "Video")]
    tokenizer = tiny_tokenizer()
    specials = ("audio", "audio_bos", "audio_eos", "vision_bos", "vision_eos", "image", "video")
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in specials]})
    for name in specials:
        setattr(tokenizer, f"{name}_token", f"<|{name}|>")
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<|{name}|>"))
    sounds = transformers.WhisperFeatureExtractor()
    published = transformers.Qwen2_5OmniProcessor(*parts, sounds, tokenizer, chat_template="")
    expected = published(text="<|video|>", videos=[np.zeros((*size, 3), np.uint8)], return_tensors="pt")
    parts[0].save_pretrained(tmp_path)
    bounds = {"min_px": 128 * 28 * 28, "max_px": 768 * 28 * 28}  # as omniloom.published.qwen_omni writes them
    part = NativeImageProcessor(id=str(tmp_path), frames=8, **bounds)
    raw = part(Video(np.zeros((*size, 3), np.uint8), np.arange(size[0]) / 10))
    assert list(part.shape(raw).grid) == expected["video_grid_thw"][0].tolist()
