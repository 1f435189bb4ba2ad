"""The patch mergers of published models, out of reading order."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.models.internvl.modeling_internvl import InternVLModel, InternVLMultiModalProjector
from transformers.models.mistral3.modeling_mistral3 import Mistral3PatchMerger
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLPatchMerger
from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchMerger

from omniloom.errors import ShapeError
from omniloom.projectors import Context
from omniloom.projectors.merge import Merge
from omniloom.sequence import Packed, Shape

GRID = (2, 4, 6)


def grid_rows(width=8):
    torch.manual_seed(0)
    return Packed(torch.randn(48, width), (Shape(48, GRID),))


def in_blocks(rows):
    """Reading order to the order of Qwen2-VL's tower: 2 x 2 cells after one another."""
    t, y, x = GRID
    return rows.view(t, y // 2, 2, x // 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(rows.shape)


@pytest.mark.parametrize(("published", "norm"), [(PatchMerger, "layer"), (Qwen2_5_VLPatchMerger, "rms")])
def test_it_is_the_patch_merger_of_qwen_vl(published, norm):
    packed = grid_rows()
    theirs, ours = published(dim=5, context_dim=8), Merge(8, 5, norm=norm)
    torch.nn.init.normal_(theirs.ln_q.weight)
    ours.input_norm.load_state_dict(theirs.ln_q.state_dict())
    ours.maps[0].load_state_dict(theirs.mlp[0].state_dict())
    ours.maps[1].load_state_dict(theirs.mlp[2].state_dict())
    out = ours(packed, Context())
    assert out.shapes == (Shape(12, (2, 2, 3)),)
    torch.testing.assert_close(out.x, theirs(in_blocks(packed.x)))


def test_it_is_the_pixel_shuffle_and_projector_of_internvl():
    config = transformers.InternVLConfig(
        vision_config={"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8},
        text_config=transformers.Qwen2Config(hidden_size=5, num_attention_heads=1, num_hidden_layers=1),
    )
    theirs = InternVLMultiModalProjector(config)
    ours = Merge(8, 5, norm_at="merged", hidden=5, eps=1e-5)
    ours.input_norm.load_state_dict(theirs.layer_norm.state_dict())
    ours.maps[0].load_state_dict(theirs.linear_1.state_dict())
    ours.maps[1].load_state_dict(theirs.linear_2.state_dict())
    packed = grid_rows()
    shuffled = InternVLModel.pixel_shuffle(None, packed.x.view(*GRID, 8), scale_factor=0.5)
    torch.testing.assert_close(ours(packed, Context()).x, theirs(shuffled).flatten(0, 2))


def test_channels_first_it_is_the_patch_merger_of_mistral_3():
    config = transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(hidden_size=8, num_attention_heads=2, patch_size=4),
        spatial_merge_size=2,
    )
    theirs = Mistral3PatchMerger(config)
    ours = Merge(8, 8, norm=None, layers=1, order="channels")
    ours.maps[0].weight.data.copy_(theirs.merging_layer.weight)
    ours.maps[0].bias.data.zero_()
    packed = grid_rows()
    expected = theirs(packed.x, torch.tensor([[16, 24], [16, 24]]))
    torch.testing.assert_close(ours(packed, Context()).x, expected)


def test_merging_alone_puts_the_cells_of_a_square_side_by_side_line_by_line():
    part = Merge(1, 99, norm=None, layers=0)
    cells = torch.arange(8.0)[:, None]  # 0 1 2 3 over 4 5 6 7
    out = part(Packed(cells, (Shape(8, (1, 2, 4)),)), Context())
    assert out.x.tolist() == [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]] and part.out_dim == 4


def test_zeros_fill_the_cells_beyond_the_edge():
    cells = torch.tensor([[1.0], [2.0], [3.0]])
    out = Merge(1, 99, norm=None, layers=0)(Packed(cells, (Shape(3, (1, 1, 3)),)), Context())
    assert out.x.tolist() == [[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]] and out.shapes[0].grid == (1, 1, 2)


def test_a_merged_row_has_the_time_of_its_first_cell_and_tiles_stay_tiles():
    shape = Merge(1, 1).out_shape(Shape(16, (1, 4, 4), tuple(float(row) for row in range(16))))
    assert shape.times == (0.0, 2.0, 8.0, 10.0)
    assert Merge(1, 1).out_shape(Shape(12, (3, 2, 2), mosaic=(1, 2, 2, 3))).mosaic == (1, 2, 2, 3)


def test_rows_without_a_grid_are_refused():
    with pytest.raises(ShapeError, match="Merge got an item of 4 rows without a grid"):
        Merge(1, 1)(Packed.of([torch.zeros(4, 1)]), Context())
