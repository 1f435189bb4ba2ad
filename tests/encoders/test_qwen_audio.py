"""Audio towers of the Qwen family: processor and tower give the rows of the whole models of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    GPT2Config,
    Qwen2_5OmniConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from omniloom.encoders.hub_processor import HubProcessor
from omniloom.encoders.qwen_audio import QwenAudio
from omniloom.errors import CheckpointError, ConfigError, ShapeError
from omniloom.media import Audio
from omniloom.sequence import Bundle, Shape

MELS, WINDOW_S = 8, 3
_AUDIO = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": MELS,
    "max_source_positions": 50 * WINDOW_S,
}
_FLAMINGO = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_mel_bins": MELS,
    "max_source_positions": 50 * WINDOW_S,
}
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 60,
}
_OMNI_TEXT = {**_TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
_VISION = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 16}
AUDIO_TOKEN = 7


def _qwen2_audio():
    text = {"model_type": "qwen2", **_TEXT}
    config = Qwen2AudioConfig(audio_config=_AUDIO, text_config=text, audio_token_index=AUDIO_TOKEN)
    return Qwen2AudioForConditionalGeneration(config)


def _flamingo():
    text = {"model_type": "qwen2", **_TEXT}
    config = AudioFlamingo3Config(audio_config=_FLAMINGO, text_config=text, audio_token_id=AUDIO_TOKEN)
    return AudioFlamingo3ForConditionalGeneration(config)


def _qwen2_5_omni():
    audio = {**_AUDIO, "output_dim": 24, "n_window": 100}
    config = Qwen2_5OmniThinkerConfig(audio_config=audio, vision_config=_VISION, text_config=_OMNI_TEXT)
    return Qwen2_5OmniThinkerForConditionalGeneration(config)


def _qwen3_omni():
    audio = {**_AUDIO, "output_dim": 24, "downsample_hidden_size": 4, "n_window_infer": 200}
    text = {**_OMNI_TEXT, "moe_intermediate_size": 8, "num_experts": 2, "num_experts_per_tok": 1}
    vision = {**_VISION, "deepstack_visual_indexes": [0]}
    return Qwen3OmniMoeThinkerForConditionalGeneration(
        Qwen3OmniMoeThinkerConfig(audio_config=audio, vision_config=vision, text_config=text)
    )


MODELS = {"qwen2_audio": _qwen2_audio, "flamingo": _flamingo, "omni2.5": _qwen2_5_omni, "omni3": _qwen3_omni}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> (folder with the whole model and its feature extractor, the model)."""
    torch.manual_seed(0)
    root, found = tmp_path_factory.mktemp("qwen"), {}
    for name, make in MODELS.items():
        model = make().eval()
        model.save_pretrained(root / name)
        WhisperFeatureExtractor(feature_size=MELS, chunk_length=WINDOW_S).save_pretrained(root / name)
        found[name] = (str(root / name), model)
    return found


def sound(seconds: float, seed: int = 0) -> Audio:
    noise = np.random.default_rng(seed).standard_normal((1, round(seconds * 16_000)))
    return Audio((0.1 * noise).astype(np.float32), 16_000)


@torch.no_grad()
def published(name: str, model: torch.nn.Module, audio: Audio) -> torch.Tensor:
    """The rows that the whole model gives its language model for this sound, by its own code from the samples on."""
    extract = WhisperFeatureExtractor(feature_size=MELS, chunk_length=WINDOW_S)
    inputs = extract(audio.samples[0], sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
    frames, mask = inputs["input_features"], inputs["attention_mask"]
    if name == "flamingo":
        return model.model.get_audio_features(frames, mask).pooler_output
    if name != "qwen2_audio":
        return model.get_audio_features(frames, mask).last_hidden_state
    seen: list[torch.Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    ids = torch.tensor([[1, AUDIO_TOKEN, 2]])  # one token of audio: the model itself finds how many rows it stands for
    out = model.model(ids, input_features=frames, feature_attention_mask=mask, attention_mask=torch.ones_like(ids))
    hook.remove()
    return seen[0][0][: out.last_hidden_state.shape[1] - 2]


def projected(name: str, model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """The published model's own map behind the tower: what a projector is here."""
    if name in ("qwen2_audio", "flamingo"):
        return model.model.multi_modal_projector(rows)
    tower = model.model.audio_tower
    return tower.proj(rows) if name == "omni2.5" else tower.proj2(tower.act(tower.proj1(rows)))


@pytest.mark.parametrize("seconds", [0.0301, 0.4999, 1.0, 2.0, 2.345, 2.9949, 3.0])
@pytest.mark.parametrize("name", MODELS)
def test_a_sound_has_the_rows_of_the_whole_model(name, seconds, saved):
    folder, model = saved[name]
    audio, processor = sound(seconds), HubProcessor(id=folder, lengths=True)
    with torch.no_grad():
        part = QwenAudio(id=folder).eval()
        out = part([processor(audio)])
        torch.testing.assert_close(projected(name, model, out.x), published(name, model, audio), atol=1e-5, rtol=1e-5)
    assert out.lengths == [part.out_shape(processor.shape(processor(audio))).len]


@pytest.mark.parametrize("name", MODELS)
def test_sounds_of_a_batch_do_not_change_each_other(name, saved):
    folder, _ = saved[name]
    part, processor = QwenAudio(id=folder).eval(), HubProcessor(id=folder, lengths=True)
    raws = [processor(sound(seconds, seed)) for seed, seconds in enumerate((0.21, 2.7, 0.9, 2.7, 0.05))]
    with torch.no_grad():
        for raw, rows in zip(raws, part(raws).items(), strict=True):
            torch.testing.assert_close(part([raw]).x, rows, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_tower_alone_is_saved_and_read_again(name, saved, tmp_path):
    folder, model = saved[name]
    model.model.audio_tower.save_pretrained(tmp_path)
    raw = HubProcessor(id=folder, lengths=True)(sound(1.3))
    with torch.no_grad():
        whole, tower = QwenAudio(id=folder).eval()([raw]), QwenAudio(id=str(tmp_path)).eval()([raw])
    assert torch.equal(whole.x, tower.x)


@pytest.mark.parametrize(
    "name,starts", [("qwen2_audio", range(0, 132, 4)), ("omni2.5", range(0, 132, 4)), ("omni3", [*range(0, 100, 8)])]
)
def test_rows_start_where_their_first_frame_starts(name, starts, saved):
    shape = Shape(133, times=tuple(frame / 100 for frame in range(133)))
    rest = [100, 108, 116, 124, 132] if name == "omni3" else []
    times = QwenAudio(id=saved[name][0], weights=False).out_shape(shape).times
    assert times == tuple(start / 100 for start in (*starts, *rest))


def test_blocks_of_two_seconds_do_not_see_each_other(saved):
    part = QwenAudio(id=saved["omni2.5"][0]).eval()
    frames = torch.randn(300, MELS)
    other = frames.clone()
    other[200:] += 1
    with torch.no_grad():
        rows, changed = (part([Bundle(frames=f, length=torch.tensor([300]))]).x for f in (frames, other))
    assert torch.equal(rows[:50], changed[:50]) and not torch.allclose(rows[50:], changed[50:])


def test_the_map_to_the_language_model_is_left_to_the_projector(saved):
    names = [name for name, _ in QwenAudio(id=saved["omni2.5"][0]).named_parameters()]
    assert not [name for name in names if ("proj." in name and "self_attn" not in name) or "audio_bos" in name]


@pytest.mark.parametrize("name", ["qwen2_audio", "omni2.5"])
def test_a_sound_too_short_for_a_row_is_refused(name, saved):
    part = QwenAudio(id=saved[name][0])
    with pytest.raises(ShapeError, match="one row needs 3"):
        part([Bundle(frames=torch.zeros(4, MELS), length=torch.tensor([2]))])


def test_more_frames_than_the_window_are_refused(saved):
    with pytest.raises(ShapeError, match="300 frames, got 301"):
        QwenAudio(id=saved["qwen2_audio"][0]).out_shape(Shape(301))


def test_weights_that_do_not_fill_the_tower_are_refused(saved, tmp_path):
    _, model = saved["omni2.5"]
    model.save_pretrained(tmp_path)
    config = Qwen2_5OmniThinkerConfig.from_pretrained(tmp_path)
    config.audio_config.encoder_layers = 3
    config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="incomplete"):
        QwenAudio(id=str(tmp_path))


def test_another_kind_of_model_is_refused(tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="gpt2"):
        QwenAudio(id=str(tmp_path))


def test_the_thinker_of_a_whole_omni_model_lends_its_ears(saved, tmp_path):
    folder, model = saved["omni2.5"]
    save_file({f"thinker.{name}": value for name, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    Qwen2_5OmniConfig(thinker_config=model.config.to_dict()).save_pretrained(tmp_path)
    raw = HubProcessor(id=folder, lengths=True)(sound(1.3))
    with torch.no_grad():
        assert torch.equal(QwenAudio(id=str(tmp_path)).eval()([raw]).x, QwenAudio(id=folder).eval()([raw]).x)
