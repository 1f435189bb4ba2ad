"""Published encoders of sound: from samples to rows as transformers' own extractors and models compute them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
)

from omniloom.encoders.hub_audio import HubAudio
from omniloom.encoders.hub_processor import HubProcessor
from omniloom.errors import ConfigError, MediaError, ShapeError
from omniloom.media import Audio
from omniloom.sequence import Shape

NOISE = np.random.default_rng(0)
_AST = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 8,
    "frequency_stride": 6,
    "time_stride": 5,
    "max_length": 64,
    "num_mel_bins": 32,
}
_CLAP = {
    "window_size": 2,
    "num_mel_bins": 16,
    "spec_size": 64,
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "depths": (2, 1),
    "num_attention_heads": (1, 2),
    "aff_block_r": 2,
}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 60}
_CLAP_SOUNDS = {"feature_size": 16, "max_length_s": 2}


def sound(seconds: float, rate_hz: int) -> Audio:
    return Audio((0.1 * NOISE.standard_normal((1, round(seconds * rate_hz)))).astype(np.float32), rate_hz)


def _clap(fused: bool) -> ClapModel:
    audio = {**_CLAP, "enable_fusion": fused}
    model = ClapModel(ClapConfig(text_config=_TEXT, audio_config=audio, projection_dim=12)).eval()
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.add_(-30)
    norm.running_var.mul_(100)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> (folder of model and extractor, model, extractor)."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("sounds")
    made = {
        "ast": (
            ASTForAudioClassification(ASTConfig(**_AST)).eval(),
            ASTFeatureExtractor(num_mel_bins=32, max_length=64),
        ),
        "clap": (_clap(False), ClapFeatureExtractor(**_CLAP_SOUNDS, truncation="rand_trunc")),
        "fused": (_clap(True), ClapFeatureExtractor(**_CLAP_SOUNDS, truncation="fusion")),
    }
    for name, (model, extractor) in made.items():
        if name == "ast":  # its tokens and positions begin as zeros
            for value in (v for n, v in model.named_parameters() if "token" in n or "position" in n):
                torch.nn.init.normal_(value)
        model.save_pretrained(root / name)
        extractor.save_pretrained(root / name)
    return {name: (str(root / name), *parts) for name, parts in made.items()}


# -- processors -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("samples", [400, 5_000, 16_123, 164_239])
@pytest.mark.parametrize("normalize", [True, False])
def test_filter_banks_equal_those_of_transformers(samples, normalize, tmp_path):
    published = ASTFeatureExtractor(do_normalize=normalize)
    published.save_pretrained(tmp_path)
    audio, part = sound(samples / 16_000, 16_000), HubProcessor(id=str(tmp_path))
    expected = torch.tensor(np.array(published(audio.samples[0], sampling_rate=16_000)["input_values"][0]))
    raw = part(audio)
    assert raw.shape == (1024, 128) and part.shape(raw).times[100] == 1.0
    torch.testing.assert_close(raw, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("samples", [1, 7_000, 30_000, 50_000, 96_000])
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("truncation", ["fusion", "rand_trunc"])
def test_spectrograms_equal_those_of_clap(samples, padding, truncation, tmp_path):
    published = ClapFeatureExtractor(max_length_s=2, truncation=truncation, padding=padding)
    published.save_pretrained(tmp_path)
    audio, part = sound(samples / 48_000, 48_000), HubProcessor(id=str(tmp_path))
    expected = torch.tensor(np.array(published(audio.samples[0], sampling_rate=48_000)["input_features"][0]))
    raw = part(audio)
    assert raw.shape == (201, 64) and part.shape(raw).times[100] == 1.0
    torch.testing.assert_close(raw.expand_as(expected), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name,seconds,parts", [("ast", 2.0, 4), ("clap", 5.0, 3)])
def test_long_sounds_are_refused_and_split(name, seconds, parts, saved):
    part, audio = HubProcessor(id=saved[name][0]), sound(seconds, 48_000)
    with pytest.raises(MediaError, match="audio_too_long"):
        part(audio)
    assert len({part(window).shape for window in part.split(audio)}) == 1 and len(part.split(audio)) == parts


def test_a_sound_shorter_than_a_frame_is_refused(saved):
    with pytest.raises(MediaError, match="one frame needs 400"):
        HubProcessor(id=saved["ast"][0])(sound(0.02, 16_000))


def test_options_of_whisper_are_refused_elsewhere(saved):
    with pytest.raises(ConfigError, match="trim is of Whisper"):
        HubProcessor(id=saved["clap"][0], trim=True)


# -- AST ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _published(saved, audio, **options):
    _, model, extractor = saved["ast"]
    inputs = extractor(audio.samples[0], sampling_rate=16_000, return_tensors="pt")["input_values"]
    return model.audio_spectrogram_transformer(inputs, **options)


@pytest.mark.parametrize("layer", [-1, -2, 0])
def test_ast_tokens_are_the_hidden_states_of_the_layer(layer, saved):
    folder, audio = saved["ast"][0], sound(0.4, 16_000)
    out = _published(saved, audio, output_hidden_states=True)
    part = HubAudio(id=folder, layer=layer, tokens="all").eval()
    with torch.no_grad():
        rows = part([HubProcessor(id=folder)(audio)]).x
    expected = out.last_hidden_state[0] if layer == -1 else out.hidden_states[layer][0]
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)


def test_ast_patches_come_time_after_time(saved):
    folder, audio = saved["ast"][0], sound(0.4, 16_000)
    part = HubAudio(id=folder).eval()
    processor = HubProcessor(id=folder)
    with torch.no_grad():
        out = part([processor(audio)])
    # (64 - 8) // 5 + 1 columns, (32 - 8) // 6 + 1 pitches; the model's patch of pitch p and column c is p * 12 + c.
    assert out.shapes[0].grid == (12, 5, 1)
    states = _published(saved, audio).last_hidden_state[0, 2:]
    torch.testing.assert_close(out.x.view(12, 5, 16), states.view(5, 12, 16).transpose(0, 1), atol=1e-5, rtol=1e-5)
    times = part.out_shape(processor.shape(processor(audio))).times
    assert times[:6] == pytest.approx((0, 0, 0, 0, 0, 0.05))


def test_class_tokens_of_several_layers_are_taken_with_taps(saved):
    folder, audio = saved["ast"][0], sound(0.4, 16_000)
    part = HubAudio(id=folder, tokens="cls", taps=[1, 2]).eval()
    with torch.no_grad():
        out = part([HubProcessor(id=folder)(audio)])
    states = _published(saved, audio, output_hidden_states=True).hidden_states
    assert part.tap_dims == {1: 16, 2: 16} and out.lengths == [1]
    torch.testing.assert_close(torch.cat([out.taps[1], out.taps[2]]), torch.cat([states[1][:, 0], states[2][:, 0]]))


@pytest.mark.parametrize("tokens", ["patches", "pooled"])
def test_the_joint_vector_of_ast_is_its_poolers(tokens, saved):
    folder, audio = saved["ast"][0], sound(0.4, 16_000)
    with torch.no_grad():
        out = HubAudio(id=folder, tokens=tokens, pooled=True).eval()([HubProcessor(id=folder)(audio)])
    expected = _published(saved, audio).pooler_output
    torch.testing.assert_close(out.pooled, expected, atol=1e-5, rtol=1e-5)
    assert tokens == "patches" or torch.equal(out.x, out.pooled)


def test_frames_of_another_number_are_refused_by_ast(saved):
    with pytest.raises(ShapeError, match="reads 64"):
        HubAudio(id=saved["ast"][0], weights=False).out_shape(Shape(63))


# -- CLAP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clap", "fused"])
@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_claps_map_and_vector_are_the_models_own(name, seconds, saved):
    folder, model, extractor = saved[name]
    audio = sound(seconds, 48_000)
    inputs = extractor(audio.samples[0], sampling_rate=48_000, return_tensors="pt")
    # The extractor calls one sound of every batch longer than it is; a short sound is not.
    inputs["is_longer"] = torch.tensor([[False]])
    raw, part = HubProcessor(id=folder)(audio), HubAudio(id=folder, pooled=True).train()
    with torch.no_grad():
        expected, out = model.get_audio_features(**inputs), part([raw, raw])
    joint = torch.nn.functional.normalize(out.pooled, dim=-1)
    torch.testing.assert_close(joint, expected.pooler_output.expand(2, -1), atol=1e-5, rtol=1e-5)
    # 64 / 4 / 2 = 8 cells a side in 4 strips: 32 in time, 2 in pitch.
    assert out.shapes[0].grid == (32, 2, 1)
    cells = expected.last_hidden_state[0]
    torch.testing.assert_close(out.x[:64].view(32, 2, 16), cells.permute(2, 1, 0), atol=1e-5, rtol=1e-5)


def test_cells_of_clap_lie_evenly_over_the_window(saved):
    times = tuple(index / 100 for index in range(201))
    out = HubAudio(id=saved["clap"][0], weights=False).out_shape(Shape(201, times=times)).times
    assert out[:4] == (0.0, 0.0, 0.06, 0.06) and out[-1] == 1.94


def test_the_projected_vector_alone_is_one_row(saved):
    folder = saved["clap"][0]
    part, raw = HubAudio(id=folder, tokens="pooled").eval(), HubProcessor(id=folder)(sound(0.5, 48_000))
    out = part([raw])
    assert part.out_dim == 12 and out.x.shape == (1, 12) and torch.equal(out.x, out.pooled)


def test_a_tower_that_gives_no_vector_has_no_projection(saved):
    names = [name for name, _ in HubAudio(id=saved["clap"][0]).named_parameters()]
    assert names and not [name for name in names if "audio_projection" in name or "text" in name]


@pytest.mark.parametrize(
    "name,options,message",
    [
        ("ast", {"layer": 4}, "layers 0 to 3"),
        ("ast", {"tokens": "mean"}, "unknown tokens"),
        ("ast", {"tokens": "pooled", "taps": [1]}, "other rows"),
        ("clap", {"tokens": "cls"}, "patches, pooled"),
        ("clap", {"taps": [1]}, "only the last"),
    ],
)
def test_rows_that_a_tower_does_not_have_are_refused(name, options, message, saved):
    with pytest.raises(ConfigError, match=message):
        HubAudio(id=saved[name][0], **options)


def test_another_kind_of_model_is_refused(tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="gpt2"):
        HubAudio(id=str(tmp_path))
