from __future__ import annotations

import pytest
import torch

from omniloom.errors import ShapeError
from omniloom.projectors import Context
from omniloom.projectors.layer_mix import LayerMix
from omniloom.sequence import Packed, Shape


def tapped(layers=(0, 3, 7)):
    torch.manual_seed(0)
    rows = {layer: torch.randn(5, 4) for layer in layers}
    return Packed(torch.randn(5, 4), (Shape(5),), taps=rows)


def test_it_starts_as_the_mean_of_the_taps():
    packed = tapped()
    expected = torch.stack(list(packed.taps.values())).mean(0)
    for mode in ("softmax", "linear"):
        torch.testing.assert_close(LayerMix(4, 9, taps=(0, 3, 7), mode=mode)(packed, Context()).x, expected)


def test_weights_are_a_softmax_that_belongs_to_the_layers_named():
    packed, part = tapped(), LayerMix(4, 9, taps=(7, 0))
    part.mix.data = torch.tensor([0.0, 3.0]).log_softmax(0) * 1.0
    shares = torch.tensor([0.0, 3.0]).softmax(0)
    torch.testing.assert_close(part(packed, Context()).x, shares[0] * packed.taps[7] + shares[1] * packed.taps[0])


def test_linear_it_is_a_convolution_over_the_layers():
    packed, part = tapped(), LayerMix(4, 9, taps=(0, 3, 7), mode="linear")
    conv = torch.nn.Conv1d(3, 1, 1)
    part.mix.data, part.bias.data = conv.weight.data.flatten(), conv.bias.data
    layers = torch.stack(list(packed.taps.values()), 1)  # (rows, layers, width)
    torch.testing.assert_close(part(packed, Context()).x, conv(layers)[:, 0])


def test_a_tap_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ShapeError, match=r"no tap of layer 2; .* taps of \[0, 3, 7\]"):
        LayerMix(4, 9, taps=(0, 2))(tapped(), Context())
