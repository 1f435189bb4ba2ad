from __future__ import annotations

import torch
import torch.nn.functional as F

from omniloom.projectors import Context
from omniloom.projectors.c_abstractor import CAbstractor
from omniloom.sequence import Packed, Shape


def test_every_frame_becomes_the_same_number_of_rows_whatever_its_size():
    part = CAbstractor(4, 6, cells=2, width=8)
    shapes = (Shape(12, (1, 3, 4)), Shape(8, (2, 2, 2), (0.0,) * 4 + (0.5,) * 4))
    out = part(Packed(torch.randn(20, 4), shapes), Context())
    assert out.lengths == [4, 8] and out.shapes[1] == Shape(8, (2, 2, 2), (0.0,) * 4 + (0.5,) * 4)


def test_without_bottlenecks_it_is_an_average_and_an_mlp():
    part = CAbstractor(1, 1, cells=1, depth=0, layers=1)
    out = part(Packed(torch.tensor([[1.0], [2.0], [6.0]]), (Shape(3, (1, 1, 3)),)), Context())
    torch.testing.assert_close(out.x, part.readout[0](torch.tensor([[3.0]])))


def test_frames_do_not_see_one_another():
    torch.manual_seed(0)
    part, frames = CAbstractor(4, 6, cells=2, width=8), torch.randn(2, 9, 4)
    both = part(Packed(frames.flatten(0, 1), (Shape(18, (2, 3, 3)),)), Context()).x
    one = part(Packed(frames[1], (Shape(9, (1, 3, 3)),)), Context()).x
    torch.testing.assert_close(both[4:], one)


def test_cells_are_convolved_pooled_and_read_out_where_they_are():
    torch.manual_seed(0)
    part, rows = CAbstractor(4, 6, cells=2, width=8), torch.randn(15, 4)
    picture = rows.view(1, 3, 5, 4).permute(0, 3, 1, 2)
    pooled = part.after(F.adaptive_avg_pool2d(part.before(picture), 2))
    expected = part.readout(torch.stack([pooled[0, :, line, cell] for line in range(2) for cell in range(2)]))
    torch.testing.assert_close(part(Packed(rows, (Shape(15, (1, 3, 5)),)), Context()).x, expected)
