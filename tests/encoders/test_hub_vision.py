"""Published vision towers: their rows are those of transformers' own models, of any layer, out of any whole model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    GPT2Config,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    OPTConfig,
    Qwen2Config,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    ViTConfig,
    ViTModel,
)

from omniloom.encoders.hub_vision import HubVision
from omniloom.encoders.processors import ImageProcessor
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError
from omniloom.sequence import Shape
from omniloom.testing import check_encoder, made_payloads

_TOWER = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 24, "patch_size": 8}
_WIDE = {**_TOWER, "intermediate_size": 32}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
_LANGUAGE = {**_TEXT, "num_key_value_heads": 2}
_OPT = {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
_QFORMER = {**_TEXT, "encoder_hidden_size": 16}


def _blip(config_class, model_class):
    text = OPTConfig(**_OPT, word_embed_proj_dim=16).to_dict()
    return model_class(config_class(vision_config=_WIDE, qformer_config=_QFORMER, text_config=text))


def _internvl():
    vision = {**_WIDE, "image_size": [24, 24], "patch_size": [8, 8]}
    return InternVLForConditionalGeneration(InternVLConfig(vision_config=vision, text_config=Qwen2Config(**_LANGUAGE)))


# name -> (the whole model, where it holds its vision tower)
MODELS = {
    "clip": (lambda: CLIPModel(CLIPConfig(vision_config=_WIDE, text_config=_TEXT)), "vision_model"),
    "siglip": (lambda: SiglipModel(SiglipConfig(vision_config=_WIDE, text_config=_TEXT)), "vision_model"),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**_TOWER)), ""),
    "vit": (lambda: ViTModel(ViTConfig(**_WIDE)), ""),
    "blip2": (lambda: _blip(Blip2Config, Blip2ForConditionalGeneration), "vision_model"),
    "instructblip": (lambda: _blip(InstructBlipConfig, InstructBlipForConditionalGeneration), "vision_model"),
    "internvl": (_internvl, "model.vision_tower"),
    "llava": (
        lambda: LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=CLIPVisionConfig(**_WIDE), text_config=LlamaConfig(**_LANGUAGE), image_token_index=49
            )
        ),
        "model.vision_tower",
    ),
    "onevision": (
        lambda: LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(
                vision_config=SiglipVisionConfig(**_WIDE, vision_use_head=False),
                text_config=Qwen2Config(**_LANGUAGE),
                image_token_index=49,
            )
        ),
        "model.vision_tower",
    ),
}


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """name -> (folder of the whole model, its tower in evaluation mode)."""
    torch.manual_seed(0)
    root, saved = tmp_path_factory.mktemp("towers"), {}
    for name, (make, place) in MODELS.items():
        model = make().eval()
        for value in model.get_submodule(place).parameters():  # some start at zero, which would hide what they do
            value.data += 0.05 * torch.randn(value.shape)
        model.save_pretrained(root / name)
        saved[name] = (str(root / name), model.get_submodule(place))
    return saved


@pytest.mark.parametrize("layer", [-1, -2, 0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_rows_are_the_hidden_states_of_the_layer(name, layer, towers):
    folder, model = towers[name]
    pictures = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        published = model(pixel_values=pictures, output_hidden_states=True)
        rows = HubVision(id=folder, layer=layer, tokens="all").eval()(list(pictures)).x
    expected = published.last_hidden_state if layer == -1 else published.hidden_states[layer]
    torch.testing.assert_close(rows.view(expected.shape), expected, atol=1e-6, rtol=1e-6)


def test_the_last_layer_can_be_had_without_the_final_norm_as_the_hidden_states_have_it(towers):
    folder, model = towers["onevision"]
    pictures = torch.randn(2, 3, 24, 24)
    captured = []
    hook = model.encoder.layers[-1].register_forward_hook(lambda module, args, output: captured.append(output))
    with torch.no_grad():
        normed = model(pixel_values=pictures).last_hidden_state
        rows = HubVision(id=folder, norm=False).eval()(list(pictures)).x
    hook.remove()
    torch.testing.assert_close(rows, captured[0].flatten(0, 1), atol=1e-6, rtol=1e-6)
    assert not torch.allclose(rows, normed.flatten(0, 1))
    with pytest.raises(ConfigError, match="behind the final norm"):
        HubVision(id=towers["clip"][0], norm=False, pooled=True)


@pytest.mark.parametrize("name", MODELS)
def test_taps_are_the_same_rows_of_other_layers(name, towers):
    folder, _ = towers[name]
    pictures = [torch.randn(3, 24, 24), torch.randn(2, 3, 16, 24), torch.randn(3, 24, 24)]
    out = HubVision(id=folder, layer=1, taps=[-1, 0, 2]).eval()(pictures)
    assert list(out.taps) == [-1, 0, 2] and out.x.shape[0] == 9 + 2 * 6 + 9
    for layer, rows in out.taps.items():
        alone = HubVision(id=folder, layer=layer).eval()(pictures)
        torch.testing.assert_close(rows, alone.x, atol=1e-5, rtol=1e-5)


def test_taps_have_the_width_that_is_declared(towers):
    part = HubVision(id=towers["clip"][0], tokens="cls", taps=[1, -2])
    assert part.tap_dims == {1: 16, -2: 16} and part.pooled_dim is None
    assert {layer: rows.shape for layer, rows in part([torch.randn(2, 3, 24, 24)]).taps.items()} == {
        1: (2, 16),
        -2: (2, 16),
    }


def test_the_joint_vector_of_clip_is_its_projected_image_embedding(tmp_path):
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(vision_config=_WIDE, text_config=_TEXT, projection_dim=12)).eval()
    model.save_pretrained(tmp_path)
    pictures = torch.randn(2, 3, 24, 24)
    part = HubVision(id=str(tmp_path), layer=-2, pooled=True).eval()
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=pictures).pooler_output
    out = part(list(pictures))
    assert part.pooled_dim == 12 and part.out_dim == 16 and out.x.shape == (18, 16)
    torch.testing.assert_close(out.pooled, expected, atol=1e-6, rtol=1e-6)


def test_the_joint_vector_of_siglip_is_its_pooled_one(towers):
    folder, model = towers["siglip"]
    pictures = torch.randn(2, 3, 24, 24)
    out = HubVision(id=folder, pooled=True).eval()(list(pictures))
    torch.testing.assert_close(out.pooled, model(pixel_values=pictures).pooler_output, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_joint_vector_may_be_the_row_of_a_frame(name, towers):
    clip, picture = torch.randn(2, 3, 24, 24), torch.randn(3, 24, 24)
    rows = HubVision(id=towers[name][0], tokens="pooled").eval()([clip, picture])
    beside = HubVision(id=towers[name][0], pooled=True).eval()([clip[0], clip[1], picture])
    assert rows.shapes == (Shape(2, (2, 1, 1)), Shape(1, (1, 1, 1)))
    torch.testing.assert_close(rows.x, beside.pooled, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(rows.pooled[0], rows.x[:2].mean(0), atol=1e-6, rtol=1e-6)


@pytest.fixture(scope="module")
def naflex(tmp_path_factory):
    """A folder with a tiny SigLIP 2 of any proportions, and the model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("naflex")
    sizes = {name: value for name, value in _WIDE.items() if name != "image_size"}
    model = Siglip2Model(Siglip2Config(vision_config={**sizes, "num_patches": 9}, text_config=_TEXT)).eval()
    for value in model.parameters():
        value.data += 0.05 * torch.randn(value.shape)
    model.save_pretrained(folder)
    return str(folder), model


def test_siglip2_of_any_proportions_equals_its_padded_batch(naflex):
    folder, model = naflex
    pictures = [torch.randn(3, 24, 24), torch.randn(3, 8, 40), torch.randn(3, 32, 16)]
    counts = [9, 5, 8]
    padded, mask = torch.zeros(3, 9, 8 * 8 * 3), torch.zeros(3, 9, dtype=torch.int32)
    for index, (picture, count) in enumerate(zip(pictures, counts, strict=True)):
        cells = picture.unfold(1, 8, 8).unfold(2, 8, 8)  # (C, rows, columns, 8, 8)
        padded[index, :count] = cells.permute(1, 2, 3, 4, 0).reshape(count, -1)
        mask[index, :count] = 1
    with torch.no_grad():
        published = model.vision_model(
            pixel_values=padded,
            pixel_attention_mask=mask,
            spatial_shapes=torch.tensor([(3, 3), (1, 5), (4, 2)]),
            output_hidden_states=True,
        )
        out = HubVision(id=folder, pooled=True, taps=[1, -2]).eval()(pictures)

    def joined(hidden):
        return torch.cat([item[:count] for item, count in zip(hidden, counts, strict=True)])

    assert out.shapes == (Shape(9, (1, 3, 3)), Shape(5, (1, 1, 5)), Shape(8, (1, 4, 2)))
    torch.testing.assert_close(out.x, joined(published.last_hidden_state), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.taps[1], joined(published.hidden_states[1]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.taps[-2], joined(published.hidden_states[2]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.pooled, published.pooler_output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"layer": 0, "taps": [-1, 1]}, {"layer": 1, "pooled": True}])
def test_inner_layers_and_joint_vectors_keep_the_laws_of_the_kit(options, towers):
    part = HubVision(id=towers["siglip"][0], **options)
    check_encoder(part, ImageProcessor(size_px=24), next(made_payloads("image")))


def test_patches_and_class_token_are_the_parts_of_all(towers):
    folder, _ = towers["dinov2"]
    picture = [torch.randn(3, 24, 24)]
    rows = {tokens: HubVision(id=folder, tokens=tokens).eval()(picture) for tokens in ("all", "cls", "patches")}
    assert torch.equal(rows["all"].x, torch.cat([rows["cls"].x, rows["patches"].x]))
    assert rows["patches"].shapes == (Shape(9, (1, 3, 3)),) and rows["all"].shapes == (Shape(10),)


def test_layers_above_the_highest_one_asked_for_are_not_built(towers):
    folder, _ = towers["clip"]
    for options in ({"layer": 1}, {"layer": 0, "taps": [1]}):
        names = [name for name, _ in HubVision(id=folder, **options).named_parameters() if "layers." in name]
        assert names and all("layers.0." in name for name in names)


def test_only_the_tower_of_a_whole_model_is_loaded(towers):
    names = [name for name, _ in HubVision(id=towers["llava"][0], layer=-2).named_parameters()]
    assert names and not [name for name in names if "language" in name or "projector" in name]


@pytest.mark.parametrize("prefix", ["vision_tower.vision_model.", "model.vision_tower.vision_model.", "anywhere."])
def test_a_tower_is_found_by_its_names_wherever_it_stands(prefix, towers, tmp_path):
    folder, model = towers["llava"]
    HubVision(id=folder).source_config.save_pretrained(tmp_path)
    tensors = load_file(f"{folder}/model.safetensors")
    moved = {name.replace("vision_tower.", prefix): value for name, value in tensors.items()}
    save_file(moved, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(open(f"{folder}/config.json").read())
    picture = torch.randn(1, 3, 24, 24)
    rows = HubVision(id=str(tmp_path), tokens="all").eval()([picture]).x
    torch.testing.assert_close(rows, model(pixel_values=picture).last_hidden_state[0], atol=1e-6, rtol=1e-6)


def test_a_file_of_two_towers_is_refused(towers, tmp_path):
    folder, _ = towers["llava"]
    tensors = load_file(f"{folder}/model.safetensors")
    twice = {name.replace("vision_tower.", "video_tower."): value.clone() for name, value in tensors.items()}
    save_file({**tensors, **twice}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(open(f"{folder}/config.json").read())
    with pytest.raises(CheckpointError, match=r"2 towers of one kind.*video_tower"):
        HubVision(id=str(tmp_path))


def test_a_whole_model_without_a_part_of_its_tower_is_refused(towers, tmp_path):
    folder, _ = towers["llava"]
    tensors = load_file(f"{folder}/model.safetensors")
    kept = {name: value for name, value in tensors.items() if "vision_tower.encoder.layers.2.mlp" not in name}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(open(f"{folder}/config.json").read())
    assert HubVision(id=str(tmp_path), layer=-2).out_dim == 16  # what is not built is not missed
    with pytest.raises(CheckpointError, match="lack 4 parameters"):
        HubVision(id=str(tmp_path))


def test_a_tower_of_a_file_in_parts_is_found(towers, tmp_path):
    folder, model = towers["onevision"]
    whole = LlavaOnevisionForConditionalGeneration.from_pretrained(folder)
    whole.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    picture = torch.randn(1, 3, 24, 24)
    rows = HubVision(id=str(tmp_path)).eval()([picture]).x
    torch.testing.assert_close(rows, model(pixel_values=picture).last_hidden_state[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_pictures_of_another_size_get_interpolated_positions(name, towers):
    part = HubVision(id=towers[name][0]).eval()
    assert part([torch.randn(3, 32, 48)]).shapes == (Shape(24, (1, 4, 6)),)


def test_frames_are_read_one_by_one(towers):
    part, clip = HubVision(id=towers["vit"][0]).eval(), torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(part([clip]).x, part(list(clip)).x, atol=1e-6, rtol=1e-6)
    assert part([clip]).shapes[0].grid == (2, 3, 3)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_configuration_builds_the_same_tower_without_the_source(name, towers, tmp_path):
    options = {"layer": -2, "pooled": name in ("clip", "siglip")}
    part = HubVision(id=towers[name][0], **options)
    part.save_config(tmp_path)
    again = HubVision(id=str(tmp_path), weights=False, **options)
    again.load_state_dict(part.state_dict(), strict=True)
    picture = [torch.randn(3, 24, 24)]
    assert torch.equal(part.eval()(picture).x, again.eval()(picture).x)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"layer": 4}, "layers 0 to 3"),
        ({"layer": -5}, "layers 0 to 3"),
        ({"taps": [1, 4]}, "layers 0 to 3"),
        ({"tokens": "mean"}, "unknown tokens"),
        ({"pooled": True}, "no joint vector"),
    ],
)
def test_a_layer_or_choice_that_does_not_exist_is_refused(options, message, towers):
    with pytest.raises(ConfigError, match=message):
        HubVision(id=towers["vit"][0], **options)


def test_the_joint_vector_as_rows_has_no_taps(towers):
    with pytest.raises(ConfigError, match="pooled: true"):
        HubVision(id=towers["clip"][0], tokens="pooled", taps=[1])


def test_a_tower_without_its_projection_cannot_give_a_joint_vector(tmp_path):
    CLIPVisionModel(CLIPVisionConfig(**_WIDE)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="visual_projection"):
        HubVision(id=str(tmp_path), pooled=True)


def test_a_tower_without_a_class_token_cannot_give_one(towers):
    with pytest.raises(ConfigError, match="no class token"):
        HubVision(id=towers["siglip"][0], tokens="cls")


def test_a_language_model_is_no_encoder(tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="gpt2"):
        HubVision(id=str(tmp_path))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(MissingAssetError, match=r"config\.json"):
        HubVision(id=str(tmp_path))


def test_a_configuration_without_weights_is_named(tmp_path):
    ViTConfig(**_TOWER).save_pretrained(tmp_path)
    with pytest.raises(MissingAssetError, match="safetensors"):
        HubVision(id=str(tmp_path))
    LlavaConfig(vision_config=CLIPVisionConfig(**_WIDE)).save_pretrained(tmp_path)
    with pytest.raises(MissingAssetError, match="safetensors"):
        HubVision(id=str(tmp_path))


def test_weights_of_fewer_layers_than_configured_are_refused(towers, tmp_path):
    ViTModel(ViTConfig(**_WIDE)).save_pretrained(tmp_path)
    ViTConfig(**{**_WIDE, "num_hidden_layers": 5}).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="incomplete"):
        HubVision(id=str(tmp_path))
