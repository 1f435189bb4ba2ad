from __future__ import annotations

import torch
import torch.nn.functional as F

from omniloom.projectors.regstage import RegStage


def norm(x):
    """LayerNorm over channels with the first weights: ones and zeros."""
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


def test_a_bottleneck_is_three_convolutions_with_squeeze_and_excite_after_the_second():
    torch.manual_seed(0)
    stage, x = RegStage(1, 8, 4), torch.randn(2, 8, 3, 5)
    first, _, _, second, _, _, excite, third, _ = stage[0].body
    hidden = F.silu(norm(F.conv2d(x, first.weight)))
    hidden = F.silu(norm(F.conv2d(hidden, second.weight, padding=1, groups=4)))
    gate = F.conv2d(
        F.silu(F.conv2d(hidden.mean((2, 3), keepdim=True), excite.squeeze.weight, excite.squeeze.bias)),
        excite.excite.weight,
        excite.excite.bias,
    ).sigmoid()
    hidden = norm(F.conv2d(hidden * gate, third.weight))
    expected = F.silu(hidden + norm(F.conv2d(x, stage[0].shortcut[0].weight)))
    torch.testing.assert_close(stage(x), expected)
    assert excite.squeeze.out_channels == 2  # a quarter of what came in


def test_later_bottlenecks_of_a_stage_add_their_input_unchanged():
    stage = RegStage(3, 8, 4)
    assert [isinstance(block.shortcut, torch.nn.Identity) for block in stage] == [False, True, True]
