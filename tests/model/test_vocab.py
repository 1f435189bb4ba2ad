"""Rows of the extended vocabulary beside the language model's own."""

from __future__ import annotations

import torch
import transformers

from omniloom.model import compose
from omniloom.model.vocab import VocabRows
from omniloom.testing.doubles import tiny_tokenizer
from tests.examples import config_of


def test_new_rows_begin_around_the_mean_of_the_text_rows():
    table = torch.randn(500, 16) * 3 + 1
    rows = VocabRows(500, 400, table, table)
    assert float((rows.embedding.mean(0) - table.mean(0)).abs().max()) < 0.4
    assert torch.allclose(rows.embedding.std(0), table.std(0) * 0.5, rtol=0.2)
    assert torch.equal(rows.head, table.mean(0).expand(400, -1))


def test_ids_count_from_the_end_of_the_base():
    rows = VocabRows(10, 3, torch.randn(10, 4), torch.randn(10, 4))
    assert torch.equal(rows.embed(torch.tensor([12, 10])), rows.embedding[[2, 0]])
    assert rows.logits(torch.ones(2, 4)).shape == (2, 3)


def test_rows_are_float32_whatever_the_language_model_is():
    rows = VocabRows(10, 3, torch.randn(10, 4).bfloat16(), torch.randn(10, 4).bfloat16())
    assert rows.logits(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_without_outputs_the_logits_are_the_language_models_own(omni_folder):
    from tests.examples import example_values

    rows = {"image": example_values()["modalities"]["image"]}
    model = compose(config_of(omni_folder, modalities=rows, adapters={}), base=omni_folder)
    hidden = torch.randn(3, 32)
    assert model.vocab is None and torch.equal(model.logits(hidden), model.backbone.logits(hidden))


def test_new_rows_have_the_scale_of_embedded_tokens_where_the_model_scales_them(tmp_path):
    config = transformers.GemmaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, bos_token_id=0, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    transformers.GemmaForCausalLM(config).save_pretrained(tmp_path / "language-model")
    tiny_tokenizer().save_pretrained(tmp_path / "language-model")
    model = compose(config_of(tmp_path), base=tmp_path)
    embedded = model.backbone.embed(torch.arange(259)[None])[0]
    assert torch.allclose(model.vocab.embedding.std(), embedded.std() * 0.5, rtol=0.3)
    assert float(embedded.std()) > 4 * float(model.backbone.embedding_table().std())
