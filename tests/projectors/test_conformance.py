"""Every projector of the part table keeps the contract."""

from __future__ import annotations

from math import prod

import pytest
import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context
from omniloom.registry import BUILT_IN, build, spec_of
from omniloom.sequence import Packed, Shape
from omniloom.testing.part_laws import disturbed
from tests.projectors.tiny_blip import save_tiny
from tests.projectors.tiny_towers import save_tiny_towers

IN_DIM, OUT_DIM = 12, 8
INSTRUCTIONS = ("what is it", "", "count them all", "where")
EMBEDDING = torch.randn(20, OUT_DIM, generator=torch.Generator().manual_seed(3))
OPTIONS = {
    "linear": [{}, {"bias": False}, {"width": 5}],
    "mlp": [{}, {"layers": 1, "norm": False}, {"layers": 3, "hidden": 20, "activation": "silu"}, {"width": 6}],
    "qformer": [
        {"queries": 5, "width": 16, "heads": 2},
        {"queries": 2, "width": 16, "depth": 3, "heads": 2, "cross_every": 2},
        {"queries": 3, "width": 16, "heads": 2, "own_queries": True, "instruction": "llm"},
        {"queries": 3, "width": 16, "heads": 2, "adapters": "lora", "rank": 2},
        {"queries": 3, "width": 16, "heads": 2, "adapters": "path", "rank": 2, "own_queries": True},
    ],
    "pool": [{}, {"tokens": 1}, {"tokens": 7}],
    "average": [{}, {"factor": None}, {"factor": 3}],
    "stack": [{}, {"factor": 1}, {"factor": 3}],
    "merge": [
        {},
        {"norm": "rms", "norm_at": "merged", "hidden": 6, "order": "channels"},
        {"size": 1, "norm": None, "layers": 0},
    ],
    "grid_pool": [
        {},
        {"mode": "bilinear"},
        {"stride": None, "cells": 2},
        {"stride": None, "cells": 3, "mode": "bilinear"},
    ],
    "score_pool": [{}, {"size": 3, "mlp": False}],
    "c_abstractor": [{"cells": 2, "width": 16}, {"cells": 3, "depth": 0, "layers": 1}],
    "groups": [
        {"groups": [4, 2], "depths": [1, 1, 1], "width": 16, "heads": 2},
        {"groups": [3], "depths": [1, 0], "width": 16, "heads": 2, "hard": False},
    ],
    "objects": [{"layers": 2, "width": 16, "heads": 2, "hidden": 24}],
    "prototypes": [{}, {"neighbours": 2, "weight": 0.3, "normalize": False}],
    "rotary_time": [{}, {"max_time_s": 3.0, "base": 2.0}],
    "positions": [{}, {"axes": ["frame", "line", "cell"], "max": 4}],
    "layer_mix": [{"taps": [1, 3]}, {"taps": [3, 1], "mode": "linear"}],
    "row_mix": [{"rows": 8}],
    "boundaries": [
        {},
        {"newline": True, "separator": "between", "own_rows": True},
        {"start": False, "separator": "after"},
    ],
    "mosaic": [{}, {"newline": False, "max_tiles": 1}],
    "conv": [
        {"strides": [1]},
        {"kernels": [5, 3], "strides": [1, 2], "widen": [2, 1], "padding": "same", "norm": False},
        {"kernels": [2], "strides": [1], "widen": [1], "padding": "none", "activation": None, "project": False},
    ],
    "conv_gmlp": [{}, {"factor": 3, "project": False}],
    "stc": [
        {"depth": 1, "width": 16},
        {"depth": 0, "padding": 0, "downsample": [1, 2, 2]},
        {"depth": 1, "width": None, "kind": "mean", "padding": 0, "downsample": [1, 2, 1]},
    ],
    "perceiver": [
        {"latents": 5, "width": 16, "heads": 2},
        {"latents": 2, "width": 8, "depth": 1, "heads": 1, "qk_norm": True, "positions": False},
    ],
    "per_frame": [
        {"projector": {"type": "qformer", "queries": 3, "width": 16, "own_queries": True, "instruction": "llm"}},
        {"projector": {"type": "perceiver", "latents": 2, "width": 16, "depth": 1}},
        {"projector": "linear"},
    ],
    "window_qformer": [
        {"windows": [4], "queries": 3, "width": 16, "heads": 2},
        {"windows_s": [0.5, 2.0], "queries": 4, "width": 16, "heads": 2, "causal": False, "cross_every": 2},
    ],
    "cif": [{"width": 8}, {"width": 8, "kernel": 1, "threshold": 0.9}],
    "hub_qformer": [
        {"id": "blip2"},
        {"id": "blip2", "projection": "new", "own_queries": True, "weights": False},
        {"id": "instructblip"},
    ],
    "trunk": [
        {"id": "clip", "token": "keep"},
        {"id": "clip", "token": "drop", "weights": False},
        {"id": "vit", "layers": 1, "pre_norm": False, "post_norm": False},
    ],
    "soft_moe": [{"queries": 5, "width": 16, "heads": 2}, {"queries": 1, "experts": 2, "width": 8, "depth": 1}],
    "vocabulary": [{}, {"heads": 1}],
    "residual": [{}, {"layers": 1, "ratio": 1.5, "normalize": True}],
}
# What an item must be for a part that needs more than rows.
GRIDS = {
    name: [(1, 4, 2), (3, 2, 4), (2, 4, 4), (2, 2, 2)]
    for name in ("merge", "grid_pool", "score_pool", "c_abstractor", "stc", "boundaries", "positions", "per_frame")
}
GRIDS["row_mix"] = [(1, 4, 2), (2, 2, 2), (1, 2, 4), (2, 4, 1)]
GRIDS["mosaic"] = [(5, 2, 2), (1, 2, 2), (3, 2, 2), (1, 1, 3)]
MOSAICS = {"mosaic": [(2, 2, 10, 10), None, (1, 2, 5, 10), None], "per_frame": [None, (1, 2, 5, 10), None, None]}
SPECS = [{"type": name, **options} for name, several in OPTIONS.items() for options in several]
parts = pytest.mark.parametrize("spec", SPECS, ids=str, indirect=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of tiny published models."""
    root = tmp_path_factory.mktemp("tiny")
    save_tiny(root, rows=IN_DIM, width=OUT_DIM)
    save_tiny_towers(root, width=IN_DIM)
    return root


@pytest.fixture
def spec(request):
    """A spec of the table; an id is the name of a tiny model."""
    if "id" not in request.param:
        return request.param
    return {**request.param, "id": str(request.getfixturevalue("tiny") / request.param["id"])}


def make(spec, seed=0):
    torch.manual_seed(seed)
    part = build("projectors", spec, IN_DIM, OUT_DIM)
    part.serve("m")
    if hasattr(part, "remember"):
        part.remember(torch.randn(20, IN_DIM))
    return part


def context(*items):
    """What a projector may know of some items of `rows()`; of all without a number."""
    items = items or range(4)
    return Context(
        modality="m",
        embedding=EMBEDDING,
        instructions=[INSTRUCTIONS[index] for index in items],
        say=lambda text: EMBEDDING[[len(word) for word in text.split()]],
        answers=[(2, 1, 3, 2)[index] for index in items],
    )


def rows(spec, dtype=torch.float32, trains=False):
    """Four items with a clock and taps, of several sizes; grids for a part that needs them."""
    generator = torch.Generator().manual_seed(1)
    grids = GRIDS.get(spec["type"], (None,) * 4)
    lengths = [length if grid is None else prod(grid) for length, grid in zip((6, 1, 11, 6), grids, strict=True)]
    mosaics = MOSAICS.get(spec["type"], (None,) * 4)
    shapes = tuple(
        Shape(n, grid, tuple(0.5 * i for i in range(n)), mosaic)
        for n, grid, mosaic in zip(lengths, grids, mosaics, strict=True)
    )
    x = torch.randn(sum(lengths), IN_DIM, generator=generator, dtype=dtype).requires_grad_(trains)
    return Packed(x, shapes, taps={1: 2 * x, 3: x.roll(1, 1)})


def test_every_built_in_projector_is_tested_here():
    assert set(OPTIONS) == set(BUILT_IN["projectors"])


@parts
def test_a_spec_read_back_builds_an_equal_part(spec):
    part = make(spec)
    read = spec_of("projectors", part)
    assert spec.items() <= read.items()
    assert spec_of("projectors", build("projectors", read, IN_DIM, OUT_DIM)) == read
    assert [p.shape for p in part.parameters()] == [p.shape for p in make(read).parameters()]


@parts
def test_declared_rows_are_produced_rows(spec):
    part, packed = make(spec), rows(spec)
    out = part(packed, context())
    if part.is_late:
        with pytest.raises(ShapeError, match="late"):
            part.out_shape(packed.shapes[0])
    else:
        assert out.shapes == tuple(part.out_shape(shape) for shape in packed.shapes)
    assert out.x.shape == (sum(shape.len for shape in out.shapes), part.out_dim)


@parts
def test_every_parameter_gets_a_gradient(spec):
    part, packed = make(spec), rows(spec, trains=True)
    weights = torch.randn(part.out_dim, generator=torch.Generator().manual_seed(2))
    with disturbed(part, train=True) as parameters:
        (part(packed, context()).x * weights).square().sum().backward()
        assert [name for name, p in parameters.items() if p.grad is None or not p.grad.any()] == []
    assert bool(packed.x.grad.any(1).all())


@parts
def test_an_item_alone_equals_the_item_in_a_batch(spec):
    part, packed = make(spec), rows(spec)
    together = list(part(packed, context()).items())
    for index, item in enumerate(packed.singles()):
        alone = part(item, context(index)).x
        torch.testing.assert_close(alone, together[index], atol=1e-5, rtol=1e-5)


@parts
def test_it_runs_in_bfloat16(spec):
    out = make(spec).to(torch.bfloat16)(rows(spec, torch.bfloat16), context()).x
    assert out.dtype == torch.bfloat16 and bool(out.isfinite().all())


@parts
def test_a_state_dict_round_trip_gives_the_same_bits(spec):
    part, other = make(spec), make(spec, seed=1)
    other.load_state_dict(part.state_dict(), strict=True)
    assert torch.equal(part(rows(spec), context()).x, other(rows(spec), context()).x)


@parts
def test_rows_of_another_width_are_refused_with_both_widths(spec):
    with pytest.raises(ShapeError, match=rf"{IN_DIM + 1} wide; expected {IN_DIM}"):
        make(spec)(Packed(torch.zeros(3, IN_DIM + 1), (Shape(3),)), context(0))


@parts
def test_a_batch_without_items_is_refused(spec):
    with pytest.raises(ShapeError, match="no items"):
        make(spec)(Packed(torch.zeros(0, IN_DIM), ()), context())


@parts
def test_it_builds_on_the_meta_device(spec):
    if "weights" in spec_of("projectors", make(spec)):
        spec = {**spec, "weights": False}
    with torch.device("meta"):
        part = build("projectors", spec, IN_DIM, OUT_DIM)
        part.serve("m")
    assert all(p.is_meta for p in part.parameters())


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "mlp", "layers": 0},
        {"type": "mlp", "activation": "swish"},
        {"type": "per_frame", "projector": {"type": "cif"}},
        {"type": "per_frame", "projector": {"type": "mlp", "layers": 0}},
        {"type": "residual", "layers": 0},
        {"type": "residual", "ratio": 0.0},
        {"type": "perceiver", "latents": 0},
        {"type": "cif", "kernel": 2},
        {"type": "window_qformer", "windows": [3, 4]},
        {"type": "window_qformer", "windows": []},
        {"type": "window_qformer", "diversity": -1.0},
        {"type": "soft_moe", "experts": 1},
        {"type": "vocabulary", "heads": 3},
        {"type": "pool", "tokens": 0},
        {"type": "stack", "factor": 0},
        {"type": "linear", "width": 0},
        {"type": "mlp", "width": 0},
        {"type": "average", "factor": 0},
        {"type": "average", "over": "cells"},
        {"type": "merge", "size": 0},
        {"type": "merge", "norm": "batch"},
        {"type": "merge", "order": "rows"},
        {"type": "grid_pool", "cells": 2},
        {"type": "grid_pool", "stride": 0},
        {"type": "grid_pool", "mode": "median"},
        {"type": "score_pool", "size": 0},
        {"type": "c_abstractor", "cells": 0},
        {"type": "c_abstractor", "depth": -1},
        {"type": "groups", "depths": [1]},
        {"type": "groups", "groups": []},
        {"type": "groups", "width": 10, "heads": 4},
        {"type": "objects", "width": 10, "heads": 4},
        {"type": "objects", "layers": 0},
        {"type": "prototypes", "count": 0},
        {"type": "prototypes", "weight": 2.0},
        {"type": "rotary_time", "max_time_s": 0.0},
        {"type": "positions", "axes": ["row"]},
        {"type": "positions", "max": 0},
        {"type": "layer_mix", "taps": []},
        {"type": "layer_mix", "taps": [1], "mode": "mean"},
        {"type": "row_mix", "rows": 0},
        {"type": "boundaries", "start": False, "end": False},
        {"type": "boundaries", "separator": "before"},
        {"type": "mosaic", "max_tiles": 0},
        {"type": "conv", "kernels": []},
        {"type": "conv", "kernels": [3, 3]},
        {"type": "conv", "strides": [0]},
        {"type": "conv", "padding": "valid"},
        {"type": "conv_gmlp", "factor": 0},
        {"type": "stc", "downsample": [2, 2]},
        {"type": "stc", "kind": "mean", "padding": 1},
        {"type": "stc", "padding": -1},
        {"type": "qformer", "queries": 0},
        {"type": "qformer", "width": 10, "heads": 4},
        {"type": "qformer", "instruction": "bert"},
        {"type": "qformer", "adapters": "prefix"},
        {"type": "qformer", "rank": 0},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(spec):
    with pytest.raises(ConfigError):
        make(spec)
