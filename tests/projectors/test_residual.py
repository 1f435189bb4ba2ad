from __future__ import annotations

import torch

from omniloom.projectors import Context
from omniloom.projectors.residual import Residual
from omniloom.sequence import Packed


def test_blocks_that_add_nothing_leave_the_linear_map():
    part, rows = Residual(3, 4, layers=2), torch.randn(5, 3)
    for block in part.blocks:
        torch.nn.init.zeros_(block.down.weight)
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, part.map(rows))


def test_each_block_adds_to_its_input():
    part, rows = Residual(3, 4, layers=2), torch.randn(5, 3)
    first = part.map(rows)
    second = part.blocks[0](first)
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, part.blocks[1](second))


def test_normalised_rows_count_by_their_direction_alone():
    rows = torch.randn(5, 3)
    part = Residual(3, 4, normalize=True)
    near, far = (part(Packed.of([rows * factor]), Context()).x for factor in (1.0, 50.0))
    torch.testing.assert_close(near, far)
    plain = Residual(3, 4)
    assert not torch.allclose(plain(Packed.of([rows]), Context()).x, plain(Packed.of([rows * 50]), Context()).x)


def test_the_inner_width_is_the_ratio_of_the_outer():
    assert Residual(3, 4, ratio=2.5).blocks[0].gate.weight.shape == (10, 4)
