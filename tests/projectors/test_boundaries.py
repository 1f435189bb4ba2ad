from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context
from omniloom.projectors.boundaries import Boundaries
from omniloom.sequence import Packed, Shape

NAMES = {-1.0: "start", -2.0: "end", -3.0: "newline", -4.0: "separator"}


def spelled(part, packed):
    """The result as row numbers and names of boundaries."""
    learned = part.shared
    for value, name in NAMES.items():
        if name in learned:
            torch.nn.init.constant_(learned[name], value)
    values = part(packed, Context()).x.flatten().tolist()
    return " ".join(NAMES.get(value, str(int(value))) for value in values)


def grid(*sizes):
    shapes = tuple(Shape(t * y * x, (t, y, x)) for t, y, x in sizes)
    return Packed(torch.arange(float(sum(shape.len for shape in shapes)))[:, None], shapes)


def test_each_item_begins_and_ends():
    assert spelled(Boundaries(1, 9), grid((1, 1, 2), (1, 1, 1))) == "start 0 1 end start 2 end"


def test_lines_end_in_a_newline_and_frames_have_separators_between_them():
    part = Boundaries(1, 9, newline=True, separator="between")
    expected = "start 0 1 newline 2 3 newline separator 4 5 newline 6 7 newline end"
    assert spelled(part, grid((2, 2, 2))) == expected


def test_a_separator_after_every_frame_is_as_in_ola():
    part = Boundaries(1, 9, start=False, end=False, newline=True, separator="after")
    assert spelled(part, grid((2, 1, 2))) == "0 1 newline separator 2 3 newline separator"


def test_a_boundary_has_the_time_of_the_row_before_it():
    part = Boundaries(1, 9, newline=True)
    shape = part.out_shape(Shape(4, (2, 1, 2), (1.0, 1.0, 2.0, 2.0)))
    assert shape == Shape(8, times=(1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0))


def test_modalities_that_share_it_can_have_boundaries_of_their_own():
    part = Boundaries(3, 9, own_rows=True)
    part.serve("a")
    part.serve("b")
    assert {name for name, _ in part.named_parameters()} == {"own.a.start", "own.a.end", "own.b.start", "own.b.end"}
    rows = Packed.of([torch.zeros(1, 3)])
    a, b = (part(rows, Context(modality=name)).x for name in ("a", "b"))
    assert torch.equal(a[0], part.own["a"]["start"]) and torch.equal(b[2], part.own["b"]["end"])


def test_a_modality_it_was_not_told_of_is_refused():
    with pytest.raises(ConfigError, match="serve"):
        Boundaries(3, 9, own_rows=True)(Packed.of([torch.zeros(1, 3)]), Context(modality="c"))


def test_lines_of_rows_without_a_grid_are_refused():
    with pytest.raises(ShapeError, match="without a grid"):
        Boundaries(1, 9, newline=True).out_shape(Shape(3))
