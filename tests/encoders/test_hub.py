"""Published speech encoders: their rows are those of transformers' own models."""

from __future__ import annotations

import torch
from transformers import HubertConfig, HubertModel, WhisperConfig, WhisperForConditionalGeneration

from omniloom.encoders.hub import HubSpeech

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
