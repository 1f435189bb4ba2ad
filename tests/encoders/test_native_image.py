"""Pictures at their own size: our own code gives the numbers of transformers' own processor."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import Qwen2VLImageProcessorPil

from omniloom.encoders.native_image import NativeImageProcessor, fitting_size
from omniloom.errors import ConfigError, MediaError, MissingAssetError
from omniloom.media import Image, Video
from omniloom.registry import build, spec_of
from tests.encoders.rounding import assert_rounded, by_channel, noise, patches, soft_noise


def picture(height: int, width: int) -> Image:
    return Image(noise(height, width))


def clip(frames: int, height: int = 60, width: int = 90, rate_hz: float = 10.0) -> Video:
    return Video(np.stack([noise(height, width) for _ in range(frames)]), np.arange(frames) / rate_hz)


@pytest.mark.parametrize("size", [(84, 120), (10, 12), (28, 28), (30, 21), (300, 431), (15, 160), (700, 900)])
@pytest.mark.parametrize(
    "options", [{}, {"min_pixels": 56 * 56, "max_pixels": 200 * 200}, {"patch_size": 16, "image_mean": [0.5] * 3}]
)
def test_pictures_equal_those_of_transformers(size, options, tmp_path):
    published = Qwen2VLImageProcessorPil(**options)
    published.save_pretrained(tmp_path)
    image, part = picture(*size), NativeImageProcessor(id=str(tmp_path))
    expected = published(image.pixels, return_tensors="pt")
    raw = part(image)
    patch = options.get("patch_size", 14)
    torch.testing.assert_close(patches(raw, patch, 2), expected["pixel_values"], atol=1e-6, rtol=1e-6)
    assert list(part.shape(raw).grid) == expected["image_grid_thw"][0].tolist()


@pytest.mark.parametrize("size", [(120, 80), (431, 300), (640, 97)])
def test_tall_pictures_equal_those_of_transformers_up_to_rounding(size, tmp_path):
    published = Qwen2VLImageProcessorPil(max_pixels=200 * 200)
    published.save_pretrained(tmp_path)
    pixels, part = soft_noise(*size), NativeImageProcessor(id=str(tmp_path))
    expected = published(pixels, return_tensors="pt")
    raw = part(Image(pixels))
    assert list(part.shape(raw).grid) == expected["image_grid_thw"][0].tolist()
    ours = by_channel(patches(raw, 14, 2))
    assert_rounded(ours, by_channel(expected["pixel_values"]), published.image_std)


def test_without_an_id_the_processor_is_that_of_qwen2_vl():
    image = picture(56, 100)
    expected = Qwen2VLImageProcessorPil()(image.pixels, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(patches(NativeImageProcessor()(image), 14, 2), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        {"min_pixels": 3136, "max_pixels": 6272},
        {"size": {"min_pixels": 3136, "max_pixels": 6272}},
        {"min_pixels": None, "max_pixels": None, "size": {"shortest_edge": 3136, "longest_edge": 6272}},
        {"max_pixels": 6272, "size": {"shortest_edge": 3136, "longest_edge": 99_999}},
    ],
)
def test_bounds_are_read_wherever_files_write_them(config, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    raw = NativeImageProcessor(id=str(tmp_path))(picture(500, 500))
    assert raw.shape == (2, 3, 56, 56)  # 6272 pixels are 79.2 squared; two merged cells of 28 fit in


@pytest.mark.parametrize(
    "height,width,count", [(100, 100, 1), (333, 517, 1), (97, 1020, 6), (5, 700, 2), (2000, 31, 4)]
)
def test_sizes_stay_within_the_bounds_wherever_cells_allow_it(height, width, count):
    y, x = fitting_size(height, width, 28, min_px=50_000, max_px=200_000, count=count)
    assert y % 28 == 0 and x % 28 == 0 and count * y * x >= 50_000
    assert count * y * x <= 200_000 or min(y, x) == 28


def test_a_picture_is_repeated_to_fill_the_temporal_patch():
    raw = NativeImageProcessor()(picture(60, 60))
    assert raw.shape[0] == 2 and torch.equal(raw[0], raw[1])


def test_frames_of_a_clip_are_pictures_in_order_and_the_last_one_fills_the_patch():
    video, part = clip(5), NativeImageProcessor(frames=8)
    raw, single = part(video), NativeImageProcessor()
    assert part.payload_kind == "video" and raw.shape[0] == 6
    for index, frame in enumerate([0, 1, 2, 3, 4, 4]):
        assert torch.equal(raw[index], single(Image(video.frames[frame]))[0])
    assert part.shape(raw).grid[0] == 3 and part.shape(raw).times is None


def test_frames_at_a_rate_have_the_time_of_their_temporal_patch():
    part = NativeImageProcessor(frames=8, rate_hz=2.0)
    shape = part.shape(part(clip(30)))  # 0 to 2.9 s hold marks at 0, 0.5 ... 2.5: three temporal patches
    cells = shape.grid[1] * shape.grid[2]
    assert shape.grid[0] == 3 and shape.times == tuple(time for time in (0.0, 1.0, 2.0) for _ in range(cells))


def test_a_long_clip_is_refused_and_split_into_windows():
    part = NativeImageProcessor(frames=4, rate_hz=2.0)
    with pytest.raises(MediaError, match="video_too_large"):
        part(clip(30))
    assert [part(window).shape[0] for window in part.split(clip(30))] == [4, 2]


def test_bounds_may_hold_for_all_frames_of_an_item():
    video = clip(6, 280, 280)
    each = NativeImageProcessor(frames=6, max_px=28 * 28 * 60)(video)
    shared = NativeImageProcessor(frames=6, max_px=28 * 28 * 60, bounds="item")(video)
    assert each.shape[-2:] == (196, 196)  # 60 cells are 7.7 squared
    assert shared.shape[-2:] == (84, 84)  # 10 cells for each of 6 frames are 3.2 squared


@pytest.mark.parametrize("frames", [2, 3, 5, 8])
@pytest.mark.parametrize("size", [(100, 100), (40, 300), (190, 239), (1, 71), (286, 8)])
def test_the_shared_bounds_are_those_of_qwen3_vl(frames, size, tmp_path):
    module = pytest.importorskip("transformers.models.qwen3_vl.video_processing_qwen3_vl")
    least, most = 128 * 1024, 192 * 1024
    config = {"video_processor_type": "Qwen3VLVideoProcessor", "min_pixels": least, "max_pixels": most}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(config))
    raw = NativeImageProcessor(id=str(tmp_path), frames=8)(clip(frames, *size))
    assert raw.shape[-2:] == module.smart_resize(frames, *size, 2, 32, least, most)


def test_a_frame_alone_counts_as_a_whole_temporal_patch():
    part = NativeImageProcessor(frames=4, min_px=28 * 28, max_px=28 * 28 * 32, bounds="item")
    assert part(clip(1, 280, 280)).shape == part(clip(2, 280, 280)).shape == (2, 3, 112, 112)


@pytest.mark.parametrize(
    "kind,patch,least,most", [("Qwen2VL", 14, 100_352, 602_112), ("Qwen3VL", 16, 131_072, 786_432)]
)
def test_clips_of_a_file_that_says_little_are_as_its_kind_takes_them(kind, patch, least, most, tmp_path):
    file = tmp_path / "video_preprocessor_config.json"
    file.write_text(json.dumps({"video_processor_type": f"{kind}VideoProcessor"}))
    part = NativeImageProcessor(id=str(tmp_path), frames=4)
    assert (part.patch_px, part.least_px, part.most_px) == (patch, least, most)


@pytest.mark.parametrize("kind,side", [("Qwen2VLVideoProcessor", 196), ("Qwen3VLVideoProcessor", 84)])
def test_the_kind_of_the_published_processor_says_whether_bounds_are_shared(kind, side, tmp_path):
    size = {"shortest_edge": 3136, "longest_edge": 28 * 28 * 60}
    config = {"video_processor_type": kind, "size": size, "patch_size": 14}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"max_pixels": 3136}))
    part, video = NativeImageProcessor(id=str(tmp_path), frames=6), clip(6, 280, 280)
    assert part(video).shape[-2:] == (side, side)
    part.save_config(tmp_path)
    assert torch.equal(NativeImageProcessor(id=str(tmp_path), frames=6)(video), part(video))


def test_a_picture_that_is_all_length_is_refused():
    with pytest.raises(MediaError, match="invalid_image"):
        NativeImageProcessor()(picture(1, 201))


def test_bounds_that_leave_nothing_are_refused():
    for options in ({"max_px": 500}, {"min_px": 9000, "max_px": 8000}, {"bounds": "clip"}, {"rate_hz": 1.0}):
        with pytest.raises(ConfigError):
            NativeImageProcessor(**options)


@pytest.mark.parametrize("option", [{"cap_pixels_per_frame": True}, {"do_normalize": False}, {"rescale_factor": 1.0}])
def test_a_file_that_asks_for_what_is_not_computed_is_refused(option, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(option))
    with pytest.raises(ConfigError, match=next(iter(option))):
        NativeImageProcessor(id=str(tmp_path), frames=4)


def test_the_filter_of_the_file_is_taken(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"resample": 0, "image_mean": [0] * 3}))
    pixels = np.where(noise(20, 20) > 127, 255, 0).astype(np.uint8)
    assert len(NativeImageProcessor(id=str(tmp_path))(Image(pixels)).unique()) == 4  # black, and white over each std


def test_a_folder_without_a_configuration_is_named(tmp_path):
    with pytest.raises(MissingAssetError, match=r"preprocessor_config\.json"):
        NativeImageProcessor(id=str(tmp_path))


def test_a_saved_configuration_builds_the_same_processor(tmp_path):
    part = NativeImageProcessor()
    part.save_config(tmp_path)
    image = picture(70, 100)
    assert torch.equal(part(image), NativeImageProcessor(id=str(tmp_path))(image))


def test_a_spec_read_back_builds_an_equal_processor():
    part = build("processors", {"type": "native_image", "frames": 4, "rate_hz": 2.0, "max_px": 9000})
    read = spec_of("processors", part)
    assert read["max_px"] == 9000 and spec_of("processors", build("processors", read)) == read
