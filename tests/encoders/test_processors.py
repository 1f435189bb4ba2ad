from __future__ import annotations

import numpy as np
import pytest
import torch

from omniloom.encoders.processors import (
    ImageProcessor,
    LogMelProcessor,
    PointsProcessor,
    SeriesProcessor,
    VideoProcessor,
)
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Audio, Image, Points, Series, Video
from omniloom.registry import BUILT_IN, build, spec_of

NOISE = np.random.default_rng(0)


def picture(height=20, width=30):
    return Image(NOISE.integers(0, 256, (height, width, 3), dtype=np.uint8))


def tone(seconds=1.0, rate_hz=16_000, hz=440.0):
    return Audio(np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)[None].astype(np.float32), rate_hz)


def clip(count=10, fps=5.0):
    frames = np.full((count, 8, 8, 3), 0, np.uint8)
    frames += np.arange(count, dtype=np.uint8)[:, None, None, None] * 10
    return Video(frames, np.arange(count) / fps)


def series(steps=40, channels=6, rate_hz=50.0):
    return Series(NOISE.standard_normal((steps, channels)).astype(np.float32), rate_hz)


def cloud(count=300, features=2):
    xyz, extra = NOISE.standard_normal((count, 3)), NOISE.standard_normal((count, features))
    return Points(xyz.astype(np.float32), extra.astype(np.float32))


# name -> (options without randomness, options with it, payload, shape of the raw tensor)
CASES = {
    "image": ({"size_px": 16}, {"shift_px": 3, "flip": True}, picture(), (3, 16, 16)),
    "video": ({"size_px": 8, "frames": 4}, {}, clip(), (4, 3, 8, 8)),
    "log_mel": (
        {"num_mels": 20},
        {"shift_s": 0.2, "noise": 0.1, "mask_frames": 20, "mask_mels": 5},
        tone(0.5),
        (50, 20),
    ),
    "series": ({"length": 32}, {"jitter": 0.1, "scale": 0.2, "rotate": True}, series(), (32, 6)),
    "filter_bank": ({"num_mels": 20}, {}, tone(0.5), (48, 20)),
    "features": ({"rate_hz": 50.0}, {}, series(), (40, 6)),
    "points": ({"count": 64}, {"rotate": "any", "jitter": 0.01, "scale": 0.1}, cloud(), (64, 5)),
}
kinds = pytest.mark.parametrize("name", CASES)


def test_every_built_in_processor_is_tested_here_or_beside():
    beside = {
        "hub",
        "hub_video",
        "map",
        "native_image",
        "objects",
        "sound_channels",
        "sound_clips",
        "tiles",
        "together",
        "vector",
    }
    assert {*CASES, *beside} == set(BUILT_IN["processors"])


@kinds
def test_a_spec_read_back_builds_an_equal_processor(name):
    options, noise, payload, _ = CASES[name]
    part = build("processors", {"type": name, **options, **noise})
    read = spec_of("processors", part)
    assert read.items() >= {**options, **noise}.items()
    again = build("processors", read)
    assert spec_of("processors", again) == read and torch.equal(again(payload), part(payload))


@kinds
def test_the_raw_tensor_has_the_declared_shape_and_one_row_per_place(name):
    options, _, payload, expected = CASES[name]
    part = build("processors", {"type": name, **options})
    raw = part(payload)
    assert raw.dtype == torch.float32 and tuple(raw.shape) == expected and raw.is_contiguous()
    shape = part.shape(raw)
    rows = expected[0] if raw.dim() == 2 else raw.numel() // 3
    assert shape.len == rows and part.payload_kind == payload.kind


@kinds
def test_without_an_rng_nothing_is_random_and_with_one_the_seed_decides(name):
    options, noise, payload, _ = CASES[name]
    part = build("processors", {"type": name, **options, **noise})
    plain = build("processors", {"type": name, **options})
    assert torch.equal(part(payload), plain(payload))
    draws = [part(payload, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    if noise:
        assert draws[0].shape != draws[2].shape or not torch.equal(draws[0], draws[2])


@kinds
def test_a_payload_of_another_kind_is_refused(name):
    wrong = cloud() if name != "points" else picture()
    with pytest.raises(MediaError, match="wrong_payload"):
        build("processors", {"type": name})(wrong)


@kinds
def test_the_payload_is_never_changed(name):
    options, noise, payload, _ = CASES[name]
    before = payload.digest()
    build("processors", {"type": name, **options, **noise})(payload, torch.Generator().manual_seed(0))
    assert payload.digest() == before


def test_a_uniform_picture_becomes_its_normalised_colour():
    raw = ImageProcessor(size_px=4, mean=(0.0, 0.5, 0.0), std=(1.0, 0.5, 1.0))(Image(np.full((9, 7, 3), 255, np.uint8)))
    torch.testing.assert_close(raw, torch.ones(3, 4, 4))


def test_crop_takes_the_middle_and_squeezing_takes_everything():
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, :8] = 255
    image = Image(pixels)
    assert ImageProcessor(size_px=8, crop=True)(image).max() < -0.8
    assert ImageProcessor(size_px=8, crop=False)(image).max() > 0.9


def test_one_channel_is_the_mean_of_the_colours():
    image = Image(np.tile(np.array([0, 51, 204], np.uint8), (4, 4, 1)))
    raw = ImageProcessor(size_px=4, channels=1, mean=0.0, std=1.0)(image)
    torch.testing.assert_close(raw, torch.full((1, 4, 4), 85 / 255))


def test_frames_are_spread_over_the_clip():
    raw = VideoProcessor(frames=5, size_px=8, mean=0.0, std=1.0)(clip(10))
    assert (raw[:, 0, 0, 0] * 25.5).round().tolist() == [1, 3, 5, 7, 9]


def test_a_shorter_clip_gives_all_of_its_frames_once():
    assert VideoProcessor(frames=8, size_px=8)(clip(3)).shape[0] == 3


def test_frames_at_a_rate_have_the_times_of_that_rate():
    part = VideoProcessor(frames=8, rate_hz=2.5, size_px=8, mean=0.0, std=1.0)
    raw = part(clip(10, fps=5.0))
    assert (raw[:, 0, 0, 0] * 25.5).round().tolist() == [0, 2, 4, 6, 8]
    shape = part.shape(raw)
    assert shape.grid == (5, 8, 8) and shape.times[::64] == (0.0, 0.4, 0.8, 1.2, 1.6)


def test_a_clip_too_long_for_its_rate_is_refused_and_split_keeps_all_of_it():
    part = VideoProcessor(frames=3, rate_hz=5.0, size_px=8, mean=0.0, std=1.0)
    with pytest.raises(MediaError, match="video_too_large"):
        part(clip(7))
    windows = part.split(clip(7))
    seen = torch.cat([part(window)[:, 0, 0, 0] for window in windows]) * 25.5
    assert seen.round().tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_louder_recording_gives_the_same_plain_spectrogram():
    quiet = Audio(tone().samples * 0.1, 16_000)
    torch.testing.assert_close(LogMelProcessor()(tone()), LogMelProcessor()(quiet), atol=1e-3, rtol=1e-3)


def test_silence_gives_finite_frames():
    assert bool(LogMelProcessor()(Audio(np.zeros((1, 4000), np.float32), 16_000)).isfinite().all())


def test_frames_are_ten_milliseconds_apart_at_any_sample_rate():
    part = LogMelProcessor()
    raw = part(tone(1.0, rate_hz=22_050))
    assert raw.shape == (100, 64) and part.shape(raw).times[50] == 0.5


def test_a_sound_too_long_is_refused_and_split_keeps_every_sample():
    part, sound = LogMelProcessor(max_s=0.4), tone(1.0)
    with pytest.raises(MediaError, match="audio_too_long"):
        part(sound)
    windows = part.split(sound)
    assert len(windows) == 3 and all(part(window).shape[0] <= 40 for window in windows)
    assert np.array_equal(np.concatenate([w.samples for w in windows], 1), sound.samples)


def test_a_series_is_normalised_per_channel_and_a_constant_channel_is_zero():
    values = NOISE.standard_normal((50, 2)).astype(np.float32) * [3.0, 0.0] + [5.0, 7.0]
    raw = SeriesProcessor()(Series(values.astype(np.float32)))
    torch.testing.assert_close(raw[:, 0].mean() + raw[:, 0].std(correction=0), torch.tensor(1.0))
    assert raw[:, 1].abs().max() < 1e-3


def test_given_statistics_replace_those_of_the_item():
    raw = SeriesProcessor(mean=[1.0, 2.0], std=[2.0, 4.0])(Series(np.full((3, 2), 5.0, np.float32)))
    assert raw.tolist() == [[2.0, 0.75]] * 3


def test_a_series_is_brought_to_a_rate_and_its_rows_have_times():
    part = SeriesProcessor(rate_hz=25.0)
    raw = part(series(steps=51, rate_hz=50.0))
    assert raw.shape == (26, 6) and part.shape(raw).times[1] == 0.04


def test_thinning_a_series_does_not_fold_vibration_into_slow_motion():
    # 24 Hz sampled at 100 Hz; every fourth step alone would show 1 Hz at full strength.
    values = np.sin(2 * np.pi * 24 * np.arange(400) / 100).astype(np.float32)[:, None]
    assert SeriesProcessor(rate_hz=25.0, normalize=False)(Series(values, 100.0)).abs().max() < 0.3


def test_a_series_without_a_rate_cannot_be_brought_to_one():
    with pytest.raises(MediaError, match="no rate"):
        SeriesProcessor(rate_hz=25.0)(Series(np.ones((4, 1), np.float32)))


def test_rotating_sensors_keeps_their_lengths():
    part = SeriesProcessor(normalize=False, rotate=True)
    still, turned = part(series()), part(series(), torch.Generator().manual_seed(0))
    plain = series()
    turned = part(plain, torch.Generator().manual_seed(0)).unflatten(1, (2, 3)).norm(dim=-1)
    torch.testing.assert_close(turned, part(plain).unflatten(1, (2, 3)).norm(dim=-1))
    assert not torch.equal(still, turned)


def test_channels_that_do_not_come_in_threes_cannot_be_rotated():
    with pytest.raises(MediaError, match="threes"):
        SeriesProcessor(rotate=True)(series(channels=4), torch.Generator())


def test_a_cloud_is_centred_in_the_unit_ball():
    raw = PointsProcessor(count=100)(cloud(50))
    assert raw.shape == (50, 5)
    torch.testing.assert_close(raw[:, :3].norm(dim=1).max(), torch.tensor(1.0))
    assert raw[:, :3].mean(0).abs().max() < 1e-6


def test_points_are_chosen_alike_in_any_order():
    points = cloud(200)
    order = np.random.default_rng(1).permutation(200)
    part = PointsProcessor(count=32, normalize=False)
    shuffled = Points(points.xyz[order], points.features[order])
    assert torch.equal(part(points), part(shuffled))


@pytest.mark.parametrize("axis,index", [("x", 0), ("y", 1), ("z", 2)])
def test_a_rotation_about_an_axis_keeps_that_axis(axis, index):
    part, points = PointsProcessor(rotate=axis, normalize=False), cloud(20, 0)
    turned = part(points, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned[:, index], part(points)[:, index])
    torch.testing.assert_close(turned.norm(dim=1), part(points).norm(dim=1))
    assert (turned - part(points)).abs().max() > 0.1


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "image", "size_px": 0},
        {"type": "image", "channels": 2},
        {"type": "log_mel", "style": "kaldi"},
        {"type": "log_mel", "max_s": 0},
        {"type": "series", "length": 5, "rate_hz": 5.0},
        {"type": "series", "mean": [1.0]},
        {"type": "points", "rotate": "w"},
        {"type": "video", "frames": 0},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(spec):
    with pytest.raises(ConfigError):
        build("processors", spec)
