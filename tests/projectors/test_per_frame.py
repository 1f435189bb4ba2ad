"""Frame by frame: what a projector gives of an item is what the inner one gives of each of its frames alone."""

from __future__ import annotations

from math import prod

import pytest
import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context
from omniloom.projectors.grid_pool import GridPool
from omniloom.projectors.mosaic import Mosaic
from omniloom.projectors.per_frame import PerFrame
from omniloom.projectors.positions import Positions
from omniloom.projectors.qformer import QFormer
from omniloom.registry import build
from omniloom.sequence import Packed, Shape
from omniloom.testing import check_projector
from tests.projectors.tiny_blip import save_tiny

WIDTH, OUT = 12, 8
QUERIES = {"type": "qformer", "queries": 3, "width": 16, "heads": 2}
TABLE = torch.randn(20, OUT, generator=torch.Generator().manual_seed(3))
GRIDS = [(3, 2, 2), (1, 4, 2), (5, 2, 4)]  # clips of three and five frames, and a picture
INSTRUCTIONS = ["what is it", "", "count them all"]
INNER = [
    QUERIES,
    {**QUERIES, "own_queries": True, "instruction": "llm"},
    {"type": "perceiver", "latents": 3, "width": 16, "depth": 1, "heads": 2},
    {"type": "window_qformer", "windows_s": [0.5], "queries": 2, "width": 16, "heads": 2},
    {"type": "c_abstractor", "cells": 2, "width": 16},
    {"type": "pool", "tokens": 2},
    {"type": "layer_mix", "taps": [0, 4]},
    {"type": "hub_qformer", "id": "blip2"},
    {"type": "hub_qformer", "id": "instructblip"},
]


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """Folder of a tiny BLIP-2 and a tiny InstructBLIP."""
    root = tmp_path_factory.mktemp("blip")
    save_tiny(root, rows=WIDTH, width=OUT)
    return root


def clips(grids=GRIDS, mosaics=(None,) * 3, *, period_s=0.5):
    """An item a grid, each frame at its time; with taps."""
    torch.manual_seed(0)
    shapes = [
        Shape(
            prod(grid),
            grid,
            None
            if period_s is None
            else tuple(period_s * frame for frame in range(grid[0]) for _ in range(prod(grid[1:]))),
            mosaic,
        )
        for grid, mosaic in zip(grids, mosaics, strict=True)
    ]
    x = torch.randn(sum(shape.len for shape in shapes), WIDTH)
    return Packed(x, tuple(shapes), taps={0: x + 1, 4: x.flip(1)})


def asked(*instructions):
    say = lambda text: TABLE[[len(word) for word in text.split()]]  # noqa: E731
    return Context("m", TABLE, instructions or INSTRUCTIONS, say, [4, 0, 2][: len(instructions or INSTRUCTIONS)])


def make(inner):
    torch.manual_seed(1)
    part = PerFrame(WIDTH, OUT, projector=inner).eval()
    part.serve("m")
    return part


def frames_of(item):
    """Every frame of a one-item packed as an item of its own, as if it were a picture."""
    grid = item.shapes[0].grid
    size = prod(grid[1:])
    for start in range(0, item.shapes[0].len, size):
        rows = slice(start, start + size)
        taps = {layer: tap[rows] for layer, tap in item.taps.items()}
        yield Packed(item.x[rows], (Shape(size, (1, *grid[1:]), (0.0,) * size),), taps=taps)


@torch.no_grad()
@pytest.mark.parametrize("inner", INNER, ids=str)
def test_rows_of_an_item_are_those_of_each_frame_alone(inner, blip):
    if "id" in inner:
        inner = {**inner, "id": str(blip / inner["id"])}
    part, packed = make(inner), clips()
    expected = [
        part.inner(frame, asked(text)).x
        for item, text in zip(packed.singles(), INSTRUCTIONS, strict=True)
        for frame in frames_of(item)
    ]
    out = part(packed, asked())
    torch.testing.assert_close(out.x, torch.cat(expected), atol=1e-6, rtol=1e-6)
    assert out.shapes == tuple(part.out_shape(shape) for shape in packed.shapes)
    assert [shape.grid[0] for shape in out.shapes] == [grid[0] for grid in GRIDS]


@torch.no_grad()
def test_a_clip_is_read_as_its_frames_are_as_pictures_without_a_clock():
    part = make({"type": "perceiver", "latents": 3, "width": 16, "depth": 1, "heads": 2})
    expected = part(clips(period_s=None), Context()).x
    torch.testing.assert_close(part(clips(), Context()).x, expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_frame_knows_the_instruction_of_its_item_and_no_other():
    part, packed = make({**QUERIES, "instruction": "llm"}), clips()
    before = list(part(packed, asked()).items())
    after = list(part(packed, asked("what is it", "", "where")).items())
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False]
    frames = zip(before[2].split(3), after[2].split(3), strict=True)
    assert not any(torch.allclose(a, b) for a, b in frames)


@torch.no_grad()
def test_every_frame_has_the_answer_of_its_item():
    class Answers(QFormer):
        def forward(self, packed, context):
            self.seen = list(context.answers)
            return super().forward(packed, context)

    part = make(QUERIES)
    part.inner = Answers(WIDTH, OUT, queries=3, width=16)
    part(clips(), asked())
    assert part.inner.seen == [4, 4, 4, 0, 2, 2, 2, 2, 2]


def test_queries_of_each_modality_are_the_inner_projectors_own():
    part = make({**QUERIES, "own_queries": True})
    part.serve("n")
    assert list(part.own) == ["m", "n"]
    assert {"inner.own.m.query", "inner.own.n.query"} <= set(dict(part.named_parameters()))
    one, two = (part(clips(), Context(modality=name)).x for name in "mn")
    assert not torch.allclose(one, two)
    with pytest.raises(ConfigError, match="'k'"):
        part(clips(), Context(modality="k"))


def test_rows_of_a_frame_are_one_line_at_its_time():
    out = make(QUERIES).out_shape(clips().shapes[0])
    assert out == Shape(9, (3, 1, 3), (0.0,) * 3 + (0.5,) * 3 + (1.0,) * 3)
    assert make(QUERIES).out_shape(Shape(8, (2, 2, 2))) == Shape(6, (2, 1, 3))


def test_cells_that_stay_in_their_places_stay_a_grid():
    pooled = {"type": "grid_pool", "stride": 2}
    shape = clips().shapes[2]
    assert make(pooled).out_shape(shape) == GridPool(WIDTH, OUT, stride=2).out_shape(shape)


def test_times_within_a_frame_are_added_to_its_own():
    shape = Shape(6, (2, 3, 1), (2.0, 2.25, 2.5, 4.0, 4.25, 4.5))
    assert make({"type": "pool", "tokens": 1}).out_shape(shape).times == (2.0, 4.0)
    assert make("linear").out_shape(shape) == shape


@torch.no_grad()
def test_positions_behind_it_count_frames():
    packed = make(QUERIES)(clips(), Context())
    positions = Positions(OUT, OUT, max=5)
    table = positions.tables["frame"]
    added = [table[index].repeat_interleave(3, 0) for index in ([0, 1, 2], [0], [0, 1, 2, 3, 4])]
    torch.testing.assert_close(
        positions(packed, Context()).x, packed.x + torch.cat([rows.view(-1, OUT) for rows in added])
    )


@torch.no_grad()
def test_tiles_are_read_one_by_one_and_stay_tiles_where_cells_keep_their_places():
    packed = clips([(5, 2, 2)], [(2, 2, 4, 4)])
    placed = make({"type": "c_abstractor", "cells": 2, "width": 16})
    out = placed(packed, Context())
    alone = [placed.inner(frame, Context()).x for frame in frames_of(packed)]
    torch.testing.assert_close(out.x, torch.cat(alone), atol=1e-6, rtol=1e-6)
    assert out.shapes[0].mosaic == (2, 2, 4, 4)
    assert Mosaic(OUT, OUT)(out, Context()).lengths == [4 + 4 * 5]
    # Queries lie nowhere in the picture, so nothing may be cut off of them as padding.
    assert make(QUERIES).out_shape(packed.shapes[0]) == Shape(
        15, (5, 1, 3), (0.0,) * 3 + tuple(0.5 * tile for tile in (1, 2, 3, 4) for _ in range(3))
    )


def test_losses_are_the_sums_over_all_frames():
    part = make({"type": "window_qformer", "windows": [4], "queries": 2, "width": 16, "heads": 2})
    packed = clips([(3, 2, 2), (1, 4, 2)], [None] * 2)
    alone = [part.inner(frame, Context()).losses["diversity"] for item in packed.singles() for frame in frames_of(item)]
    loss = part(packed, Context()).losses["diversity"]
    assert int(loss.count) == sum(int(one.count) for one in alone) == 5
    torch.testing.assert_close(loss.total, torch.stack([one.total for one in alone]).sum())


def test_published_weights_are_known_by_where_they_are_from(blip):
    spec = {"type": "hub_qformer", "id": str(blip / "blip2")}
    part = make(spec)
    assert part.id == str(blip / "blip2") and torch.equal(part.inner.query, build("projectors", spec, WIDTH, OUT).query)
    for other in (PerFrame(WIDTH, OUT, projector=spec, weights=False), make({**spec, "weights": False}), make(QUERIES)):
        assert other.id is None
    assert not torch.equal(part.inner.query, PerFrame(WIDTH, OUT, projector=spec, weights=False).inner.query)


def test_rows_without_frames_are_refused():
    with pytest.raises(ShapeError, match="6 rows without a grid"):
        make(QUERIES)(Packed(torch.zeros(6, WIDTH), (Shape(6),)), Context())
    with pytest.raises(ShapeError, match="6 rows without a grid"):
        make(QUERIES).out_shape(Shape(6))


def test_a_late_projector_is_refused():
    with pytest.raises(ConfigError, match=r"late projector .* no grid"):
        PerFrame(WIDTH, OUT, projector="cif")


def test_frames_of_unequal_rows_are_refused():
    part = make({"type": "window_qformer", "windows_s": [0.5], "queries": 2, "width": 16, "heads": 2})
    with pytest.raises(ShapeError, match=r"\[2, 4\] rows of WindowQFormer"):
        part.out_shape(Shape(4, (2, 2, 1), (0.0, 0.1, 1.0, 1.9)))


@pytest.mark.parametrize("context", [Context(instructions=["what"]), Context(answers=[3])], ids=["asked", "answered"])
def test_facts_of_too_few_items_are_refused(context):
    with pytest.raises(ShapeError, match=r"1 (instructions|answers) for 3 items"):
        make(QUERIES)(clips(), context)


def test_it_keeps_the_laws_of_a_projector():
    report = check_projector(PerFrame(WIDTH, OUT, projector={**QUERIES, "own_queries": True}), clips())
    assert report.is_kept
