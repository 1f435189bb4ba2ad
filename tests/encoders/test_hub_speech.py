"""Published speech encoders: their rows are those of transformers' own models, of any layer."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import GPT2Config, HubertConfig, HubertModel, VoxtralConfig, VoxtralForConditionalGeneration

from omniloom.encoders.hub_speech import HubSpeech
from omniloom.errors import CheckpointError, ConfigError
from tests.encoders.tiny_models import TINY, WAVE

_TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_mel_bins": 8}
_LANGUAGE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 60,
}
WHOLES = {
    **{name: TINY[name] for name in ("whisper", "hubert", "wav2vec2", "conformer")},
    "voxtral": lambda: VoxtralForConditionalGeneration(
        VoxtralConfig(
            audio_config={**_TOWER, "intermediate_size": 32, "max_source_positions": 20}, text_config=_LANGUAGE
        )
    ),
    "hubert, norm at the end": lambda: HubertModel(
        HubertConfig(**WAVE, do_stable_layer_norm=True, feat_extract_norm="layer")
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> (folder, encoder in evaluation mode, a batch it reads)."""
    torch.manual_seed(0)
    root, found = tmp_path_factory.mktemp("speech"), {}
    for name, make in WHOLES.items():
        model = make().eval()
        for buffer_name, buffer in model.named_buffers():
            if "running" in buffer_name:
                buffer.add_(torch.rand_like(buffer))  # statistics that are not those of a fresh batch norm
        model.save_pretrained(root / name)
        encoder = model.model.audio_tower if name == "voxtral" else model
        encoder = model.get_encoder() if name == "whisper" else getattr(encoder, "wav2vec2", encoder)
        batch = torch.randn(2, 8, 40) if name in ("whisper", "voxtral") else torch.randn(2, 400)
        found[name] = (str(root / name), encoder, batch)
    return found


def raws_of(batch: torch.Tensor) -> list[torch.Tensor]:
    return list(batch.transpose(1, 2)) if batch.dim() == 3 else list(batch)


@pytest.mark.parametrize("layer", [-1, -2, 0])
@pytest.mark.parametrize("name", WHOLES)
def test_rows_are_the_hidden_states_of_the_layer(name, layer, saved):
    folder, model, batch = saved[name]
    with torch.no_grad():
        published = model(batch, output_hidden_states=True)
        rows = HubSpeech(id=folder, layer=layer).eval()(raws_of(batch)).x
    expected = published.last_hidden_state if layer == -1 else published.hidden_states[layer]
    torch.testing.assert_close(rows.view(expected.shape), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", WHOLES)
def test_taps_are_the_hidden_states_of_their_layers_under_the_numbers_given(name, saved):
    folder, model, batch = saved[name]
    part = HubSpeech(id=folder, taps=[0, -2]).eval()
    with torch.no_grad():
        states = model(batch, output_hidden_states=True).hidden_states
        taps = part(raws_of(batch)).taps
    assert part.tap_dims == {0: 16, -2: 16} and list(taps) == [0, -2]
    for layer, index in ((0, 0), (-2, 1)):
        torch.testing.assert_close(taps[layer].view(states[index].shape), states[index], atol=1e-6, rtol=1e-6)


def test_all_taps_are_every_layer_from_the_embedding_to_the_last(saved):
    folder, _, batch = saved["hubert"]
    part = HubSpeech(id=folder, taps="all").eval()
    out = part(raws_of(batch))
    assert list(out.taps) == [0, 1, 2] == list(part.tap_dims)
    assert torch.equal(out.taps[2], out.x) and not torch.equal(out.taps[1], out.x)


def test_taps_of_a_short_sound_have_its_rows_only(saved):
    folder, _, _ = saved["whisper"]
    out = HubSpeech(id=folder, taps=[1]).eval()([torch.randn(7, 8), torch.randn(20, 8)])
    assert out.lengths == [4, 10] and out.taps[1].shape == (14, 16)


def test_layers_above_the_highest_one_asked_for_are_not_built(saved):
    folder, _, _ = saved["whisper"]
    names = [name for name, _ in HubSpeech(id=folder, layer=0, taps=[1]).named_parameters()]
    assert any("layers.0." in name for name in names)
    assert not any("layers.1." in name or name == "model.layer_norm.weight" for name in names)


@pytest.mark.parametrize("name", ["whisper", "voxtral"])
def test_of_a_whole_model_only_the_audio_tower_is_loaded(name, saved):
    folder, encoder, _ = saved[name]
    loaded = {key: value.shape for key, value in HubSpeech(id=folder).model.state_dict().items()}
    assert loaded == {key: value.shape for key, value in encoder.state_dict().items()}


def test_a_whole_model_without_a_part_of_its_tower_is_refused(tmp_path):
    torch.manual_seed(0)
    audio = {**_TOWER, "intermediate_size": 32, "max_source_positions": 20}
    model = VoxtralForConditionalGeneration(VoxtralConfig(audio_config=audio, text_config=_LANGUAGE))
    model.save_pretrained(tmp_path)
    VoxtralConfig(audio_config={**audio, "num_hidden_layers": 3}, text_config=_LANGUAGE).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="incomplete"):
        HubSpeech(id=str(tmp_path))


def test_a_configuration_saved_of_a_whole_model_builds_its_tower(saved, tmp_path):
    folder, _, batch = saved["voxtral"]
    part = HubSpeech(id=folder, layer=-2).eval()
    part.save_config(tmp_path)
    again = HubSpeech(id=str(tmp_path), layer=-2, weights=False).eval()
    again.load_state_dict(part.state_dict(), strict=True)
    assert torch.equal(part(raws_of(batch)).x, again(raws_of(batch)).x)


def test_waveform_rows_have_their_times(saved):
    out = HubSpeech(id=saved["hubert"][0])([torch.randn(400)])
    assert out.shapes[0].times[:3] == (0.0, 10 / 16_000, 20 / 16_000)


def test_mert_is_read_as_a_hubert_with_a_rate_of_its_own(saved, tmp_path):
    _, model, batch = saved["hubert"]
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mert_model", "sample_rate": 24_000, "deepnorm": False, "feature_extractor_cqt": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    part = HubSpeech(id=str(tmp_path), taps="all").eval()
    out = part(raws_of(batch))
    torch.testing.assert_close(out.x.view(2, -1, 16), model(batch).last_hidden_state, atol=1e-6, rtol=1e-6)
    assert out.shapes[0].times[1] == 10 / 24_000
    (tmp_path / "config.json").write_text(json.dumps({**config, "feature_extractor_cqt": True}))
    with pytest.raises(ConfigError, match="feature_extractor_cqt"):
        HubSpeech(id=str(tmp_path))


@pytest.mark.parametrize(
    "options,message",
    [
        ({"layer": 3}, "layers 0 to 2"),
        ({"layer": -4}, "layers 0 to 2"),
        ({"taps": [5]}, "layers 0 to 2"),
        ({"taps": "last"}, "unknown taps"),
    ],
)
def test_a_layer_that_does_not_exist_is_refused(options, message, saved):
    with pytest.raises(ConfigError, match=message):
        HubSpeech(id=saved["hubert"][0], **options)


def test_a_language_model_is_no_speech_encoder(tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="gpt2"):
        HubSpeech(id=str(tmp_path))
