"""The Conformer of Phi-4-multimodal: from samples to rows as transformers computes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, Phi4MultimodalFeatureExtractor
from transformers.models.phi4_multimodal.configuration_phi4_multimodal import (
    Phi4MultimodalAudioConfig,
    Phi4MultimodalConfig,
)
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalForCausalLM

from omniloom.encoders.hub_processor import HubProcessor
from omniloom.encoders.phi_audio import PhiAudio
from omniloom.errors import ConfigError, MediaError
from omniloom.media import Audio
from omniloom.sequence import Shape

_AUDIO = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_blocks": 2,
    "num_attention_heads": 2,
    "ext_pw_out_channel": 16,
    "depthwise_separable_out_channel": 16,
    "nemo_conv_channels": 8,
    "input_size": 80,
    "bias_max_distance": 20,
}
_VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 60,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def sound(samples: int) -> Audio:
    return Audio((0.1 * np.random.default_rng(samples).standard_normal((1, samples))).astype(np.float32), 16_000)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder of the whole model and its feature extractor, its audio tower)."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("phi")
    vision = {**_VISION, "image_size": 28, "patch_size": 14, "crop_size": 28}
    config = Phi4MultimodalConfig(audio_config=_AUDIO, vision_config=vision, **_TEXT)
    model = Phi4MultimodalForCausalLM(config).eval()
    tower = model.model.embed_tokens_extend.audio_embed.encoder
    tower.encoder_embedding.global_mean.add_(2.0)
    tower.encoder_embedding.global_invstd.mul_(0.3)
    model.save_pretrained(folder)
    Phi4MultimodalFeatureExtractor().save_pretrained(folder)
    return str(folder), tower


@pytest.mark.parametrize("samples", [400, 559, 560, 16_123])
def test_frames_equal_those_of_transformers(samples, saved):
    audio, part = sound(samples), HubProcessor(id=saved[0])
    published = Phi4MultimodalFeatureExtractor()(audio.samples[0], sampling_rate=16_000, return_tensors="pt")
    expected = published["audio_input_features"][0]
    raw = part(audio)
    assert part.shape(raw).len == len(expected) and part.shape(raw).times[:2] in ((0.0,), (0.0, 0.01))
    torch.testing.assert_close(raw, expected, atol=2e-5, rtol=1e-5)


# 520 rows are more than the 500 that the tower reads at once.
@pytest.mark.parametrize("samples", [400, 16_123, 520 * 8 * 160])
def test_rows_are_the_towers(samples, saved):
    folder, tower = saved
    raw, part = HubProcessor(id=folder, max_s=60)(sound(samples)), PhiAudio(id=folder).train()
    with torch.no_grad():
        expected, out = tower(raw[None], None)[0], part([raw])
    torch.testing.assert_close(out.x, expected, atol=1e-6, rtol=1e-6)
    assert part.out_shape(Shape(len(raw))).len == len(expected)


def test_sounds_of_a_batch_do_not_change_each_other(saved):
    part, processor = PhiAudio(id=saved[0]).eval(), HubProcessor(id=saved[0])
    raws = [processor(sound(samples)) for samples in (16_000, 700, 16_000, 9_000)]
    with torch.no_grad():
        for raw, rows in zip(raws, part(raws).items(), strict=True):
            torch.testing.assert_close(part([raw]).x, rows, atol=1e-6, rtol=1e-6)


def test_a_row_begins_every_eighty_milliseconds(saved):
    times = tuple(frame / 100 for frame in range(17))
    assert PhiAudio(id=saved[0], weights=False).out_shape(Shape(17, times=times)).times == (0.0, 0.08, 0.16)


def test_only_the_audio_tower_is_loaded(saved):
    folder, tower = saved
    assert PhiAudio(id=folder).model.state_dict().keys() == tower.state_dict().keys()


def test_a_sound_shorter_than_a_frame_is_refused(saved):
    with pytest.raises(MediaError, match="one frame needs 400"):
        HubProcessor(id=saved[0])(sound(399))


def test_another_kind_of_model_is_refused(tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="gpt2"):
        PhiAudio(id=str(tmp_path))


def test_a_tower_alone_has_a_configuration_of_its_own(tmp_path):
    Phi4MultimodalAudioConfig(**_AUDIO).save_pretrained(tmp_path)
    assert PhiAudio(id=str(tmp_path), weights=False).out_dim == 16
