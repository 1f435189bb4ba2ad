"""Branches of LanguageBind: CLIP's numbers where time is off, those of each layer in time, adapters in the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from omniloom.encoders.filter_banks import kaldi_fbank
from omniloom.encoders.language_bind import LanguageBind
from omniloom.encoders.map_processor import MapProcessor
from omniloom.encoders.processors import ImageProcessor, VideoProcessor
from omniloom.encoders.sound_clips import SoundChannelsProcessor
from omniloom.errors import CheckpointError, ConfigError, MediaError, MissingAssetError, ShapeError
from omniloom.media import Audio
from omniloom.registry import build, spec_of
from omniloom.sequence import Shape
from omniloom.testing import check_encoder, check_processor, made_payloads
from tests.encoders.tiny_language_bind import TOWER, save_branch

RAWS = {"LanguageBindImage": (3, 16, 16), "LanguageBindVideo": (4, 3, 16, 16), "LanguageBindAudio": (3, 16, 24)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    base = tmp_path_factory.mktemp("branches")
    for kind in RAWS:
        save_branch(base / kind, kind)
    return {kind: str(base / kind) for kind in RAWS}


# -- numbers ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_branch_of_pictures_is_clip(folders):
    folder = folders["LanguageBindImage"]
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER, projection_dim=12)).eval()
    weights = load_file(f"{folder}/model.safetensors")
    del weights["logit_scale"]
    clip.load_state_dict(weights, strict=True)
    pictures = torch.randn(2, 3, 16, 16)
    out = clip(pictures, output_hidden_states=True)
    part = LanguageBind(id=folder).eval()
    torch.testing.assert_close(part(list(pictures)).x, F.normalize(out.image_embeds, dim=-1), atol=1e-6, rtol=1e-6)
    for layer, hidden in ((0, out.hidden_states[0]), (1, out.hidden_states[1]), (-1, out.last_hidden_state)):
        rows = LanguageBind(id=folder, tokens="all", layer=layer).eval()(list(pictures))
        torch.testing.assert_close(rows.x, hidden.flatten(0, 1), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(rows.pooled, F.normalize(out.image_embeds, dim=-1), atol=1e-6, rtol=1e-6)
        patches = LanguageBind(id=folder, tokens="patches", layer=layer).eval()(list(pictures))
        torch.testing.assert_close(patches.x, hidden[:, 1:].flatten(0, 1), atol=1e-6, rtol=1e-6)
        assert patches.shapes == (Shape(4, (1, 2, 2)),) * 2


@torch.no_grad()
def test_frames_of_a_clip_attend_to_each_other_place_by_place_before_each_frame_does(folders):
    """The layers in time, written out by head: an embedding of the frame, a norm, attention over the frames."""
    part = LanguageBind(id=folders["LanguageBindVideo"], tokens="all").eval()
    clip = torch.randn(4, 3, 16, 16)
    tower = part.vision_model
    x = tower.pre_layrnorm(tower.embeddings(clip))
    for layer in tower.encoder["layers"]:
        for place in range(x.shape[1]):
            x[:, place] += layer.temporal_embedding[0]
            attention, normed = layer.temporal_attn, layer.temporal_layer_norm1(x[:, place])
            query, key, value = (
                getattr(attention, name)(normed).unflatten(-1, (2, 8)) for name in ("q_proj", "k_proj", "v_proj")
            )
            weights = (torch.einsum("fhd,ghd->hfg", query, key) / 8**0.5).softmax(-1)
            x[:, place] += attention.out_proj(torch.einsum("hfg,ghd->fhd", weights, value).flatten(1))
        x = x + layer.self_attn(layer.layer_norm1(x))[0]
        x = x + layer.mlp(layer.layer_norm2(x))
    found = part([clip])
    torch.testing.assert_close(found.x, x.flatten(0, 1), atol=1e-5, rtol=1e-5)
    vector = part.visual_projection(tower.post_layernorm(x[:, 0]).mean(0))
    torch.testing.assert_close(found.pooled[0], F.normalize(vector, dim=-1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_clip_is_more_than_its_frames_and_their_order_counts(folders):
    part = LanguageBind(id=folders["LanguageBindVideo"]).eval()
    clip = torch.randn(4, 3, 16, 16)
    assert not torch.allclose(part([clip]).x, part([clip.flip(0)]).x, atol=1e-3)
    plain = LanguageBind(id=folders["LanguageBindImage"]).eval()
    torch.testing.assert_close(plain([clip]).x, plain([clip.flip(0)]).x, atol=1e-6, rtol=1e-6)
    assert part([clip[:2]]).x.shape == (1, 12)


@torch.no_grad()
@pytest.mark.parametrize("base,name", [(".base_layer", ".default"), ("", ".default"), ("", "")])
def test_adapters_in_the_file_are_merged(folders, tmp_path, base, name):
    """Under the names that peft's wrapper gives them, now and formerly: W x + alpha / r B A x."""
    source = Path(folders["LanguageBindVideo"])
    weights = load_file(source / "model.safetensors")
    part = LanguageBind(id=str(source)).eval()
    wrapped: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        inner = key.replace(".encoder.layers", ".encoder.base_model.model.layers")
        is_adapted = ".temporal_attn.q_proj." in key
        wrapped[inner.replace(".q_proj.", f".q_proj{base}.") if is_adapted else inner] = value
        if is_adapted and key.endswith(".weight"):
            down, up = torch.randn(2, 16), torch.randn(16, 2)
            stem = inner.removesuffix(".weight")
            wrapped |= {f"{stem}.lora_A{name}.weight": down, f"{stem}.lora_B{name}.weight": up}
            part.get_submodule(key.removesuffix(".weight")).weight += 4 / 2 * up @ down
    assert sum("lora_A" in key for key in wrapped) == 2
    shutil.copy(source / "config.json", tmp_path)
    save_file(wrapped, tmp_path / "model.safetensors")
    clip = torch.randn(4, 3, 16, 16)
    loaded = LanguageBind(id=str(tmp_path)).eval()([clip]).x
    torch.testing.assert_close(loaded, part([clip]).x, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(loaded, LanguageBind(id=str(source)).eval()([clip]).x, atol=1e-2)


# -- shapes and errors ------------------------------------------------------------------------------------------------


def test_rows_of_a_clip_have_the_times_of_their_frames(folders):
    shape = Shape(2 * 256, (2, 16, 16), tuple(t / 2 for t in range(2) for _ in range(256)))
    patches = LanguageBind(id=folders["LanguageBindVideo"], tokens="patches")
    assert patches.out_shape(shape) == Shape(8, (2, 2, 2), (0.0,) * 4 + (0.5,) * 4)
    assert LanguageBind(id=folders["LanguageBindVideo"]).out_shape(shape) == Shape(1, times=(0.0,))


def test_other_sizes_and_too_many_frames_are_refused(folders):
    part = LanguageBind(id=folders["LanguageBindVideo"])
    for raw in (torch.zeros(3, 16, 24), torch.zeros(5, 3, 16, 16), torch.zeros(0, 3, 16, 16), torch.zeros(16, 16)):
        with pytest.raises(ShapeError, match="up to 4 frames"):
            part([raw])
    with pytest.raises(ShapeError, match="up to 4 frames"):
        part.out_shape(Shape(5 * 256, (5, 16, 16)))
    assert LanguageBind(id=folders["LanguageBindImage"]).out_shape(Shape(5 * 256, (5, 16, 16))) == Shape(1)


def test_other_models_and_files_that_do_not_fill_the_branch_are_refused(folders, tmp_path):
    config = json.loads((Path(folders["LanguageBindImage"]) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingAssetError, match="omniloom convert"):
        LanguageBind(id=str(tmp_path))
    weights = load_file(f"{folders['LanguageBindImage']}/model.safetensors")
    save_file({**weights, "visual_projection.weight": torch.zeros(3, 16)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 of \d+ .*visual_projection"):
        LanguageBind(id=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    with pytest.raises(ConfigError, match="'clip', not a branch"):
        LanguageBind(id=str(tmp_path))
    with pytest.raises(ConfigError, match="unknown tokens"):
        LanguageBind(id=folders["LanguageBindImage"], tokens="cls")
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        LanguageBind(id=folders["LanguageBindImage"], layer=3)


def test_a_saved_configuration_builds_the_same_branch(folders, tmp_path):
    for folder in folders.values():
        part = LanguageBind(id=folder)
        part.save_config(tmp_path)
        again = LanguageBind(id=str(tmp_path), weights=False)
        again.load_state_dict(part.state_dict(), strict=True)
        raw = part.minimal_raw() + 1
        assert torch.equal(again.eval()([raw]).x, part.eval()([raw]).x)
        read = spec_of("encoders", part)
        assert spec_of("encoders", build("encoders", read)) == read


# -- with processors --------------------------------------------------------------------------------------------------


def test_every_branch_keeps_the_laws_behind_its_processor(folders):
    pairs = [
        ("image", ImageProcessor(size_px=16, crop=True), "LanguageBindImage"),
        ("map", MapProcessor(size_px=16, channels=3), "LanguageBindImage"),
        ("video", VideoProcessor(frames=4, size_px=16), "LanguageBindVideo"),
        ("audio", SoundChannelsProcessor(num_mels=16, frames=24), "LanguageBindAudio"),
    ]
    for kind, processor, branch in pairs:
        payloads = next(made_payloads(kind, channels=(1,)))
        for tokens in ("pooled", "patches"):
            check_encoder(LanguageBind(id=folders[branch], tokens=tokens), processor, payloads)


def test_a_long_sound_gives_its_front_its_middle_and_its_back():
    processor = SoundChannelsProcessor(num_mels=16, frames=100)
    samples = np.random.default_rng(0).normal(0.3, 0.1, 16_000 * 4).astype(np.float32)
    raw = processor(Audio(samples[None], 16_000))
    assert raw.shape == (3, 16, 100) and processor.shape(raw) == Shape(1600, (1, 16, 100))
    energies = kaldi_fbank(torch.from_numpy(samples - samples.mean()), 16)
    parts = np.array_split(np.arange(len(energies) - 100 + 1), 3)
    for channel, part in zip(raw, parts, strict=True):
        window = energies[part[0] : part[0] + 100]
        torch.testing.assert_close(channel.T, (window + 4.2677393) / 4.5689974, atol=1e-5, rtol=1e-5)


def test_a_short_sound_is_repeated_as_often_as_it_fits():
    processor = SoundChannelsProcessor(num_mels=16, frames=100)
    samples = np.random.default_rng(0).normal(0, 0.1, 6_000).astype(np.float32)
    raw = processor(Audio(samples[None], 16_000))
    assert torch.equal(raw[0], raw[1]) and torch.equal(raw[0], raw[2])
    whole = torch.from_numpy(np.concatenate([samples, samples, np.zeros(4_000, np.float32)]))
    energies = (kaldi_fbank(whole - whole.mean(), 16) + 4.2677393) / 4.5689974
    torch.testing.assert_close(raw[0, :, : len(energies)].T, energies, atol=1e-5, rtol=1e-5)
    assert len(energies) == 98 and (raw[0, :, 98:] == raw[0, 0, 99]).all()
    check_processor(processor, next(made_payloads("audio")))


def test_windows_of_no_size_and_sounds_too_long_are_refused():
    for options in ({"frames": 0}, {"num_mels": 0}, {"std": 0.0}, {"max_s": 0.0}):
        with pytest.raises(ConfigError):
            SoundChannelsProcessor(**options)
    with pytest.raises(MediaError, match="audio_too_long"):
        SoundChannelsProcessor(max_s=0.5)(Audio(np.zeros((1, 16_000), np.float32), 16_000))
