"""The published Q-Former: its rows are those of transformers' own models."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, ViTConfig

from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, ShapeError
from omniloom.projectors import Context
from omniloom.projectors.hub_qformer import HubQFormer
from omniloom.sequence import Packed
from tests.projectors.tiny_blip import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(folder of all, name -> model)."""
    root = tmp_path_factory.mktemp("blip")
    return root, save_tiny(root)


def part_of(tiny, name, **options):
    return HubQFormer(12, 8, id=str(tiny[0] / name), **options).eval()


@torch.no_grad()
def test_rows_of_pictures_are_those_that_blip_2_gives_its_language_model(tiny):
    model, pictures = tiny[1]["blip2"], torch.randn(2, 3, 16, 16)
    expected = model.get_image_features(pictures).pooler_output
    rows = model.vision_model(pictures).last_hidden_state
    out = part_of(tiny, "blip2")(Packed.of(list(rows)), Context()).x
    torch.testing.assert_close(out, expected.flatten(0, 1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_of_pictures_and_instructions_are_those_that_instruct_blip_gives_its_language_model(tiny):
    model, pictures = tiny[1]["instructblip"], torch.randn(3, 3, 16, 16)
    texts = ["what is it", "count them all where", ""]
    tokenizer = BertTokenizer.from_pretrained(tiny[0] / "instructblip" / "qformer_tokenizer")
    said = tokenizer(texts, padding=True, return_tensors="pt")
    features = model.get_image_features(pictures, said["input_ids"], said["attention_mask"]).pooler_output
    rows = model.vision_model(pictures).last_hidden_state
    out = part_of(tiny, "instructblip")(Packed.of(list(rows)), Context(instructions=texts)).x
    torch.testing.assert_close(out, features.flatten(0, 1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["blip2", "instructblip"])
def test_items_of_different_lengths_in_one_batch_are_as_transformers_reads_each_alone(name, tiny):
    model, items = tiny[1][name], [torch.randn(length, 12) for length in (7, 1, 12)]
    part = part_of(tiny, name)
    texts = ["what is it", "where", "count"]
    out = part(Packed.of(items), Context(instructions=texts)).x.split(4)
    for rows, text, got in zip(items, texts, out, strict=True):
        query = {"query_embeds": model.query_tokens, "encoder_hidden_states": rows[None]}
        if name == "blip2":
            hidden = model.qformer(**query).last_hidden_state
        else:
            hidden = model.qformer(part.tokenizer(text, return_tensors="pt")["input_ids"], **query).last_hidden_state
        expected = model.language_projection(hidden[0, :4])
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_only_the_q_former_its_queries_and_the_map_are_loaded(tiny):
    names = {name.split(".")[0] for name, _ in part_of(tiny, "blip2").named_parameters()}
    assert names == {"query", "qformer", "map"}


def test_another_instruction_reads_other_rows(tiny):
    part, rows = part_of(tiny, "instructblip"), Packed.of([torch.randn(5, 12)])
    one, two = (part(rows, Context(instructions=[text])).x for text in ("what is it", "where"))
    assert not torch.allclose(one, two)


def test_an_instruction_longer_than_the_positions_is_cut(tiny):
    part, rows = part_of(tiny, "instructblip"), Packed.of([torch.randn(5, 12)])
    assert part(rows, Context(instructions=["what is it " * 20])).lengths == [4]


def test_each_modality_starts_with_the_published_queries_and_keeps_its_own(tiny):
    part, plain, rows = (
        part_of(tiny, "blip2", own_queries=True),
        part_of(tiny, "blip2"),
        Packed.of([torch.randn(5, 12)]),
    )
    part.serve("a")
    part.serve("b")
    published = plain(rows, Context()).x
    assert torch.equal(part(rows, Context(modality="a")).x, published)
    part.own["b"].query.data += 1.0 * torch.randn(4, 8)
    assert torch.equal(part(rows, Context(modality="a")).x, published)
    assert not torch.allclose(part(rows, Context(modality="b")).x, published)
    assert "query" not in dict(part.named_parameters())


def test_a_new_map_fits_a_language_model_of_another_width(tiny):
    part = HubQFormer(12, 20, id=str(tiny[0] / "blip2"), projection="new")
    assert part(Packed.of([torch.randn(5, 12)]), Context()).x.shape == (4, 20)
    with pytest.raises(ConfigError, match=r"8 wide.*takes 20\. Take projection: new"):
        HubQFormer(12, 20, id=str(tiny[0] / "blip2"))


def test_random_weights_start_with_queries_that_differ(tiny):
    part = part_of(tiny, "blip2", weights=False)
    assert torch.pdist(part.query).min() > 0.01
    assert not torch.equal(part.map.weight, part_of(tiny, "blip2").map.weight)


@pytest.mark.parametrize("name", ["blip2", "instructblip"])
def test_training_mode_has_no_dropout(name, tiny):
    part, rows = part_of(tiny, name), Packed.of([torch.randn(5, 12)])
    context = Context(instructions=["where"])
    assert torch.equal(part.train()(rows, context).x, part.eval()(rows, context).x)


@pytest.mark.parametrize("name", ["blip2", "instructblip"])
def test_a_saved_configuration_builds_the_same_part_without_the_source(name, tiny, tmp_path):
    part, rows = part_of(tiny, name), Packed.of([torch.randn(5, 12)])
    part.save_config(tmp_path)
    again = HubQFormer(12, 8, id=str(tmp_path), weights=False).eval()
    again.load_state_dict(part.state_dict(), strict=True)
    context = Context(instructions=["where"])
    assert torch.equal(part(rows, context).x, again(rows, context).x)


def test_rows_of_another_width_than_the_published_encoders_are_refused(tiny):
    with pytest.raises(ConfigError, match="12 wide, the part before gives 16"):
        HubQFormer(16, 8, id=str(tiny[0] / "blip2"))


def test_another_kind_of_model_is_refused(tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"'vit'; expected blip-2 or instructblip"):
        HubQFormer(12, 8, id=str(tmp_path))


def test_weights_without_a_part_of_the_q_former_are_refused(tiny, tmp_path):
    shutil.copytree(tiny[0] / "blip2", tmp_path / "cut")
    tensors = load_file(tmp_path / "cut" / "model.safetensors")
    del tensors["qformer.encoder.layer.1.attention.attention.value.weight"]
    save_file(tensors, tmp_path / "cut" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="value"):
        HubQFormer(12, 8, id=str(tmp_path / "cut"))


def test_instructions_without_their_tokenizer_are_refused(tiny, tmp_path):
    shutil.copytree(tiny[0] / "instructblip", tmp_path / "mute")
    shutil.rmtree(tmp_path / "mute" / "qformer_tokenizer")
    with pytest.raises(MissingAssetError, match="qformer_tokenizer"):
        HubQFormer(12, 8, id=str(tmp_path / "mute"))


def test_an_instruction_too_few_is_refused(tiny):
    with pytest.raises(ShapeError, match="1 instructions for 2 items"):
        part_of(tiny, "instructblip")(Packed.of([torch.randn(5, 12)] * 2), Context(instructions=["where"]))
