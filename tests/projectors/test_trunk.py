"""The trunk's blocks are those of transformers' ViT and CLIP on the same weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    GPT2Config,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from omniloom.errors import CheckpointError, ConfigError
from omniloom.projectors import Context
from omniloom.projectors.trunk import Trunk
from omniloom.sequence import Packed, Shape

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}


def model_of(name):
    clip = CLIPConfig(vision_config=VISION, text_config=TEXT)
    return {
        "clip": lambda: CLIPModel(clip),
        "clip_vision": lambda: CLIPVisionModel(clip.vision_config),
        "vit": lambda: ViTModel(ViTConfig(**VISION)),
        "classifier": lambda: ViTForImageClassification(ViTConfig(**VISION)),
    }[name]()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """name -> (folder, vision model in evaluation mode)."""
    torch.manual_seed(0)
    root, found = tmp_path_factory.mktemp("trunks"), {}
    for name in ("clip", "clip_vision", "vit", "classifier"):
        model = model_of(name).eval()
        for value in model.parameters():
            torch.nn.init.normal_(value, std=0.3)
        model.save_pretrained(root / name)
        found[name] = str(root / name), getattr(model, "vision_model", getattr(model, "vit", model))
    return found


def hidden(model, pixels):
    return model(pixel_values=pixels).last_hidden_state


def rows_of(model, pixels):
    """(4, 16) rows of patches with positions, as a stem would give them."""
    with torch.no_grad():
        return model.embeddings(pixels)[0, 1:]


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "clip_vision", "vit", "classifier"])
def test_behind_the_models_own_stem_it_gives_the_models_own_rows(published, name):
    folder, model = published[name]
    pixels = torch.randn(1, 3, 16, 16)
    expected = hidden(model, pixels)[0]
    if "clip" in name:
        # CLIP itself norms its class token alone.
        expected = model.post_layernorm(expected)
    packed = Packed(rows_of(model, pixels), (Shape(4, (1, 2, 2)),))
    kept = Trunk(16, 9, id=folder, token="keep")(packed, Context())
    torch.testing.assert_close(kept.x, expected, atol=1e-5, rtol=1e-5)
    assert kept.shapes == (Shape(5),)
    dropped = Trunk(16, 9, id=folder, token="drop")(packed, Context())
    torch.testing.assert_close(dropped.x, expected[1:], atol=1e-5, rtol=1e-5)
    assert dropped.shapes == packed.shapes


@torch.no_grad()
def test_the_blocks_alone_are_those_of_meta_transformer(published):
    folder, model = published["vit"]
    rows = torch.randn(1, 7, 16)
    expected = model.layers[0](rows, None)[0]
    part = Trunk(16, 9, id=folder, layers=1, pre_norm=False, post_norm=False)
    torch.testing.assert_close(part(Packed.of([rows[0]]), Context()).x, expected)
    assert {name.split(".")[0] for name, _ in part.named_parameters()} == {"blocks"}


def test_items_of_other_lengths_do_not_matter(published):
    part = Trunk(16, 9, id=published["clip"][0])
    items = [torch.randn(3, 16), torch.randn(9, 16), torch.randn(3, 16)]
    together = list(part(Packed.of(items), Context()).items())
    for item, expected in zip(items, together, strict=True):
        torch.testing.assert_close(part(Packed.of([item]), Context()).x, expected, atol=1e-5, rtol=1e-5)


def test_it_is_built_again_from_its_configuration_and_weights(published, tmp_path):
    part = Trunk(16, 9, id=published["clip"][0], token="keep")
    part.save_config(tmp_path)
    again = Trunk(16, 9, id=str(tmp_path), token="keep", weights=False)
    again.load_state_dict(part.state_dict(), strict=True)
    packed = Packed.of([torch.randn(3, 16)])
    assert torch.equal(again(packed, Context()).x, part(packed, Context()).x)


def test_vision_towers_of_older_files_are_read_alike(published, tmp_path):
    folder, model = published["clip_vision"]
    save_file(
        {f"vision_model.{name}": value.clone() for name, value in model.state_dict().items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    model.config.save_pretrained(tmp_path)
    packed = Packed.of([torch.randn(3, 16)])
    expected = Trunk(16, 9, id=folder)(packed, Context()).x
    assert torch.equal(Trunk(16, 9, id=str(tmp_path))(packed, Context()).x, expected)


def test_rows_of_another_width_are_told_how_to_get_there(published):
    with pytest.raises(ConfigError, match="width: 16 before it"):
        Trunk(12, 9, id=published["vit"][0])


def test_a_model_of_another_kind_and_layers_it_does_not_have_are_refused(published, tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'gpt2', not a trunk"):
        Trunk(16, 9, id=str(tmp_path))
    with pytest.raises(ConfigError, match="has 2 layers; got layers=3"):
        Trunk(16, 9, id=published["vit"][0], layers=3)


def test_a_file_without_the_blocks_is_refused(published, tmp_path):
    config = ViTConfig(**{**VISION, "num_hidden_layers": 1})
    ViTModel(config).save_pretrained(tmp_path)
    ViTConfig(**VISION).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="lack"):
        Trunk(16, 9, id=str(tmp_path))
