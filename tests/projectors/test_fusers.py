"""Every fuser of the part table keeps the contract; and what each one computes."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context
from omniloom.registry import BUILT_IN, build, spec_of
from omniloom.sequence import Packed, Shape
from omniloom.testing.part_laws import disturbed

OUT_DIM = 8
ONE = {"a": 6, "b": 6, "c": 6}
SEVERAL = {"a": 6, "b": 5, "c": 4}
INSTRUCTIONS = ("what is it", "", "count them all", "where")
EMBEDDING = torch.randn(20, OUT_DIM, generator=torch.Generator().manual_seed(3))
# Type -> (widths of its inputs, options).
OPTIONS = {
    "sum": (ONE, [{}]),
    "weighted": (ONE, [{}, {"weights": {"b": 2.0}}]),
    "gated": (SEVERAL, [{}, {"mode": "append"}]),
    "channels": (SEVERAL, [{}]),
    "clue": (SEVERAL, [{"queries": 3, "width": 12, "heads": 2}, {"queries": 2, "width": 8, "heads": 1, "depth": 1}]),
    "cross": (SEVERAL, [{"width": 12, "heads": 2}, {"width": 8, "heads": 1, "depth": 2}]),
    "align": (SEVERAL, [{"width": 12, "heads": 2}, {"width": 8, "heads": 1, "layers": 0, "weight": 0.1}]),
}
SPECS = [{"type": name, **options} for name, (_, several) in OPTIONS.items() for options in several]
CLUE, CROSS, ALIGN = (next(spec for spec in SPECS if spec["type"] == name) for name in ("clue", "cross", "align"))
parts = pytest.mark.parametrize("spec", SPECS, ids=str)


def make(spec, seed=0):
    torch.manual_seed(seed)
    return build("fusers", spec, OPTIONS[spec["type"]][0], OUT_DIM)


def rows(width, count, seed=0, step_s=0.5, **facts):
    """One item with a clock."""
    draw = torch.Generator().manual_seed(100 * seed + width + count)
    shape = Shape(count, times=tuple(step_s * n for n in range(count)), **facts)
    return Packed(torch.randn(count, width, generator=draw), (shape,))


def groups(spec, dtype=torch.float32):
    """Four groups; the first input is always there, the second and third are not."""
    in_dims = OPTIONS[spec["type"]][0]
    names = [("a", "b", "c"), ("a", "c"), ("a", "b"), ("a",)]
    found = []
    for number, there in enumerate(names):
        count = (4, 2, 6, 2)[number]
        fewer = count if spec["type"] in ("sum", "weighted") else 2
        group = {name: rows(in_dims[name], count if name == "a" else fewer, number) for name in there}
        found.append({name: replace(part, x=part.x.to(dtype)) for name, part in group.items()})
    return found


def context(*numbers):
    numbers = numbers or range(4)
    return Context(
        modality="fused",
        instructions=[INSTRUCTIONS[number] for number in numbers],
        say=lambda text: EMBEDDING[[len(word) for word in text.split()]],
    )


def scalar(out):
    """One number that all rows and losses act on."""
    weights = torch.randn(out.x.shape[1], generator=torch.Generator().manual_seed(2)).to(out.x)
    return (out.x * weights).square().sum() + sum(loss.total for loss in out.losses.values())


def shapes_of(group):
    return {name: part.shapes[0] for name, part in group.items()}


def test_every_built_in_fuser_is_tested_here():
    assert set(OPTIONS) == set(BUILT_IN["fusers"])


@parts
def test_a_spec_read_back_builds_an_equal_part(spec):
    part = make(spec)
    read = spec_of("fusers", part)
    assert spec.items() <= read.items()
    again = build("fusers", read, part.in_dims, OUT_DIM)
    assert spec_of("fusers", again) == read and [p.shape for p in part.parameters()] == [
        p.shape for p in again.parameters()
    ]


@parts
def test_declared_rows_are_produced_rows(spec):
    part, given = make(spec), groups(spec)
    out = part(given, context())
    declared = [part.out_shape(shapes_of(group)) for group in given]
    if spec["type"] == "align":
        assert declared == [None] * 4 and len(out) == 0 and out.x.shape == (0, OUT_DIM)
    else:
        assert out.shapes == tuple(declared)
        assert out.x.shape == (sum(shape.len for shape in declared), part.out_dim)


@parts
def test_every_parameter_and_every_input_gets_a_gradient(spec):
    part, given = make(spec), groups(spec)
    inputs = [packed.x.requires_grad_() for group in given for packed in group.values()]
    with disturbed(part, train=True) as parameters:
        scalar(part(given, context())).backward()
        assert [name for name, p in parameters.items() if p.grad is None or not p.grad.any()] == []
    reached = [x.grad is not None and bool(x.grad.any(1).all()) for x in inputs]
    assert reached == [True] * (len(inputs) - 1) + [spec["type"] != "align"]  # contrast needs two inputs


@parts
def test_a_group_alone_equals_the_group_in_a_batch(spec):
    part, given = make(spec), groups(spec)
    if spec["type"] == "align":
        assert part(given, context()).losses["contrast"].is_coupled
        return
    with disturbed(part, train=True):
        out = part(given, context())
        assert not out.losses
        for number, (group, together) in enumerate(zip(given, out.items(), strict=True)):
            alone = part([group], context(number)).x
            torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@parts
def test_another_group_gives_other_rows_or_another_loss(spec):
    part, given = make(spec), groups(spec)
    for name in ("a", "b", "c"):
        other = [
            {key: replace(p, x=p.x.roll(1, 1)) if key == name else p for key, p in group.items()} for group in given
        ]
        assert float(scalar(part(given, context()))) != float(scalar(part(other, context()))), name


@parts
def test_it_runs_in_bfloat16(spec):
    out = make(spec).to(torch.bfloat16)(groups(spec, torch.bfloat16), context())
    assert out.x.dtype == torch.bfloat16 and bool(out.x.isfinite().all())
    assert all(bool(loss.total.isfinite()) for loss in out.losses.values())


@torch.no_grad()
@parts
def test_a_state_dict_round_trip_gives_the_same_bits(spec):
    part, other = make(spec), make(spec, seed=1)
    other.load_state_dict(part.state_dict(), strict=True)
    ours, theirs = part(groups(spec), context()), other(groups(spec), context())
    assert torch.equal(ours.x, theirs.x)
    assert [float(loss.total) for loss in ours.losses.values()] == [
        float(loss.total) for loss in theirs.losses.values()
    ]


@parts
def test_it_builds_on_the_meta_device_and_leaves_its_inputs_alone(spec):
    with torch.device("meta"):
        assert all(p.is_meta for p in make(spec).parameters())
    given = groups(spec)
    before = [packed.x.clone() for group in given for packed in group.values()]
    make(spec)(given, context())
    after = [packed.x for group in given for packed in group.values()]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


@parts
def test_groups_that_are_not_its_own_are_refused(spec):
    part = make(spec)
    with pytest.raises(ShapeError, match="got no groups"):
        part([], context())
    with pytest.raises(ShapeError, match=r"got nothing as group 0; expected of a, b, c"):
        part([{}], context(0))
    with pytest.raises(ShapeError, match=r"got d as group 0"):
        part([{"d": rows(6, 1)}], context(0))
    with pytest.raises(ShapeError, match=r"rows of 'a' 7 wide; expected 6"):
        part([{"a": rows(7, 1)}], context(0))


@pytest.mark.parametrize(
    ("spec", "widths"),
    [
        ({"type": "sum"}, SEVERAL),
        ({"type": "weighted"}, SEVERAL),
        ({"type": "weighted", "weights": {"d": 1.0}}, ONE),
        ({"type": "weighted", "weights": {"a": 0.0}}, ONE),
        ({"type": "gated"}, {"a": 6}),
        ({"type": "gated", "mode": "mean"}, SEVERAL),
        ({"type": "clue", "queries": 0}, SEVERAL),
        ({"type": "clue", "width": 10, "heads": 4}, SEVERAL),
        ({"type": "cross"}, {"a": 6}),
        ({"type": "cross", "depth": 0}, SEVERAL),
        ({"type": "align"}, {"a": 6}),
        ({"type": "align", "temperature": 0.0}, SEVERAL),
        ({"type": "align", "weight": 0.0}, SEVERAL),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(spec, widths):
    with pytest.raises(ConfigError):
        build("fusers", spec, widths, OUT_DIM)


# -- sum and weighted -----------------------------------------------------------------------------------------------


def test_a_sum_is_the_sum_row_by_row_and_keeps_what_its_parts_have_in_common():
    part = make({"type": "sum"})
    a, b = rows(6, 4, 1, grid=(1, 2, 2)), rows(6, 4, 2, grid=(1, 2, 2))
    out = part([{"a": a, "b": b}], context(0))
    assert torch.equal(out.x, a.x + b.x) and out.shapes == a.shapes
    assert part.out_shape({"a": Shape(4, times=(0.0, 1.0, 2.0, 3.0)), "b": Shape(4)}) == Shape(4)
    with pytest.raises(ShapeError, match="equally many rows, got a 4, b 2"):
        part([{"a": a, "b": rows(6, 2)}], context(0))


def test_weights_are_shared_out_among_the_inputs_that_are_there():
    part = make({"type": "weighted", "weights": {"b": 3.0}})
    a, b = rows(6, 1, 1), rows(6, 1, 2)
    out = part([{"a": a, "b": b}, {"b": b}], context(0, 1)).x
    unit_a, unit_b = a.x / a.x.norm(), b.x / b.x.norm()
    torch.testing.assert_close(out[:1], 0.25 * unit_a + 0.75 * unit_b)
    torch.testing.assert_close(out[1:], unit_b)


# -- gated ------------------------------------------------------------------------------------------------------------


def test_gated_rows_are_added_to_the_first_input_or_put_behind_it():
    part, behind = make({"type": "gated"}), make({"type": "gated", "mode": "append"})
    a, b = rows(6, 4, 1), rows(5, 2, 2)
    z = torch.cat([b.x.repeat(2, 1), torch.zeros(4, 4)], 1) @ part.map.weight.T + part.map.bias
    gated = z * torch.sigmoid(z)
    group = [{"a": a, "b": b}]
    torch.testing.assert_close(part(group, context(0)).x, a.x + gated)
    torch.testing.assert_close(behind(group, context(0)).x, torch.cat([a.x, gated]))
    assert behind.out_shape(shapes_of(group[0])) == Shape(8)
    assert torch.equal(part([{"a": a}], context(0)).x, a.x) and torch.equal(behind([{"a": a}], context(0)).x, a.x)


def test_gated_refuses_what_it_cannot_repeat_and_a_group_without_the_first():
    part = make({"type": "gated"})
    with pytest.raises(ShapeError, match="cannot repeat the 3 rows of 'b' to the 4 of 'a'"):
        part([{"a": rows(6, 4), "b": rows(5, 3)}], context(0))
    with pytest.raises(ShapeError, match="fuses into 'a', which a group of b lacks"):
        part([{"b": rows(5, 3)}], context(0))


# -- channels ---------------------------------------------------------------------------------------------------------


def clocked(width, times, grid=None):
    count = len(times)
    return Packed(
        torch.arange(count, dtype=torch.float32)[:, None].expand(-1, width).clone(), (Shape(count, grid, times),)
    )


def test_rows_of_one_moment_stand_side_by_side():
    part = build("fusers", "channels", {"a": 1, "b": 1}, OUT_DIM)
    # Moments begin at 0, 1 and 2 s; a row of b that begins before the first or after the last is theirs.
    a = clocked(1, (0.0, 1.0, 2.0))
    b = clocked(1, (-0.5, 0.0, 0.5, 2.0, 2.5, 9.0))
    out = part([{"a": a, "b": b}], context(0))
    assert out.x.tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 4.0]]  # means of rows 0 1 2, the held row 2, 3 4 5
    assert out.shapes == a.shapes and part.out_dim == 2


def test_all_rows_of_a_frame_are_of_one_moment():
    part = build("fusers", "channels", {"a": 1, "b": 1}, OUT_DIM)
    frames = clocked(1, (0.0, 0.0, 1.0, 1.0), (2, 1, 2))
    out = part([{"a": frames, "b": clocked(1, (0.0, 0.5, 1.0, 1.5))}], context(0))
    assert out.x[:, 1].tolist() == [0.5, 0.5, 2.5, 2.5] and out.shapes[0].grid == (2, 1, 2)


def test_without_a_clock_rows_are_shared_out_evenly():
    part = build("fusers", "channels", {"a": 1, "b": 1}, OUT_DIM)
    plain = lambda count, grid=None: Packed(torch.arange(count * 1.0)[:, None], (Shape(count, grid),))  # noqa: E731
    assert part([{"a": plain(2), "b": plain(6)}], context(0)).x[:, 1].tolist() == [1.0, 4.0]
    assert part([{"a": plain(4), "b": plain(2)}], context(0)).x[:, 1].tolist() == [0.0, 0.0, 1.0, 1.0]
    frames = plain(6, (3, 1, 2))
    assert part([{"a": frames, "b": plain(3)}], context(0)).x[:, 1].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]


def test_what_is_not_there_is_zeros_and_the_first_that_is_there_leads():
    part = make({"type": "channels"})
    b = rows(5, 3)
    out = part([{"b": b}], context(0))
    assert torch.equal(out.x, torch.cat([torch.zeros(3, 6), b.x, torch.zeros(3, 4)], 1)) and out.shapes == b.shapes


# -- clue -------------------------------------------------------------------------------------------------------------


def test_clues_depend_on_what_is_asked():
    part, group = make(CLUE), groups(CLUE)[0]
    one, two, none = (part([group], context(number)).x for number in (0, 2, 1))
    assert one.shape == (9, OUT_DIM) and not torch.allclose(one, two) and not torch.allclose(one, none)


def test_clues_need_a_language_model_that_says_the_instruction():
    part, group = make(CLUE), groups(CLUE)[0]
    with pytest.raises(ConfigError, match="Clue needs a language model"):
        part([group], Context(instructions=["what"]))
    with pytest.raises(ShapeError, match="Clue got 1 instructions for 2 items"):
        part([group, group], context(0))


# -- cross ------------------------------------------------------------------------------------------------------------


def test_the_first_reads_all_the_others_and_keeps_its_place():
    part = make(CROSS)
    a, b, c = rows(6, 4, 1, grid=(1, 2, 2)), rows(5, 3, 2), rows(4, 2, 3)
    out = part([{"a": a, "b": b, "c": c}], context(0))
    assert out.shapes == a.shapes
    for other in ({"a": a, "b": b}, {"a": a, "c": c}, {"a": a, "b": b, "c": replace(c, x=c.x.roll(1, 1))}):
        assert not torch.allclose(part([other], context(0)).x, out.x)
    shuffled = {"a": a, "b": replace(b, x=b.x.flip(0)), "c": c}  # rows of a memory are a set
    torch.testing.assert_close(part([shuffled], context(0)).x, out.x)
    assert torch.equal(part([{"a": a}], context(0)).x, a.x)
    with pytest.raises(ShapeError, match="fuses into 'a'"):
        part.out_shape({"b": Shape(3)})


# -- align ------------------------------------------------------------------------------------------------------------


def vectors(part, name, items):
    """(items, width) of length one, by hand, one item after another."""
    found = []
    for x in items:
        reader = part.own[name]
        query = reader.query[None, None]
        v = (query + reader.cross(query, reader.norm(x)[None]))[:, 0]
        for layer in part.shared:
            v = layer(v)
        found.append(F.normalize(part.norm(v), dim=-1))
    return torch.cat(found)


@torch.no_grad()
def test_the_contrast_is_the_symmetric_loss_of_every_two_inputs():
    spec = {"type": "align", "width": 12, "heads": 2, "temperature": 0.5}
    part = make(spec)
    given = [{"a": rows(6, 3, n), "b": rows(5, 1 + n, n)} for n in range(3)] + [{"a": rows(6, 2), "c": rows(4, 2)}]
    loss = part(given, context()).losses["contrast"]
    a, b = (vectors(part, name, [group[name].x for group in given[:3]]) for name in ("a", "b"))
    scores = 2.0 * a @ b.T
    expected = sum(
        float(-scores[i, i] + torch.logsumexp(side, 0)) / 2 for i in range(3) for side in (scores[i], scores[:, i])
    )
    assert float(loss.count) == 3 and float(loss.total.detach()) == pytest.approx(expected, abs=1e-4)
    assert loss.weight == 1.0 and loss.is_coupled


def test_training_the_contrast_draws_pairs_together():
    part = make({"type": "align", "width": 16, "heads": 2, "layers": 1})
    given = [{"a": rows(6, 3, n), "b": rows(5, 2, n)} for n in range(4)]
    optimizer = torch.optim.Adam(part.parameters(), lr=1e-2)
    means = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = part(given, context()).losses["contrast"]
        (loss.total / loss.count).backward()
        optimizer.step()
        means.append(float((loss.total / loss.count).detach()))
    assert means[0] > log(4) / 2 and means[-1] < 0.1 and part.log_scale.exp() <= 100 + exp(1)


def test_one_pair_alone_says_nothing():
    part = make(ALIGN)
    loss = part([{"a": rows(6, 3), "b": rows(5, 2)}], context(0)).losses["contrast"]
    assert float(loss.count) == 0 and float(loss.total.detach()) == 0
