"""Towers of native resolution: their rows, merged by the projector `merge`, are what transformers' own models give."""

from __future__ import annotations

from shutil import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from omniloom.encoders.native_image import NativeImageProcessor
from omniloom.encoders.native_vision import NativeVision
from omniloom.errors import CheckpointError, ConfigError
from omniloom.media import Image, Video
from omniloom.projectors import Context
from omniloom.projectors.merge import Merge
from omniloom.sequence import Packed, Shape

_TEXT = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
_SMALL = {"depth": 3, "num_heads": 2, "patch_size": 4, "hidden_size": 16, "intermediate_size": 24}
_WINDOWS = {**_SMALL, "out_hidden_size": 24, "window_size": 16, "fullatt_block_indexes": [1]}
_DEEP = {**_SMALL, "out_hidden_size": 24, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
_AUDIO = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "num_mel_bins": 8,
    "output_dim": 24,
    "max_source_positions": 20,
    "n_window": 4,
}
_EXPERTS = {**_TEXT, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
# name -> (whole model, where its tower is, where the merger keeps its norm and its two linear maps)
MODELS = {
    "qwen2": (
        lambda: Qwen2VLForConditionalGeneration(
            Qwen2VLConfig(
                vision_config={"depth": 3, "num_heads": 2, "patch_size": 4, "embed_dim": 16, "hidden_size": 24},
                text_config=_TEXT,
            )
        ),
        "model.visual",
        ("ln_q", "mlp.0", "mlp.2"),
    ),
    "qwen2.5": (
        lambda: Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(vision_config=_WINDOWS, text_config=_TEXT)),
        "model.visual",
        ("ln_q", "mlp.0", "mlp.2"),
    ),
    "qwen2.5-omni": (
        lambda: Qwen2_5OmniThinkerForConditionalGeneration(
            Qwen2_5OmniThinkerConfig(vision_config=_WINDOWS, text_config=_TEXT, audio_config=_AUDIO)
        ),
        "model.visual",
        ("ln_q", "mlp.0", "mlp.2"),
    ),
    "qwen3": (
        lambda: Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(vision_config=_DEEP, text_config={**_TEXT, "head_dim": 12})
        ),
        "model.visual",
        ("norm", "linear_fc1", "linear_fc2"),
    ),
    "qwen3-omni": (
        lambda: Qwen3OmniMoeThinkerForConditionalGeneration(
            Qwen3OmniMoeThinkerConfig(vision_config=_DEEP, text_config=_EXPERTS, audio_config=_AUDIO)
        ),
        "model.visual",
        ("ln_q", "mlp.0", "mlp.2"),
    ),
}
RAWS = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((2, 3, 24, 40), (4, 3, 8, 16))]
GRIDS = torch.tensor([[1, 6, 10], [2, 2, 4]])


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """name -> (folder of the whole model, its tower in evaluation mode, names of its mergers' parts)."""
    torch.manual_seed(0)
    root, saved = tmp_path_factory.mktemp("native"), {}
    for name, (make, place, merger) in MODELS.items():
        model = make().eval()
        for value in model.get_submodule(place).parameters():
            value.data += 0.05 * torch.randn(value.shape)
        model.save_pretrained(root / name)
        saved[name] = (str(root / name), model.get_submodule(place), merger)
    return saved


def patches() -> torch.Tensor:
    """The raw pixels in the order of transformers' own flattened patches."""
    flat = []
    for raw, (t, y, x) in zip(RAWS, GRIDS.tolist(), strict=True):
        cut = raw.view(t, 2, 3, y // 2, 2, 4, x // 2, 2, 4)
        flat.append(cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * y * x, -1))
    return torch.cat(flat)


def merged_by(merger: torch.nn.Module, names: tuple[str, str, str], rows: Packed, *, norm_at: str) -> torch.Tensor:
    """The rows through the projector `merge` with the weights of a published merger."""
    norm, first, second = (merger.get_submodule(name) for name in names)
    kind = "layer" if hasattr(norm, "bias") else "rms"
    part = Merge(16, 24, norm=kind, norm_at=norm_at)
    part.input_norm.load_state_dict(norm.state_dict(), strict=True)
    for target, source in zip(part.maps, (first, second), strict=True):
        target.load_state_dict(source.state_dict(), strict=True)
    return part(rows, Context()).x


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_rows_through_the_projector_merge_are_those_of_the_published_merger(name, towers):
    folder, model, merger = towers[name]
    published = model(patches(), grid_thw=GRIDS)
    rows = NativeVision(id=folder).eval()(RAWS)
    assert rows.shapes == (Shape(60, (1, 6, 10)), Shape(16, (2, 2, 4))) and rows.x.shape == (76, 16)
    got = merged_by(model.merger, merger, rows, norm_at="cells")
    torch.testing.assert_close(got, published.pooler_output, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen3", "qwen3-omni"])
def test_taps_through_the_projector_merge_are_the_features_of_deepstack(name, towers):
    folder, model, merger = towers[name]
    published = model(patches(), grid_thw=GRIDS).deepstack_features
    rows = NativeVision(id=folder, taps="deepstack").eval()(RAWS)
    assert list(rows.taps) == [1, 2]
    for inner, tap, expected in zip(model.deepstack_merger_list, rows.taps.values(), published, strict=True):
        got = merged_by(inner, merger, Packed(tap, rows.shapes), norm_at="merged")
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_taps_are_in_reading_order_as_the_rows_are(name, towers):
    part = NativeVision(id=towers[name][0], taps=[0, -1, 3]).eval()
    out = part(RAWS)
    assert part.tap_dims == {0: 16, -1: 16, 3: 16}
    torch.testing.assert_close(out.taps[-1], out.x, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(out.taps[3], out.x, atol=1e-6, rtol=1e-6)
    # A row of hidden state 0 knows its own patch only: moving one patch moves one row, the one at its place.
    moved = RAWS[0].clone()
    moved[:, :, 8:12, 16:20] += 1.0
    changed = (part([moved]).taps[0] - out.taps[0][:60]).abs().amax(1) > 1e-6
    assert changed.nonzero().flatten().tolist() == [2 * 10 + 4]


def test_mergers_are_left_out(towers):
    for folder, _, _ in towers.values():
        names = [name for name, _ in NativeVision(id=folder).named_parameters()]
        assert names and not [name for name in names if "merger" in name or "language" in name]


def test_a_whole_omni_model_has_its_tower_in_the_thinker(towers, tmp_path):
    folder, _, _ = towers["qwen2.5-omni"]
    thinker = Qwen2_5OmniThinkerConfig.from_pretrained(folder)
    Qwen2_5OmniConfig(thinker_config=thinker.to_dict()).save_pretrained(tmp_path)
    tensors = {f"thinker.{name}": value for name, value in load_file(f"{folder}/model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with torch.no_grad():
        rows = NativeVision(id=str(tmp_path)).eval()(RAWS).x
        torch.testing.assert_close(rows, NativeVision(id=folder).eval()(RAWS).x, atol=0, rtol=0)


@torch.no_grad()
def test_a_picture_goes_from_its_processor_to_the_rows_of_the_published_pair(towers):
    folder, model, merger = towers["qwen2"]
    image = Image(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    published = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=256, max_pixels=1024)
    read = published(image.pixels, return_tensors="pt")
    expected = model(read["pixel_values"], grid_thw=read["image_grid_thw"]).pooler_output
    published.save_pretrained(folder)
    processor, part = NativeImageProcessor(id=folder), NativeVision(id=folder).eval()
    rows = part([processor(image)])
    assert rows.shapes == (part.out_shape(processor.shape(processor(image))),)
    torch.testing.assert_close(merged_by(model.merger, merger, rows, norm_at="cells"), expected, atol=1e-5, rtol=1e-5)


def test_rows_of_a_clip_have_times():
    processor = NativeImageProcessor(frames=4, rate_hz=2.0)
    video = Video(np.zeros((4, 60, 60, 3), np.uint8), np.arange(4) / 2.0)
    shape = processor.shape(processor(video))
    assert shape.grid == (2, 4, 4) and set(shape.times) == {0.0, 1.0}


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_configuration_builds_the_same_tower_without_the_source(name, towers, tmp_path):
    part = NativeVision(id=towers[name][0]).eval()
    part.save_config(tmp_path)
    again = NativeVision(id=str(tmp_path), weights=False).eval()
    again.load_state_dict(part.state_dict(), strict=True)
    assert torch.equal(part(RAWS).x, again(RAWS).x)


@pytest.mark.parametrize("taps,message", [([4], "layers 0 to 3"), ([-5], "layers 0 to 3"), ("all", "unknown taps")])
def test_taps_that_do_not_exist_are_refused(taps, message, towers):
    with pytest.raises(ConfigError, match=message):
        NativeVision(id=towers["qwen2"][0], taps=taps)


def test_a_model_without_deepstack_cannot_give_it(towers):
    with pytest.raises(ConfigError, match="names no layers"):
        NativeVision(id=towers["qwen2.5"][0], taps="deepstack")


def test_a_tower_of_one_resolution_is_refused(tmp_path):
    CLIPVisionConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="clip_vision_model"):
        NativeVision(id=str(tmp_path))


def test_weights_of_another_tower_are_refused(towers, tmp_path):
    copy(f"{towers['qwen2'][0]}/model.safetensors", tmp_path)
    copy(f"{towers['qwen3'][0]}/config.json", tmp_path)
    with pytest.raises(CheckpointError, match="lack"):
        NativeVision(id=str(tmp_path))
