"""Published processors: our own code gives the numbers of transformers' own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    BitImageProcessorPil,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    LlavaImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    Siglip2ImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from omniloom.encoders.hub_processor import HubProcessor
from omniloom.encoders.hub_speech import HubSpeech
from omniloom.errors import ConfigError, MediaError, MissingAssetError
from omniloom.media import Audio, Image
from omniloom.registry import build, spec_of

NOISE = np.random.default_rng(0)
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PUBLISHED = {
    "clip": CLIPImageProcessorPil(),
    "clip-336": CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    "siglip-384": SiglipImageProcessorPil(size={"height": 384, "width": 384}),
    "dinov2": BitImageProcessorPil(size={"shortest_edge": 256}, **_IMAGENET),
    "vit": ViTImageProcessorPil(),
    "blip": BlipImageProcessorPil(),
    "llava": LlavaImageProcessorPil(),
    "llava, squared": LlavaImageProcessorPil(do_pad=True),
}


def sound(samples: int, level: float = 0.1) -> Audio:
    return Audio((NOISE.standard_normal((1, samples)) * level).astype(np.float32), 16_000)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", [(120, 80), (50, 77), (224, 224), (300, 481)])
def test_pictures_equal_those_of_transformers(name, size, tmp_path):
    PUBLISHED[name].save_pretrained(tmp_path)
    pixels = NOISE.integers(0, 256, (*size, 3), dtype=np.uint8)
    part = HubProcessor(id=str(tmp_path))
    expected = PUBLISHED[name](pixels, return_tensors="pt")["pixel_values"][0]
    raw = part(Image(pixels))
    torch.testing.assert_close(raw, expected, atol=1e-6, rtol=1e-6)
    assert part.shape(raw).grid == (1, *raw.shape[1:]) and part.payload_kind == "image"


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 900), (97, 640), (224, 224), (300, 401), (5, 4000)])
@pytest.mark.parametrize("patches", [{}, {"max_num_patches": 64}, {"max_num_patches": 40, "patch_size": 14}])
def test_pictures_of_siglip2_keep_their_proportions_within_a_number_of_patches(patches, size, tmp_path):
    published = Siglip2ImageProcessorPil(**patches)
    published.save_pretrained(tmp_path)
    pixels = NOISE.integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = published(pixels, input_data_format="channels_last", return_tensors="pt")
    raw = HubProcessor(id=str(tmp_path))(Image(pixels))
    rows, columns = expected["spatial_shapes"][0].tolist()
    side = published.patch_size
    assert raw.shape == (3, rows * side, columns * side) and rows * columns <= published.max_num_patches
    cells = expected["pixel_values"][0, : rows * columns].reshape(rows, columns, side, side, 3)
    torch.testing.assert_close(raw, cells.permute(4, 0, 2, 1, 3).reshape(raw.shape), atol=1e-6, rtol=1e-6)


def test_no_patch_at_all_is_refused(tmp_path):
    Siglip2ImageProcessorPil(max_num_patches=0).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="max_num_patches=0"):
        HubProcessor(id=str(tmp_path))


@pytest.mark.parametrize("size", [(120, 80), (50, 77), (64, 64)])
def test_one_of_several_pictures_is_squared_as_llava_onevision_does(size, tmp_path):
    published = LlavaOnevisionImageProcessorPil(size={"height": 48, "width": 48})
    published.save_pretrained(tmp_path)
    pixels = NOISE.integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = published([[pixels, pixels]], return_tensors="pt")["pixel_values"][1, 0]
    raw = HubProcessor(id=str(tmp_path), square=True)(Image(pixels))
    torch.testing.assert_close(raw, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("samples", [1, 300, 16_123, 480_000])
@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_frames_equal_those_of_transformers(samples, mels, tmp_path):
    published = WhisperFeatureExtractor(feature_size=mels)
    published.save_pretrained(tmp_path)
    audio, part = sound(samples), HubProcessor(id=str(tmp_path))
    expected = torch.tensor(published(audio.samples[0], sampling_rate=16_000)["input_features"][0]).T
    raw = part(audio)
    assert raw.shape == (3000, mels) and part.shape(raw).times[100] == 1.0
    torch.testing.assert_close(raw, expected, atol=1e-6, rtol=1e-6)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A folder with a tiny Whisper of the true window, and its feature extractor."""
    folder = tmp_path_factory.mktemp("whisper")
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=60, pad_token_id=1, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("audio", [sound(16_123), sound(5_000, 0.0)], ids=["noise", "silence"])
def test_trimmed_whisper_frames_give_the_rows_of_the_whole_window(whisper, audio):
    whole, trimmed = (HubProcessor(id=str(whisper), trim=trim)(audio) for trim in (False, True))
    encoder = HubSpeech(id=str(whisper)).eval()
    rows = encoder([trimmed])
    assert rows.lengths == [trimmed.shape[0] // 2] and trimmed.shape[0] < 110
    torch.testing.assert_close(rows.x, encoder([whole]).x[: rows.lengths[0]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("samples", [1, 160, 161, 16_123, 31_700, 32_000])
def test_frames_with_their_length_are_those_of_the_padded_window(samples, tmp_path):
    published = WhisperFeatureExtractor(feature_size=128, chunk_length=2)
    published.save_pretrained(tmp_path)
    audio, part = sound(samples), HubProcessor(id=str(tmp_path), lengths=True)
    expected = published(audio.samples[0], sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
    raw = part(audio)
    assert int(raw["length"]) == int(expected["attention_mask"].sum()) == part.shape(raw).len
    count = min(int(raw["length"]) + 2, 200)
    torch.testing.assert_close(raw["frames"], expected["input_features"][0].T[:count], atol=1e-6, rtol=1e-6)


def test_of_a_file_about_pictures_and_sounds_the_medium_chooses(tmp_path):
    both = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 24}}
    both |= {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 8, "chunk_length": 300}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(both))
    part = HubProcessor(id=str(tmp_path), medium="audio", lengths=True, max_s=300)
    assert part.payload_kind == "audio" and part(sound(1600))["frames"].shape == (12, 8)
    assert HubProcessor(id=str(tmp_path), medium="image").payload_kind == "image"
    with pytest.raises(ConfigError, match="unknown medium"):
        HubProcessor(id=str(tmp_path), medium="sound")


@pytest.mark.parametrize("medium,kind", [("image", "image"), ("audio", "audio"), (None, "image")])
def test_of_the_sections_of_a_whole_processor_the_medium_chooses(medium, kind, tmp_path):
    sections = {
        "image_processor": {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 24}},
        "feature_extractor": {"feature_extractor_type": "WhisperFeatureExtractor"},
    }
    (tmp_path / "processor_config.json").write_text(json.dumps(sections))
    assert HubProcessor(id=str(tmp_path), medium=medium).payload_kind == kind


@pytest.mark.parametrize("normalize", [True, False])
def test_waveforms_equal_those_of_transformers(normalize, tmp_path):
    published = Wav2Vec2FeatureExtractor(do_normalize=normalize)
    published.save_pretrained(tmp_path)
    audio = sound(5000)
    expected = torch.tensor(published(audio.samples[0], sampling_rate=16_000)["input_values"][0])
    torch.testing.assert_close(HubProcessor(id=str(tmp_path))(audio), expected, atol=1e-5, rtol=1e-5)


def test_a_long_sound_is_refused_and_split_into_equal_windows(tmp_path):
    WhisperFeatureExtractor(chunk_length=2).save_pretrained(tmp_path)
    part, audio = HubProcessor(id=str(tmp_path)), sound(5 * 16_000)
    with pytest.raises(MediaError, match="audio_too_long"):
        part(audio)
    assert [window.duration_s for window in part.split(audio)] == pytest.approx([5 / 3] * 3, abs=1e-3)
    assert {part(window).shape for window in part.split(audio)} == {(200, 80)}


def test_a_saved_configuration_builds_the_same_processor(tmp_path):
    PUBLISHED["dinov2"].save_pretrained(tmp_path)
    part = HubProcessor(id=str(tmp_path))
    other = tmp_path / "copy"
    other.mkdir()
    part.save_config(other)
    image = Image(NOISE.integers(0, 256, (300, 260, 3), dtype=np.uint8))
    assert torch.equal(part(image), HubProcessor(id=str(other))(image))


def test_a_spec_read_back_builds_an_equal_processor(tmp_path):
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    part = build("processors", {"type": "hub", "id": str(tmp_path), "trim": True})
    read = spec_of("processors", part, name="hub")
    assert read["trim"] is True and spec_of("processors", build("processors", read), name="hub") == read


def test_older_files_with_plain_numbers_are_read(tmp_path):
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 32, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**old, "do_center_crop": True}))
    assert HubProcessor(id=str(tmp_path))(Image(np.zeros((60, 90, 3), np.uint8))).shape == (3, 32, 32)


@pytest.mark.parametrize(
    "kind,shape", [("CLIP", (3, 32, 48)), ("Siglip", (3, 32, 48)), ("ViT", (3, 32, 32)), ("Blip", (3, 32, 32))]
)
def test_one_number_is_the_shorter_side_or_both_as_the_kind_has_it(kind, shape, tmp_path):
    config = {"image_processor_type": f"{kind}ImageProcessor", "size": 32, "do_center_crop": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert HubProcessor(id=str(tmp_path))(Image(np.zeros((60, 90, 3), np.uint8))).shape == shape


def test_black_surrounds_a_picture_smaller_than_the_middle_that_is_cut_out(tmp_path):
    kind = {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "do_normalize": False, "crop_size": 6}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(kind))
    raw = HubProcessor(id=str(tmp_path))(Image(np.full((8, 3, 3), 255, np.uint8)))
    assert raw[0].tolist() == [[0, 1, 1, 1, 0, 0]] * 6  # of three black columns one lies left and two right


def test_the_section_of_a_whole_processor_is_read(tmp_path):
    section = {"image_processor": {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 24}}}
    (tmp_path / "processor_config.json").write_text(json.dumps(section))
    assert HubProcessor(id=str(tmp_path))(Image(np.zeros((60, 90, 3), np.uint8))).shape == (3, 16, 24)


@pytest.mark.parametrize(
    "config,message",
    [
        ({"image_processor_type": "Pix2StructImageProcessor"}, "unknown here"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 9}}, "longest_edge"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 200}}, "crops 224"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "dither": 0.1}, "dither"),
    ],
)
def test_a_configuration_that_would_be_guessed_at_is_refused(config, message, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        HubProcessor(id=str(tmp_path))


def test_a_folder_without_a_configuration_is_named(tmp_path):
    with pytest.raises(MissingAssetError, match=r"preprocessor_config\.json"):
        HubProcessor(id=str(tmp_path))
