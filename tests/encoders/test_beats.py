from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from omniloom.encoders.beats import Beats
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, ShapeError
from omniloom.sequence import Shape

SMALL = {
    "num_mels": 8, "width": 8, "depth": 2, "heads": 2, "hidden": 12, "stem_width": 6, "patch": 4, "reach": 6,
    "groups": 2, "buckets": 16, "distance": 10,
}  # fmt: skip


def small(**options):
    return Beats(**{**SMALL, "weights": False, **options})


def test_rows_are_those_of_the_published_code():
    """First and last of ten rows, by SpeechBrain 1.1.2's copy of the authors' model, of the same sizes and weights."""
    part = small().eval()
    with torch.no_grad():
        for place, (name, value) in enumerate(sorted(part.named_parameters())):
            wave = torch.sin(0.7 * torch.arange(value.numel(), dtype=torch.float32) + place).view(value.shape)
            value.copy_(1 + 0.1 * wave if name.endswith("norm.weight") else 0.5 * wave)
        rows = part([torch.cos(0.3 * torch.arange(20 * 8, dtype=torch.float32)).view(20, 8)]).x
    first = [-0.3177271, 0.6773951, 2.3022709, -0.0618391, -0.3504718, 0.5042567, -1.7633725, -1.2285624]
    last = [-0.1959069, 0.6631005, 2.2732120, 0.0665731, -0.3111605, 0.4466111, -1.8064946, -1.3790509]
    torch.testing.assert_close(rows[[0, 9]], torch.tensor([first, last]), atol=1e-5, rtol=1e-5)


def test_ten_seconds_are_496_rows_with_eight_of_one_time():
    with torch.device("meta"):
        part = Beats(weights=False)
    # 998 frames hold 62 whole patches of 16, of 8 pitches each.
    shape = part.out_shape(Shape(998, times=tuple(frame / 100 for frame in range(998))))
    assert shape.grid == (62, 8, 1) and shape.times[7:9] == (0.0, 0.16)
    assert sum(value.numel() for value in part.parameters()) == 90_311_792


def _published(part: Beats) -> dict[str, torch.Tensor]:
    """The part's weights under the names that published files have."""
    named = {}
    for name, value in part.state_dict().items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        named[name.replace("parametrizations.weight.original1", "weight_v")] = value
    table = named["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    extra = {"encoder.layers.1.self_attn.relative_attention_bias.weight": table.clone()}
    return named | extra | {"predictor.weight": torch.zeros(5, 8), "predictor.bias": torch.zeros(5)}


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_converted_file_of_published_names_is_read(as_folder, tmp_path):
    torch.manual_seed(0)
    part = small().eval()
    save_file(_published(part), tmp_path / "model.safetensors")
    again = Beats(**SMALL, id=str(tmp_path if as_folder else tmp_path / "model.safetensors")).eval()
    frames = torch.randn(9, 8)
    assert torch.equal(part([frames]).x, again([frames]).x)


def test_a_file_of_another_network_is_refused(tmp_path):
    save_file(_published(small(depth=3)), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="another network"):
        Beats(**SMALL, id=str(tmp_path))


def test_a_folder_without_weights_says_how_to_convert(tmp_path):
    with pytest.raises(MissingAssetError, match="omniloom convert"):
        Beats(id=str(tmp_path))


def test_weights_need_a_place():
    with pytest.raises(ConfigError, match="needs the option 'id'"):
        Beats()


def test_fewer_frames_than_a_patch_are_refused():
    with pytest.raises(ShapeError, match="one row needs 4"):
        small().out_shape(Shape(3))


@pytest.mark.parametrize("sizes", [{"heads": 3}, {"reach": 5}, {"distance": 4}, {"buckets": 6}, {"patch": 9}])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError):
        small(**sizes)
