"""Filter banks: the numbers of transformers' extractors, which the hub's tests hold too, and their processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from omniloom.encoders.filter_bank_processor import FilterBankProcessor
from omniloom.encoders.filter_banks import kaldi_fbank
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Audio


def sound(samples: int, rate_hz: int = 16_000) -> Audio:
    noise = np.random.default_rng(samples).standard_normal((1, samples))
    return Audio((0.1 * noise).astype(np.float32), rate_hz)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("window,name", [("povey", "povey"), ("hanning", "hann"), ("hamming", "hamming")])
def test_each_window_gives_the_numbers_of_transformers(window, name):
    samples = sound(4_000).samples[0]
    filters = mel_filter_bank(257, 128, 20, 8000, 16_000, mel_scale="kaldi", triangularize_in_mel_space=True)
    expected = spectrogram(
        samples * 32_768, window_function(400, name, periodic=False), 400, 160, fft_length=512, power=2.0,
        center=False, preemphasis=0.97, mel_filters=filters, log_mel="log", mel_floor=1.1920928955078125e-07,
        remove_dc_offset=True,
    ).T  # fmt: skip
    frames = kaldi_fbank(torch.from_numpy(samples), 128, window=window, scale=32_768)
    torch.testing.assert_close(frames, torch.from_numpy(expected), atol=1e-4, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_the_style_of_ast_filled_up_is_asts_own_extractor():
    audio, part = sound(16_123), FilterBankProcessor(style="ast", frames=1024)
    expected = torch.tensor(np.array(ASTFeatureExtractor()(audio.samples[0], sampling_rate=16_000)["input_values"][0]))
    torch.testing.assert_close(part(audio), expected, atol=1e-5, rtol=1e-5)


def test_the_style_of_beats_is_in_the_scale_of_whole_numbers():
    audio, part = sound(1_600), FilterBankProcessor()
    frames = kaldi_fbank(torch.from_numpy(audio.samples[0] * 32_768), 128, window="povey")
    torch.testing.assert_close(part(audio), (frames - 15.41663) / (2 * 6.55582), atol=1e-5, rtol=1e-5)
    assert part.shape(part(audio)).times == tuple(i / 100 for i in range(8))  # 1 + (1600 - 400) // 160


@pytest.mark.parametrize("options,longest", [({}, 30.0), ({"frames": 100}, (100 * 160 + 399) / 16_000)])
def test_long_sounds_are_refused_and_split(options, longest):
    part, audio = FilterBankProcessor(**options), sound(40 * 8_000, 8_000)
    with pytest.raises(MediaError, match="audio_too_long"):
        part(audio)
    windows = part.split(audio)
    assert len(windows) == -(-40 // longest) and max(window.duration_s for window in windows) <= longest
    assert part(windows[0]).shape[0] <= longest * 100


def test_a_sound_shorter_than_a_window_is_refused():
    with pytest.raises(MediaError, match="one frame needs 400"):
        FilterBankProcessor()(sound(399))


@pytest.mark.parametrize("options", [{"style": "kaldi"}, {"num_mels": 0}, {"frames": 0}, {"max_s": 0}])
def test_options_that_make_no_frames_are_refused(options):
    with pytest.raises(ConfigError):
        FilterBankProcessor(**options)
