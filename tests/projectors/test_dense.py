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


def test_a_width_makes_a_link_of_another_width_than_the_wired():
    chain = [Linear(3, 99, width=7), MLP(7, 99, width=5), Linear(5, 99)]
    packed = Packed.of([torch.randn(4, 3)])
    for part in chain:
        packed = part(packed, Context())
        assert packed.x.shape == (4, part.out_dim)
    assert [part.out_dim for part in chain] == [7, 5, 99]


def test_an_mlp_is_as_wide_inside_as_what_it_gives():
    assert [tuple(m.weight.shape) for m in MLP(3, 99, width=5).maps] == [(5, 3), (5, 5)]
