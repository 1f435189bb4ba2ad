from __future__ import annotations

import pytest
import torch

from omniloom.errors import ShapeError
from omniloom.projectors import Context
from omniloom.projectors.row_mix import RowMix
from omniloom.sequence import Packed, Shape


def test_it_starts_as_the_mean_at_the_time_of_the_first_row():
    rows = torch.randn(6, 4)
    out = RowMix(4, 9, rows=3)(Packed(rows, (Shape(3, (1, 3, 1), (2.0, 3.0, 4.0)), Shape(3))), Context())
    torch.testing.assert_close(out.x, rows.view(2, 3, 4).mean(1))
    assert out.shapes == (Shape(1, times=(2.0,)), Shape(1))


def test_it_is_a_convolution_over_the_rows():
    rows, conv, part = torch.randn(2, 5, 4), torch.nn.Conv1d(5, 1, 1), RowMix(4, 9, rows=5)
    part.mix.data, part.bias.data = conv.weight.data.flatten(), conv.bias.data
    torch.testing.assert_close(part(Packed.of(list(rows)), Context()).x, conv(rows)[:, 0])


def test_an_item_of_another_number_of_rows_is_refused():
    with pytest.raises(ShapeError, match="weights for 5 rows and got an item of 4"):
        RowMix(4, 9, rows=5)(Packed.of([torch.zeros(5, 4), torch.zeros(4, 4)]), Context())
