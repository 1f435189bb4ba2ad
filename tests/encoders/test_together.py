"""Several encoders over one payload: their channels stand side by side at the same moment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from omniloom.encoders.hub_processor import HubProcessor
from omniloom.encoders.hub_speech import HubSpeech
from omniloom.encoders.together import TogetherEncoder, TogetherProcessor
from omniloom.errors import ConfigError, ShapeError
from omniloom.media import Audio, Image, Series, Video
from omniloom.registry import build, spec_of
from omniloom.sequence import Bundle

FAST = {"type": "series", "rate_hz": 10, "normalize": False}
SLOW = {"type": "series", "rate_hz": 5, "normalize": False}
ROWS = {"type": "identity", "width": 1}


def ramp(steps: int) -> Series:
    """A channel that rises by one every 0.1 s: at 10 Hz and, without smoothing of a straight line, at 5 Hz too."""
    return Series(np.arange(steps, dtype=np.float32)[:, None], 10.0)


def test_the_slower_encoder_is_brought_to_the_first_ones_times():
    processor = TogetherProcessor(processors=[FAST, SLOW])
    raw = processor(ramp(6))
    near, mixed = (TogetherEncoder(encoders=[ROWS, ROWS], sampling=way) for way in ("nearest", "linear"))
    slow = raw["1"][:, 0].tolist()  # at 0, 0.2 and 0.4 s
    assert near([raw]).x[:, 0].tolist() == [0, 1, 2, 3, 4, 5] and len(slow) == 3
    # 0.1 s lies between the rows at 0 and 0.2: of two that are equally near the earlier; 0.5 s is behind the last.
    assert near([raw]).x[:, 1].tolist() == [slow[0], slow[0], slow[1], slow[1], slow[2], slow[2]]
    expected = [slow[0], (slow[0] + slow[1]) / 2, slow[1], (slow[1] + slow[2]) / 2, slow[2], slow[2]]
    assert mixed([raw]).x[:, 1].tolist() == pytest.approx(expected)
    assert near.out_shape(processor.shape(raw)).times == pytest.approx(tuple(i / 10 for i in range(6)))


def test_a_common_rate_is_that_of_all_rows():
    processor = TogetherProcessor(processors=[FAST, SLOW])
    part = TogetherEncoder(encoders=[ROWS, ROWS], rate_hz=2.5, sampling="linear")
    raw = processor(ramp(8))
    out = part([raw])
    # 0.8 s at 2.5 Hz: 0 and 0.4 s.
    assert out.x[:, 0].tolist() == pytest.approx([0, 4]) and out.shapes[0].times == pytest.approx((0.0, 0.4))
    assert part.out_shape(processor.shape(raw)) == out.shapes[0]


def test_items_of_a_batch_keep_their_own_clocks():
    processor, part = TogetherProcessor(processors=[FAST, SLOW]), TogetherEncoder(encoders=[ROWS, ROWS])
    raws = [processor(ramp(steps)) for steps in (6, 1, 9, 2)]
    for raw, rows in zip(raws, part(raws).items(), strict=True):
        assert torch.equal(part([raw]).x, rows)


def test_times_survive_a_cast_to_half_precision():
    raw = TogetherProcessor(processors=[FAST, SLOW])(ramp(900))
    part = TogetherEncoder(encoders=[ROWS, ROWS])
    half = raw.to(torch.bfloat16)
    assert part([half]).lengths == [900] and torch.equal(half["0:times_us"], raw["0:times_us"])


def test_pictures_without_a_clock_are_joined_place_by_place():
    sizes = [{"type": "image", "size_px": 16}, {"type": "image", "size_px": 32}]
    towers = [{"type": "patch_vit", "patch_px": px, "width": 8, "depth": 0, "heads": 2} for px in (4, 8)]
    raw = TogetherProcessor(processors=sizes)(Image(np.zeros((20, 20, 3), np.uint8)))
    part = TogetherEncoder(encoders=towers).eval()
    out = part([raw])
    assert out.x.shape == (16, 16) and out.shapes[0].grid == (1, 4, 4)
    torch.testing.assert_close(out.x[:, 8:], part.parts[1]([raw["1"]]).x)


def test_pictures_of_different_numbers_of_rows_cannot_be_joined():
    sizes = [{"type": "image", "size_px": 16}, {"type": "image", "size_px": 32}]
    towers = [{"type": "patch_vit", "patch_px": 4, "width": 8, "depth": 0, "heads": 2}] * 2
    raw = TogetherProcessor(processors=sizes)(Image(np.zeros((20, 20, 3), np.uint8)))
    with pytest.raises(ShapeError, match=r"\[16, 64\] rows"):
        TogetherEncoder(encoders=towers)([raw])


def test_parts_draw_the_same_random_numbers():
    noisy = {**FAST, "jitter": 1.0}
    raw = TogetherProcessor(processors=[noisy, noisy])(ramp(5), torch.Generator().manual_seed(3))
    assert torch.equal(raw["0"], raw["1"]) and not torch.equal(raw["0"][:, 0], torch.arange(5.0))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of a Whisper of one second and a HuBERT, with their feature extractors."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("together")
    sizes = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    whisper = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, vocab_size=60, max_source_positions=50, num_mel_bins=8,
        pad_token_id=1, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, **sizes,
    )  # fmt: skip
    WhisperModel(whisper).save_pretrained(root / "whisper")
    WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(root / "whisper")
    HubertModel(
        HubertConfig(
            hidden_size=8, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, conv_dim=(8, 8),
            conv_kernel=(10, 10), conv_stride=(20, 20), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
        )
    ).save_pretrained(root / "hubert")  # fmt: skip
    Wav2Vec2FeatureExtractor().save_pretrained(root / "hubert")
    return str(root / "whisper"), str(root / "hubert")


def test_speech_and_waveform_encoders_hear_the_same_moment(tiny):
    whisper, hubert = tiny
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 8000)).astype(np.float32)
    processors = [{"type": "hub", "id": whisper, "trim": True}, {"type": "hub", "id": hubert}]
    encoders = [{"type": "hub_speech", "id": whisper}, {"type": "hub_speech", "id": hubert}]
    processor, part = TogetherProcessor(processors=processors), TogetherEncoder(encoders=encoders).eval()
    raw = processor(Audio(noise, 16_000))
    with torch.no_grad():
        out = part([raw])
        alone = [
            HubSpeech(id=whisper).eval()([HubProcessor(id=whisper, trim=True)(Audio(noise, 16_000))]).x,
            HubSpeech(id=hubert).eval()([HubProcessor(id=hubert)(Audio(noise, 16_000))]).x,
        ]
    assert part.out_dim == 24 and out.lengths == [26]
    torch.testing.assert_close(out.x[:, :16], alone[0])
    # A row of Whisper begins every 20 ms, one of this HuBERT every 25 ms: row 5, at 100 ms, meets row 4.
    torch.testing.assert_close(out.x[5, 16:], alone[1][4])
    torch.testing.assert_close(out.x[1, 16:], alone[1][1])


def test_names_of_parameters_say_whose_they_are(tiny):
    spec = {"type": "together", "encoders": [{"type": "hub_speech", "id": folder} for folder in tiny]}
    part = build("encoders", {**spec, "weights": False})
    assert {name.split(".")[1] for name, _ in part.named_parameters()} == {"0", "1"}
    assert all(name.startswith("parts.") for name, _ in part.named_parameters())
    read = spec_of("encoders", part)
    assert read["encoders"] == spec["encoders"] and read["weights"] is False


def test_long_sounds_are_split_for_the_part_that_reads_least(tiny):
    whisper, hubert = tiny
    processors = [{"type": "hub", "id": hubert}, {"type": "hub", "id": whisper}]
    assert len(TogetherProcessor(processors=processors).split(Audio(np.zeros((1, 40_000), np.float32), 16_000))) == 3


def test_windows_of_a_clip_begin_when_those_of_the_shortest_part_do():
    processors = [{"type": "video", "size_px": 8, "rate_hz": 1.0, "frames": frames} for frames in (8, 4)]
    part = TogetherProcessor(processors=processors)
    clip = Video(np.zeros((10, 8, 8, 3), np.uint8), np.arange(10.0))
    assert len(part.split(clip)) == 3 and part.begins_s(clip) == [0.0, 4.0, 8.0]


def test_a_bundle_of_a_part_keeps_its_names(tiny):
    spec = {"type": "hub", "id": tiny[0], "lengths": True}
    raw = TogetherProcessor(processors=[spec, {"type": "hub", "id": tiny[1]}])(
        Audio(np.zeros((1, 1600), np.float32), 16_000)
    )
    assert set(raw) == {"0.frames", "0.length", "0:shape", "0:times_us", "1", "1:shape"}


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: TogetherProcessor(processors=[FAST]), "two or more"),
        (lambda: TogetherProcessor(processors=[FAST, "image"]), "image, series"),
        (lambda: TogetherEncoder(encoders="identity"), "two or more"),
        (lambda: TogetherEncoder(encoders=[ROWS, ROWS], rate_hz=0), "above zero"),
        (lambda: TogetherEncoder(encoders=[ROWS, ROWS], sampling="cubic"), "unknown sampling"),
        (lambda: TogetherEncoder(encoders=[ROWS, "identity"]), "width"),
    ],
)
def test_what_cannot_stand_together_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_rate_needs_rows_with_times():
    part = TogetherEncoder(encoders=[ROWS, ROWS], rate_hz=2)
    plain = {"type": "series", "normalize": False}
    raw = TogetherProcessor(processors=[plain, plain])(ramp(4))
    with pytest.raises(ShapeError, match="rows without times"):
        part([raw])


def test_a_bundle_of_fewer_parts_is_refused():
    raw = TogetherProcessor(processors=[FAST, SLOW])(ramp(4))
    with pytest.raises(ShapeError, match="bundle of 2 parts"):
        TogetherEncoder(encoders=[ROWS, ROWS])([Bundle(**{name: raw[name] for name in ("0", "0:shape")})])
