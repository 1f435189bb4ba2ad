"""Transforms against reference implementations and by their laws."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import WhisperFeatureExtractor

from omniloom.errors import ShapeError
from omniloom.media import Image
from omniloom.media.transforms import (
    center_crop,
    farthest_point_sample,
    log_mel,
    mel_filters,
    normalize,
    random_sample,
    resample,
    resize_image,
    to_float,
)

from .makers import noise_image


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SOUNDS = {
    "noise": lambda n: torch.randn(n, generator=generator()) * 0.1,
    "tone": lambda n: torch.sin(torch.arange(n) / 5) * 0.5,
    "silence": torch.zeros,
}


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("samples", [1, 160, 401, 16_000, 53_123])
@pytest.mark.parametrize("num_mels", [80, 128])
def test_padded_whisper_mels_equal_the_reference(name: str, samples: int, num_mels: int) -> None:
    sound = SOUNDS[name](samples)
    reference = WhisperFeatureExtractor(feature_size=num_mels)(sound.numpy(), sampling_rate=16_000, return_tensors="pt")
    ours = log_mel(sound, num_mels=num_mels, pad_to_s=30.0)
    assert ours.shape == (num_mels, 3000)
    assert (ours - reference.input_features[0]).abs().max() < 1e-4


@pytest.mark.parametrize("samples", [400, 1600, 53_120])
def test_unpadded_whisper_mels_equal_the_reference_at_any_length(samples: int) -> None:
    sound = SOUNDS["noise"](samples)
    reference = WhisperFeatureExtractor()(
        sound.numpy(), sampling_rate=16_000, padding="do_not_pad", return_tensors="pt"
    )
    ours = log_mel(sound)
    assert ours.shape == (80, samples // 160)
    assert (ours - reference.input_features[0]).abs().max() < 1e-4


def test_mel_filters_equal_the_reference() -> None:
    for num_mels, n_fft, rate_hz in ((80, 400, 16_000), (40, 512, 22_050), (8, 64, 1600)):
        extractor = WhisperFeatureExtractor(feature_size=num_mels, n_fft=n_fft, sampling_rate=rate_hz)
        if rate_hz == 16_000:
            assert np.allclose(mel_filters(num_mels, n_fft, rate_hz).numpy(), extractor.mel_filters.T, atol=1e-9)
        assert mel_filters(num_mels, n_fft, rate_hz).shape == (num_mels, n_fft // 2 + 1)


def test_plain_mels_of_a_louder_sound_rise_by_the_same_everywhere() -> None:
    sound = SOUNDS["noise"](8000)
    assert torch.allclose(log_mel(sound * 10, style="plain"), log_mel(sound, style="plain") + 2, atol=1e-3)


def test_log_mel_refuses_what_it_cannot_mean() -> None:
    for wrong, options in ((torch.zeros(0), {}), (torch.zeros(2, 5), {}), (torch.zeros(16_001), {"pad_to_s": 1.0})):
        with pytest.raises(ShapeError):
            log_mel(wrong, **options)
    with pytest.raises(ShapeError, match="plain, whisper"):
        log_mel(torch.zeros(9), style="loud")


def test_to_float_keeps_pixels_and_range() -> None:
    image = Image(np.asarray(noise_image()).copy())
    pixels = to_float(image)
    assert pixels.shape == (3, 24, 32) and pixels.dtype == torch.float32
    assert np.array_equal((pixels * 255).round().byte().permute(1, 2, 0).numpy(), image.pixels)


@pytest.mark.parametrize(
    ("mode", "filter"), [("bicubic", PIL.Image.Resampling.BICUBIC), ("bilinear", PIL.Image.Resampling.BILINEAR)]
)
@pytest.mark.parametrize("size_px", [(10, 14), (48, 70), (24, 32)])
def test_resize_equals_pil_within_rounding(mode: str, filter: PIL.Image.Resampling, size_px: tuple[int, int]) -> None:
    # within 80..175, so that the overshoot that PIL clips between its two passes stays inside 0..255
    image = noise_image().point(lambda value: 80 + value * 3 // 8)
    reference = np.asarray(image.resize((size_px[1], size_px[0]), filter)).astype(int)
    ours = resize_image(to_float(Image(np.asarray(image).copy())), size_px, mode).clamp(0, 1)
    assert np.abs((ours * 255).round().permute(1, 2, 0).numpy() - reference).max() <= 2


def test_resize_by_one_number_sets_the_shorter_side() -> None:
    assert resize_image(torch.zeros(3, 20, 30), 10).shape == (3, 10, 15)
    assert resize_image(torch.zeros(3, 1, 500), 2, "nearest").shape == (3, 2, 1000)
    assert resize_image(torch.zeros(3, 500, 1), 1, "bilinear").shape == (3, 500, 1)


def test_crop_takes_the_middle_and_fills_what_is_missing() -> None:
    pixels = torch.arange(25.0).reshape(1, 5, 5)
    assert center_crop(pixels, 3).tolist() == [[[6, 7, 8], [11, 12, 13], [16, 17, 18]]]
    padded = center_crop(pixels, (7, 3), fill=-1)
    assert padded.shape == (1, 7, 3)
    assert padded[0, :, 1].tolist() == [-1, 2, 7, 12, 17, 22, -1]
    assert torch.equal(center_crop(pixels, 5), pixels)


def test_normalize_inverts() -> None:
    pixels = torch.rand(3, 4, 5, generator=generator())
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    back = normalize(pixels, mean, std) * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    assert torch.allclose(back, pixels)
    for wrong in ((mean[:2], std), (mean, (1.0, 0.0, 1.0))):
        with pytest.raises(ShapeError):
            normalize(pixels, *wrong)


def test_resample_is_exact_on_straight_lines() -> None:
    line = torch.stack([torch.arange(9.0), 3 - 2 * torch.arange(9.0)], dim=1)
    halved = resample(line, rate_hz=10, new_rate_hz=20)
    assert torch.allclose(halved[:, 0], torch.arange(17) / 2) and torch.allclose(halved[:, 1], 3 - torch.arange(17.0))
    assert torch.allclose(resample(line, 5)[:, 0], torch.tensor([0.0, 2, 4, 6, 8]))
    assert torch.equal(resample(line, 9), line) and torch.equal(resample(line, rate_hz=7, new_rate_hz=7), line)
    assert torch.equal(resample(line[:1], 4), line[:1].expand(4, 2))


def test_resample_by_rate_ends_not_after_the_last_step() -> None:
    line = torch.arange(10.0)[:, None]
    assert resample(line, rate_hz=10, new_rate_hz=4)[:, 0].tolist() == [0, 2.5, 5, 7.5]


@pytest.mark.parametrize(
    "options", [{}, {"rate_hz": 5}, {"length": 0}, {"length": 3, "rate_hz": 5}, {"rate_hz": 5, "new_rate_hz": 0}]
)
def test_resample_needs_one_clear_target(options: dict[str, float]) -> None:
    with pytest.raises(ShapeError):
        resample(torch.zeros(4, 1), **options)


def test_random_sample_repeats_only_when_there_are_too_few() -> None:
    points = torch.zeros(10, 3)
    assert len(set(random_sample(points, 7, generator()).tolist())) == 7
    counts = torch.bincount(random_sample(points, 25, generator()), minlength=10)
    assert counts.min() >= 2 and counts.max() <= 3
    assert torch.equal(random_sample(points, 7, generator(3)), random_sample(points, 7, generator(3)))


def test_farthest_points_cover_the_cloud() -> None:
    line = torch.stack([torch.arange(101.0), torch.zeros(101), torch.zeros(101)], dim=1)
    chosen = farthest_point_sample(line, 3, generator())
    # after any start, the two ends come next
    assert {0, 100} <= set(chosen.tolist())
    cloud = torch.randn(200, 3, generator=generator())
    far, random = (
        torch.cdist(cloud, cloud[f(cloud, 20, generator())]).amin(1).max()
        for f in (farthest_point_sample, random_sample)
    )
    assert far < random


def test_farthest_points_never_repeat_before_all_are_taken() -> None:
    same = torch.zeros(5, 3)
    assert sorted(farthest_point_sample(same, 5, generator()).tolist()) == [0, 1, 2, 3, 4]
    assert len(farthest_point_sample(same, 12, generator())) == 12
    with pytest.raises(ShapeError):
        farthest_point_sample(same, 0, generator())
