from __future__ import annotations

import torch

from omniloom.projectors import Context
from omniloom.projectors.dense import MLP, Linear
from omniloom.sequence import Packed


def test_linear_is_one_matrix_and_a_bias():
    part, rows = Linear(3, 2), torch.randn(4, 3)
    expected = rows @ part.map.weight.T + part.map.bias
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, expected)


def test_an_mlp_of_one_layer_without_norm_is_linear():
    part = MLP(3, 2, layers=1, norm=False)
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    twice = part(Packed.of([a]), Context()).x + part(Packed.of([b]), Context()).x
    torch.testing.assert_close(part(Packed.of([a + b]), Context()).x + part.maps[0].bias, twice)


def test_the_norm_of_an_mlp_makes_the_scale_of_the_encoder_vanish():
    part, rows = MLP(8, 2), torch.randn(4, 8)
    small, large = (part(Packed.of([rows * scale]), Context()).x for scale in (1.0, 1000.0))
    torch.testing.assert_close(small, large, atol=1e-3, rtol=1e-3)
