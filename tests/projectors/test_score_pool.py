from __future__ import annotations

import torch

from omniloom.projectors import Context
from omniloom.projectors.score_pool import ScorePool
from omniloom.sequence import Packed, Shape


def test_a_row_is_the_softmax_of_scores_of_cell_and_mean():
    torch.manual_seed(0)
    part = ScorePool(3, 99, mlp=False)
    cells = torch.randn(4, 3)
    scores = part.score(torch.cat([cells, cells.mean(0).expand(4, 3)], 1))
    expected = (cells * scores.softmax(0)).sum(0)
    out = part(Packed(cells, (Shape(4, (1, 2, 2)),)), Context())
    torch.testing.assert_close(out.x, expected[None])
    assert part.out_dim == 3


def test_squares_are_of_neighbours_in_both_dimensions():
    part = ScorePool(1, 1, mlp=False)
    torch.nn.init.zeros_(part.score[2].weight)  # equal scores: the mean
    out = part(Packed(torch.arange(8.0)[:, None], (Shape(8, (1, 2, 4)),)), Context())
    assert out.x.flatten().tolist() == [2.5, 4.5]


def test_cells_beyond_the_edge_have_no_weight_and_no_part_in_the_mean():
    torch.manual_seed(0)
    part = ScorePool(2, 2, mlp=False)
    cells = torch.randn(3, 2)
    out = part(Packed(cells, (Shape(3, (1, 1, 3)),)), Context())
    torch.testing.assert_close(out.x[1], cells[2])


def test_with_the_mlp_it_gives_the_language_models_width():
    assert ScorePool(3, 7).out_dim == 7
    out = ScorePool(3, 7)(Packed(torch.randn(4, 3), (Shape(4, (1, 2, 2)),)), Context())
    assert out.x.shape == (1, 7)
