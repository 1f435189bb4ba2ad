"""Branches of a joint encoder: the published names, and the numbers of the same transformer computed otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from omniloom.encoders.filter_banks import kaldi_fbank
from omniloom.encoders.joint import JointEncoder
from omniloom.encoders.map_processor import MapProcessor
from omniloom.encoders.processors import SeriesProcessor, VideoProcessor
from omniloom.encoders.sound_clips import SoundClipsProcessor
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError
from omniloom.media import Audio
from omniloom.registry import build, spec_of
from omniloom.sequence import Shape
from omniloom.testing import check_encoder, check_processor, made_payloads

SMALL = {"width": 16, "depth": 2, "heads": 2, "joint_width": 12, "weights": False}
SIZES = {
    "vision": {"size": [16, 24], "patch": 8},
    "audio": {"size": [12, 20], "patch": 6, "stride": 4},
    "depth": {"size": [16, 16], "patch": 8},
    "thermal": {"size": [16, 16], "patch": 8},
    "imu": {"size": [24], "patch": 8},
}
RAWS = {"vision": (3, 16, 24), "audio": (3, 1, 12, 20), "depth": (1, 16, 16), "thermal": (1, 16, 16), "imu": (24, 6)}


def branch(kind: str, **options: object) -> JointEncoder:
    torch.manual_seed(0)
    part = JointEncoder(kind=kind, **{**SMALL, **SIZES[kind], **options}).eval()
    for value in part.parameters():
        value.data += 0.05 * torch.randn(value.shape)
    return part


# -- names and sizes of the published checkpoint ----------------------------------------------------------------------

STEMS = {
    "vision": {"rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14), "pos_embedding_helper.pos_embed": (1, 257, 1280)},
    "audio": {
        "rgbt_stem.proj.weight": (768, 1, 16, 16),
        "rgbt_stem.norm_layer.weight": (768,),
        "rgbt_stem.norm_layer.bias": (768,),
        "pos_embedding_helper.pos_embed": (1, 229, 768),
    },
    "depth": {
        "depth_stem.proj.weight": (384, 1, 16, 16),
        "depth_stem.norm_layer.weight": (384,),
        "depth_stem.norm_layer.bias": (384,),
        "pos_embedding_helper.pos_embed": (1, 197, 384),
    },
    "thermal": {
        "rgbt_stem.proj.weight": (768, 1, 16, 16),
        "rgbt_stem.norm_layer.weight": (768,),
        "rgbt_stem.norm_layer.bias": (768,),
        "pos_embedding_helper.pos_embed": (1, 197, 768),
    },
    "imu": {
        "imu_stem.proj.weight": (512, 48),
        "imu_stem.norm_layer.weight": (512,),
        "imu_stem.norm_layer.bias": (512,),
        "pos_embed": (1, 251, 512),
    },
}
DEPTHS = {"vision": 32, "audio": 12, "depth": 12, "thermal": 12, "imu": 6}


@pytest.mark.parametrize("kind", STEMS)
def test_parameters_have_the_names_and_sizes_of_imagebind_huge(kind):
    with torch.device("meta"):
        state = JointEncoder(kind=kind, weights=False).state_dict()
    found = {name: tuple(value.shape) for name, value in state.items()}
    stem = f"modality_preprocessors.{kind}"
    width = found[f"{stem}.cls_token"][-1]
    expected = {f"{stem}.cls_token": (1, 1, width), **{f"{stem}.{name}": size for name, size in STEMS[kind].items()}}
    trunk = f"modality_trunks.{kind}"
    if kind == "vision":
        expected |= dict.fromkeys((f"{trunk}.pre_transformer_layer.0.{name}" for name in ("weight", "bias")), (width,))
    for block in range(DEPTHS[kind]):
        inner = f"{trunk}.blocks.{block}"
        expected |= {
            f"{inner}.attn.in_proj_weight": (3 * width, width),
            f"{inner}.attn.in_proj_bias": (3 * width,),
            f"{inner}.attn.out_proj.weight": (width, width),
            f"{inner}.attn.out_proj.bias": (width,),
            f"{inner}.mlp.fc1.weight": (4 * width, width),
            f"{inner}.mlp.fc1.bias": (4 * width,),
            f"{inner}.mlp.fc2.weight": (width, 4 * width),
            f"{inner}.mlp.fc2.bias": (width,),
        }
        for norm in ("norm_1", "norm_2"):
            expected |= dict.fromkeys((f"{inner}.{norm}.{name}" for name in ("weight", "bias")), (width,))
        if kind != "vision":
            expected |= dict.fromkeys((f"{inner}.attn.{name}" for name in ("bias_k", "bias_v")), (1, 1, width))
    head = f"modality_heads.{kind}"
    expected |= dict.fromkeys((f"{head}.0.{name}" for name in ("weight", "bias")), (width,))
    expected[f"{head}.{3 if kind == 'imu' else 2}.weight"] = (1024, width)
    assert found == expected


def test_a_branch_loads_its_own_parameters_of_a_file_of_all(tmp_path):
    parts = {kind: branch(kind) for kind in SIZES}
    tensors = {name: value for part in parts.values() for name, value in part.state_dict().items()}
    tensors["modality_postprocessors.audio.1.log_logit_scale"] = torch.tensor(3.0)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "model.safetensors")
    for kind, part in parts.items():
        raw = torch.randn(RAWS[kind])
        loaded = JointEncoder(kind=kind, id=str(tmp_path), **{**SMALL, **SIZES[kind], "weights": True}).eval()
        assert torch.equal(loaded([raw]).x, part([raw]).x)


def test_a_file_without_the_branch_or_of_other_sizes_is_refused(tmp_path):
    with pytest.raises(MissingAssetError, match="omniloom convert"):
        branch("depth", weights=True, id=str(tmp_path))
    save_file(branch("depth").state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="lacks"):
        branch("thermal", weights=True, id=str(tmp_path))
    with pytest.raises(CheckpointError, match="other shapes"):
        branch("depth", weights=True, id=str(tmp_path), joint_width=8)
    with pytest.raises(ConfigError, match="needs `id`"):
        branch("depth", weights=True)


# -- numbers ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_branch_of_pictures_is_the_tower_of_clip_with_its_norms():
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8,
        projection_dim=12, hidden_act="gelu", layer_norm_eps=1e-6,
    )  # fmt: skip
    clip = CLIPVisionModelWithProjection(config).eval()
    for value in clip.parameters():
        value.data += 0.05 * torch.randn(value.shape)
    part = branch("vision", size=[24, 24])
    tower, state = clip.vision_model, part.state_dict()
    stem, trunk, head = "modality_preprocessors.vision", "modality_trunks.vision", "modality_heads.vision"
    state[f"{stem}.cls_token"] = tower.embeddings.class_embedding[None, None]
    state[f"{stem}.pos_embedding_helper.pos_embed"] = tower.embeddings.position_embedding.weight[None]
    # A picture is repeated to two frames: half of the kernel for each of them sees the same.
    state[f"{stem}.rgbt_stem.proj.1.weight"] = (
        tower.embeddings.patch_embedding.weight[:, :, None].repeat(1, 1, 2, 1, 1) / 2
    )
    norms = {f"{trunk}.pre_transformer_layer.0": tower.pre_layrnorm, f"{head}.0": tower.post_layernorm}
    for index, layer in enumerate(tower.encoder.layers):
        block, attention = f"{trunk}.blocks.{index}", layer.self_attn
        norms |= {f"{block}.norm_1": layer.layer_norm1, f"{block}.norm_2": layer.layer_norm2}
        norms |= {f"{block}.mlp.fc1": layer.mlp.fc1, f"{block}.mlp.fc2": layer.mlp.fc2}
        norms[f"{block}.attn.out_proj"] = attention.out_proj
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        state[f"{block}.attn.in_proj_weight"] = torch.cat([part.weight for part in parts])
        state[f"{block}.attn.in_proj_bias"] = torch.cat([part.bias for part in parts])
    for name, module in norms.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    state[f"{head}.2.weight"] = clip.visual_projection.weight
    part.load_state_dict(state, strict=True)
    pictures = torch.randn(2, 3, 24, 24)
    expected = F.normalize(clip(pictures).image_embeds, dim=-1)
    torch.testing.assert_close(part(list(pictures)).x, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_learned_key_and_value_stand_behind_those_of_the_rows():
    part = branch("depth", depth=1, tokens="all")
    stem, trunk = part.modality_preprocessors["depth"], part.modality_trunks["depth"]
    raw = torch.randn(1, 16, 16)
    x, block = stem(raw[None]), trunk.blocks[0]
    normed = block.norm_1(x)
    query, key, value = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
    key, value = (torch.cat([rows, extra], 1) for rows, extra in ((key, block.attn.bias_k), (value, block.attn.bias_v)))
    heads = [rows.unflatten(-1, (2, 8)).transpose(1, 2) for rows in (query, key, value)]
    weights = (heads[0] @ heads[1].transpose(-1, -2) / 8**0.5).softmax(-1)
    x = x + block.attn.out_proj((weights @ heads[2]).transpose(1, 2).flatten(2))
    x = x + block.mlp["fc2"](F.gelu(block.mlp["fc1"](block.norm_2(x))))
    torch.testing.assert_close(part([raw]).x, part.modality_heads["depth"][0](x)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_steps_of_a_series_are_cut_channel_by_channel():
    part = branch("imu", depth=1)
    stem, raw = part.modality_preprocessors["imu"], torch.randn(24, 6)
    seen: list[torch.Tensor] = []
    stem.imu_stem.proj.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    part([raw])
    assert seen[0].shape == (1, 3, 48)
    assert torch.equal(seen[0][0, 1], torch.cat([raw[8:16, channel] for channel in range(6)]))


@torch.no_grad()
@pytest.mark.parametrize("kind", SIZES)
def test_a_vector_has_length_one_or_the_published_scale(kind):
    raw = torch.randn(RAWS[kind])[:1] if kind == "audio" else torch.randn(RAWS[kind])
    lengths = {"vision": 1.0, "audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}
    assert float(branch(kind)([raw]).pooled.norm()) == pytest.approx(1.0, abs=1e-5)
    assert float(branch(kind, scaled=True)([raw]).pooled.norm()) == pytest.approx(lengths[kind], rel=1e-5)


def test_clips_are_read_by_themselves_and_their_vectors_averaged():
    clips = torch.randn(3, 1, 12, 20)
    part = branch("audio")
    each = part([clip for clip in clips]).x
    torch.testing.assert_close(part([clips]).x, each.mean(0, keepdim=True), atol=1e-6, rtol=1e-6)


def test_a_picture_is_a_clip_that_stands_still():
    picture, part = torch.randn(3, 16, 24), branch("vision")
    still = part([picture[None].expand(2, -1, -1, -1)]).x
    torch.testing.assert_close(part([picture]).x, still, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "kind,raw,patches",
    [
        ("vision", (4, 3, 16, 24), Shape(12, (2, 2, 3))),
        ("audio", (3, 1, 12, 20), Shape(24, (3, 2, 4))),
        ("imu", (24, 6), Shape(3, (1, 1, 3))),
    ],
)
def test_rows_are_one_vector_or_the_patches_of_every_clip(kind, raw, patches):
    raws = [torch.randn(raw)]
    rows = {tokens: branch(kind, tokens=tokens)(raws) for tokens in ("pooled", "patches", "all")}
    assert rows["pooled"].shapes == (Shape(1),) and torch.equal(rows["pooled"].x, rows["pooled"].pooled)
    assert rows["patches"].shapes == (patches,) and rows["patches"].x.shape == (patches.len, 16)
    clips = patches.grid[0]
    assert rows["all"].shapes == (Shape(patches.len + clips),)
    assert torch.equal(rows["all"].x.unflatten(0, (clips, -1))[:, 1:].flatten(0, 1), rows["patches"].x)
    assert all(torch.equal(row.pooled, rows["pooled"].pooled) for row in rows.values())


def test_rows_of_a_clip_have_the_time_of_its_first_frame():
    pixels = 16 * 24
    shape = Shape(4 * pixels, (4, 16, 24), tuple(t / 2 for t in range(4) for _ in range(pixels)))
    assert branch("vision", tokens="patches").out_shape(shape).times == (0.0,) * 6 + (1.0,) * 6
    assert branch("vision").out_shape(shape).times == (0.0,)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"kind": "smell"}, "smell"),
        ({"kind": "depth", "tokens": "cls"}, "unknown tokens"),
        ({"kind": "depth", "heads": 5}, "heads"),
        ({"kind": "imu", "size": [4]}, "sizes"),
        ({"kind": "depth", "size": [16]}, "sizes"),
    ],
)
def test_a_branch_that_does_not_exist_or_fit_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        JointEncoder(**{**SMALL, **options})


# -- with processors --------------------------------------------------------------------------------------------------


def test_every_branch_keeps_the_laws_behind_its_processor():
    sides = {"size": [16, 16], "patch": 8}
    pairs = [
        ("video", VideoProcessor(frames=2, size_px=16), branch("vision", **sides)),
        ("map", MapProcessor(size_px=16, values="inverse"), branch("depth")),
        ("series", SeriesProcessor(length=24), branch("imu")),
    ]
    for kind, processor, part in pairs:
        payloads = next(made_payloads(kind, channels=(6,) if kind == "series" else (1,)))
        check_encoder(part, processor, payloads)


def test_sounds_become_clips_from_their_beginning_to_their_end():
    processor = SoundClipsProcessor(clips=3, clip_s=1.0, num_mels=16, frames=104)
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000 * 4).astype(np.float32)
    raw = processor(Audio(samples[None], 16_000))
    assert raw.shape == (3, 1, 16, 104) and processor.shape(raw) == Shape(3 * 16 * 104, (3, 16, 104))
    for clip, start_s in enumerate((0.0, 1.5, 3.0)):
        part = torch.from_numpy(samples[int(start_s * 16_000) : int(start_s * 16_000) + 16_000].copy())
        energies = kaldi_fbank(part - part.mean(), 16)
        assert len(energies) == 98
        torch.testing.assert_close(raw[clip, 0, :, :98].T, (energies + 4.268) / 9.138, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(raw[clip, 0, :, 98:], torch.full((16, 6), 4.268 / 9.138))


def test_clips_of_a_short_sound_are_all_of_it():
    raw = SoundClipsProcessor(clip_s=1.0, num_mels=16, frames=104)(Audio(np.ones((1, 8000), np.float32) * 0.1, 16_000))
    assert torch.equal(raw[0], raw[1]) and torch.equal(raw[0], raw[2])


def test_sound_clips_keep_the_laws_and_feed_the_branch():
    processor = SoundClipsProcessor(clip_s=0.2, num_mels=12, frames=20)
    payloads = next(made_payloads("audio"))
    check_processor(processor, payloads)
    check_encoder(branch("audio"), processor, payloads)


def test_frames_too_few_for_a_clip_are_refused_and_not_cut():
    for options in ({"frames": 197}, {"clips": 0}, {"std": 0.0}, {"clip_s": 0}):
        with pytest.raises(ConfigError):
            SoundClipsProcessor(**options)


def test_specs_read_back_build_equal_parts():
    for room, spec in (
        ("processors", {"type": "sound_clips", "clips": 2}),
        ("encoders", {"type": "joint", "kind": "imu", **SMALL, **SIZES["imu"]}),
    ):
        read = spec_of(room, build(room, spec))
        assert spec.items() <= read.items() and spec_of(room, build(room, read)) == read


def test_the_branch_of_pictures_has_no_extra_key():
    assert all(m.bias_k is None for m in branch("vision").modules() if isinstance(m, nn.MultiheadAttention))
