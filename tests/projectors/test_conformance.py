"""Every projector of the part table keeps the contract."""

from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context
from omniloom.registry import BUILT_IN, build, spec_of
from omniloom.sequence import Packed, Shape

IN_DIM, OUT_DIM = 12, 8
OPTIONS = {
    "linear": [{}, {"bias": False}],
    "mlp": [{}, {"layers": 1, "norm": False}, {"layers": 3, "hidden": 20, "activation": "silu"}],
    "qformer": [
        {"queries": 5, "width": 16, "heads": 2},
        {"queries": 2, "width": 16, "depth": 3, "heads": 2, "cross_every": 2},
    ],
    "pool": [{}, {"tokens": 1}, {"tokens": 7}],
    "stack": [{}, {"factor": 1}, {"factor": 3}],
}
SPECS = [{"type": name, **options} for name, several in OPTIONS.items() for options in several]
parts = pytest.mark.parametrize("spec", SPECS, ids=str)


def make(spec):
    torch.manual_seed(0)
    return build("projectors", spec, IN_DIM, OUT_DIM)


def rows(lengths=(6, 1, 11, 6), dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    shapes = tuple(Shape(n, times=tuple(0.5 * i for i in range(n))) for n in lengths)
    return Packed(torch.randn(sum(lengths), IN_DIM, generator=generator, dtype=dtype), shapes)


def test_every_built_in_projector_is_tested_here():
    assert set(OPTIONS) == set(BUILT_IN["projectors"])


@parts
def test_a_spec_read_back_builds_an_equal_part(spec):
    part = make(spec)
    read = spec_of("projectors", part)
    assert spec.items() <= read.items()
    assert spec_of("projectors", build("projectors", read, IN_DIM, OUT_DIM)) == read
    assert [p.shape for p in part.parameters()] == [
        p.shape for p in build("projectors", read, IN_DIM, OUT_DIM).parameters()
    ]


@parts
def test_declared_rows_are_produced_rows(spec):
    part, packed = make(spec), rows()
    out = part(packed, Context())
    assert out.shapes == tuple(part.out_shape(shape) for shape in packed.shapes)
    assert out.x.shape == (sum(shape.len for shape in out.shapes), part.out_dim)


@parts
def test_every_parameter_gets_a_gradient(spec):
    part, packed = make(spec), rows()
    packed.x.requires_grad_()
    weights = torch.randn(part.out_dim, generator=torch.Generator().manual_seed(2))
    (part(packed, Context()).x * weights).square().sum().backward()
    assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert bool(packed.x.grad.any(1).all())


@parts
def test_an_item_alone_equals_the_item_in_a_batch(spec):
    part, packed = make(spec), rows()
    together = list(part(packed, Context()).items())
    for item, shape, expected in zip(packed.items(), packed.shapes, together, strict=True):
        torch.testing.assert_close(part(Packed(item, (shape,)), Context()).x, expected, atol=1e-5, rtol=1e-5)


@parts
def test_it_runs_in_bfloat16(spec):
    out = make(spec).to(torch.bfloat16)(rows(dtype=torch.bfloat16), Context()).x
    assert out.dtype == torch.bfloat16 and bool(out.isfinite().all())


@parts
def test_a_state_dict_round_trip_gives_the_same_bits(spec):
    part, other = make(spec), build("projectors", spec, IN_DIM, OUT_DIM)
    other.load_state_dict(part.state_dict(), strict=True)
    assert torch.equal(part(rows(), Context()).x, other(rows(), Context()).x)


@parts
def test_rows_of_another_width_are_refused_with_both_widths(spec):
    with pytest.raises(ShapeError, match=rf"{IN_DIM + 1} wide; expected {IN_DIM}"):
        make(spec)(Packed(torch.zeros(3, IN_DIM + 1), (Shape(3),)), Context())


@parts
def test_a_batch_without_items_is_refused(spec):
    with pytest.raises(ShapeError, match="no items"):
        make(spec)(Packed(torch.zeros(0, IN_DIM), ()), Context())


@parts
def test_it_builds_on_the_meta_device(spec):
    with torch.device("meta"):
        part = build("projectors", spec, IN_DIM, OUT_DIM)
    assert all(p.is_meta for p in part.parameters())


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "mlp", "layers": 0},
        {"type": "mlp", "activation": "swish"},
        {"type": "pool", "tokens": 0},
        {"type": "stack", "factor": 0},
        {"type": "qformer", "queries": 0},
        {"type": "qformer", "width": 10, "heads": 4},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(spec):
    with pytest.raises(ConfigError):
        make(spec)
