from __future__ import annotations

import torch

from omniloom.projectors import Context
from omniloom.projectors.qformer import QFormer
from omniloom.sequence import Packed


def test_qformer_gives_k_rows_for_any_number_of_rows():
    part = QFormer(4, 6, queries=3, width=8, heads=2)
    out = part(Packed.of([torch.randn(1, 4), torch.randn(40, 4)]), Context())
    assert out.lengths == [3, 3] and out.x.shape == (6, 6)


def test_qformer_ignores_the_order_of_the_rows_it_reads():
    part, rows = QFormer(4, 6, queries=3, width=8, heads=2), torch.randn(7, 4)
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, part(Packed.of([rows.flip(0)]), Context()).x)


def test_qformer_rows_differ_from_the_first_step():
    out = QFormer(4, 6, queries=8, width=16, heads=2)(Packed.of([torch.randn(9, 4)]), Context()).x
    assert torch.pdist(out).min() > 0.01
