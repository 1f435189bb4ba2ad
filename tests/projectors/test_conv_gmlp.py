from __future__ import annotations

import torch
import torch.nn.functional as F

from omniloom.projectors import Context
from omniloom.projectors.conv_gmlp import ConvGMLP
from omniloom.sequence import Packed, Shape


def test_it_is_the_gated_bridge_around_stacked_rows():
    torch.manual_seed(0)
    part, rows = ConvGMLP(3, 5, factor=2), torch.randn(5, 3)
    filled = F.pad(rows, (0, 0, 0, 1))
    gate, up = (F.conv1d(filled.T[None], conv.weight, stride=2)[0].T for conv in (part.gate, part.up))
    expected = part.map(part.norm(filled.reshape(3, 6) + part.down(F.silu(gate) * up)))
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, expected)


def test_with_a_closed_gate_it_is_the_norm_of_stacked_rows():
    part = ConvGMLP(1, 99, factor=2, project=False)
    torch.nn.init.zeros_(part.gate.weight)
    out = part(Packed.of([torch.tensor([[1.0], [3.0], [5.0]])]), Context())
    torch.testing.assert_close(out.x, torch.tensor([[-1.0, 1.0], [1.0, -1.0]]), atol=1e-4, rtol=0)
    assert part.out_dim == 2


def test_rows_have_the_time_of_their_first():
    assert ConvGMLP(1, 1, factor=2).out_shape(Shape(3, times=(0.0, 0.5, 1.0))) == Shape(2, times=(0.0, 1.0))
