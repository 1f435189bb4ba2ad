"""Published encoders: their rows are those of transformers' own models, of any layer."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    GPT2Config,
    HubertConfig,
    HubertModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from omniloom.encoders.hub import HubSpeech, HubVision
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError
from omniloom.sequence import Shape

_TOWER = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 24, "patch_size": 8}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
_WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "vocab_size": 60,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
TOWERS = {
    "clip": lambda: CLIPModel(CLIPConfig(vision_config={**_TOWER, "intermediate_size": 32}, text_config=_TEXT)),
    "siglip": lambda: SiglipModel(SiglipConfig(vision_config={**_TOWER, "intermediate_size": 32}, text_config=_TEXT)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**_TOWER)),
    "vit": lambda: ViTModel(ViTConfig(**_TOWER, intermediate_size=32)),
}


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """name -> (folder, model in evaluation mode)."""
    torch.manual_seed(0)
    root, saved = tmp_path_factory.mktemp("towers"), {}
    for name, make in TOWERS.items():
        model = make().eval()
        model.save_pretrained(root / name)
        saved[name] = (str(root / name), getattr(model, "vision_model", model))
    return saved


@pytest.mark.parametrize("layer", [-1, -2, 0, 1])
@pytest.mark.parametrize("name", TOWERS)
def test_rows_are_the_hidden_states_of_the_layer(name, layer, towers):
    folder, model = towers[name]
    pictures = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        published = model(pixel_values=pictures, output_hidden_states=True)
        rows = HubVision(id=folder, layer=layer, tokens="all").eval()(list(pictures)).x
    expected = published.last_hidden_state if layer == -1 else published.hidden_states[layer]
    torch.testing.assert_close(rows.view(expected.shape), expected, atol=1e-6, rtol=1e-6)


def test_patches_and_class_token_are_the_parts_of_all(towers):
    folder, _ = towers["dinov2"]
    picture = [torch.randn(3, 24, 24)]
    rows = {tokens: HubVision(id=folder, tokens=tokens).eval()(picture) for tokens in ("all", "cls", "patches")}
    assert torch.equal(rows["all"].x, torch.cat([rows["cls"].x, rows["patches"].x]))
    assert rows["patches"].shapes == (Shape(9, (1, 3, 3)),) and rows["all"].shapes == (Shape(10),)


def test_layers_above_the_chosen_one_are_not_built(towers):
    folder, _ = towers["clip"]
    names = [name for name, _ in HubVision(id=folder, layer=1).named_parameters() if "layers." in name]
    assert names and all("layers.0." in name for name in names)


@pytest.mark.parametrize("name", TOWERS)
def test_pictures_of_another_size_get_interpolated_positions(name, towers):
    part = HubVision(id=towers[name][0]).eval()
    assert part([torch.randn(3, 32, 48)]).shapes == (Shape(24, (1, 4, 6)),)


def test_frames_are_read_one_by_one(towers):
    part, clip = HubVision(id=towers["vit"][0]).eval(), torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(part([clip]).x, part(list(clip)).x, atol=1e-6, rtol=1e-6)
    assert part([clip]).shapes[0].grid == (2, 3, 3)


def test_a_saved_configuration_builds_the_same_tower_without_the_source(towers, tmp_path):
    part = HubVision(id=towers["clip"][0], layer=-2)
    part.save_config(tmp_path)
    again = HubVision(id=str(tmp_path), layer=-2, weights=False)
    again.load_state_dict(part.state_dict(), strict=True)
    picture = [torch.randn(3, 24, 24)]
    assert torch.equal(part.eval()(picture).x, again.eval()(picture).x)


@pytest.mark.parametrize(
    "options,message",
    [({"layer": 4}, "layers 0 to 3"), ({"layer": -5}, "layers 0 to 3"), ({"tokens": "mean"}, "unknown tokens")],
)
def test_a_layer_or_choice_that_does_not_exist_is_refused(options, message, towers):
    with pytest.raises(ConfigError, match=message):
        HubVision(id=towers["vit"][0], **options)


def test_a_tower_without_a_class_token_cannot_give_one(towers):
    with pytest.raises(ConfigError, match="no class token"):
        HubVision(id=towers["siglip"][0], tokens="cls")


def test_a_language_model_is_no_encoder(tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="gpt2"):
        HubVision(id=str(tmp_path))
    with pytest.raises(ConfigError, match="gpt2"):
        HubSpeech(id=str(tmp_path))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(MissingAssetError, match=r"config\.json"):
        HubVision(id=str(tmp_path))


def test_a_configuration_without_weights_is_named(tmp_path):
    ViTConfig(**_TOWER).save_pretrained(tmp_path)
    with pytest.raises(MissingAssetError, match="safetensors"):
        HubVision(id=str(tmp_path))


def test_weights_of_fewer_layers_than_configured_are_refused(towers, tmp_path):
    ViTModel(ViTConfig(**_TOWER, intermediate_size=32)).save_pretrained(tmp_path)
    ViTConfig(**{**_TOWER, "num_hidden_layers": 5}, intermediate_size=32).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="incomplete"):
        HubVision(id=str(tmp_path))


def test_whisper_rows_are_its_encoders_and_the_decoder_is_not_loaded(tmp_path):
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(**_WHISPER)).eval()
    model.save_pretrained(tmp_path)
    part, frames = HubSpeech(id=str(tmp_path)).eval(), torch.randn(2, 40, 8)
    expected = model.get_encoder()(frames.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(part(list(frames)).x.view(expected.shape), expected, atol=1e-6, rtol=1e-6)
    assert not any("decoder" in name for name, _ in part.named_parameters())


def test_waveform_rows_are_those_of_transformers_with_their_times(tmp_path):
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, conv_dim=(8, 8),
        conv_kernel=(10, 3), conv_stride=(5, 2), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = HubertModel(config).eval()
    model.save_pretrained(tmp_path)
    part, samples = HubSpeech(id=str(tmp_path)).eval(), torch.randn(2, 400)
    expected = model(samples).last_hidden_state
    out = part(list(samples))
    torch.testing.assert_close(out.x.view(expected.shape), expected, atol=1e-6, rtol=1e-6)
    assert out.shapes[0].times[:3] == (0.0, 10 / 16_000, 20 / 16_000)
