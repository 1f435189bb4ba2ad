from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context
from omniloom.projectors.window_qformer import WindowQFormer, likeness
from omniloom.sequence import Packed, Shape


def small(**options):
    torch.manual_seed(0)
    return WindowQFormer(4, 6, **{"windows": [4], "queries": 2, "width": 8, "heads": 2, **options})


def run(part, *rows):
    return part(Packed.of(list(rows)), Context()).x


def bare(part):
    """The part with rows as its blocks leave them."""
    part.map = torch.nn.Linear(8, 8, bias=False)
    torch.nn.init.eye_(part.map.weight)
    return part


def trunk_of(part):
    """All weights but those of queries and the last map."""
    return {name: value for name, value in part.state_dict().items() if not name.startswith(("query", "map"))}


def test_each_window_gives_its_queries_and_they_keep_its_start():
    part = small(windows=[3])
    out = part(Packed(torch.randn(7, 4), (Shape(7, times=tuple(0.5 * i for i in range(7))),)), Context())
    assert out.shapes == (Shape(6, times=(0.0, 0.0, 1.5, 1.5, 3.0, 3.0)),)


def test_seconds_cut_as_rows_of_the_same_length_do():
    rows, shape = torch.randn(7, 4), Shape(7, times=tuple(0.5 * i for i in range(7)))
    by_rows, by_time = small(windows=[3]), small(windows_s=[1.5])
    one, two = (part(Packed(rows, (shape,)), Context()) for part in (by_rows, by_time))
    assert torch.equal(one.x, two.x) and one.shapes == two.shapes


def test_a_window_of_the_whole_item_is_a_plain_q_former():
    part, rows = small(windows=[9], depth=1), torch.randn(9, 4)
    block, memory = part.blocks[0], part.memory_map(part.memory_norm(rows))[None]
    expected = part.map(part.norm(block(part.query[0][None], memory=memory)))[0]
    torch.testing.assert_close(run(part, rows), expected)


def test_a_window_knows_the_past_and_not_the_future():
    part, rows = small(), torch.randn(12, 4)
    before = run(part, rows)
    late = rows.clone()
    late[8:] = torch.randn(4, 4)
    after = run(part, late)
    torch.testing.assert_close(after[:4], before[:4])
    assert not torch.allclose(after[4:], before[4:])
    early = rows.clone()
    early[:4] = torch.randn(4, 4)
    changed = (run(part, early) - before).abs().amax(1)
    assert bool((changed > 1e-4).all())


def test_without_causality_a_window_is_read_alone():
    part, rows = small(causal=False), torch.randn(12, 4)
    alone = torch.cat([run(part, window) for window in rows.split(4)])
    torch.testing.assert_close(run(part, rows), alone)
    assert not torch.allclose(run(small(), rows)[2:], alone[2:])


def test_an_item_beside_a_longer_one_is_as_alone():
    part, long, short = small(), torch.randn(15, 4), torch.randn(3, 4)
    torch.testing.assert_close(run(part, long, short), torch.cat([run(part, long), run(part, short)]))


def test_resolutions_are_summed_where_they_lie_in_time():
    part, rows = small(windows=[2, 4], queries=4), torch.randn(10, 4)
    assert [tuple(query.shape) for query in part.query] == [(2, 8), (4, 8)]
    out = run(part, rows)
    assert out.shape == (12, 6)  # three windows of four rows, the last one cut short
    total = torch.zeros(12, 8)
    for length, query in zip((2, 4), part.query, strict=True):
        single = bare(small(windows=[length], queries=query.shape[0]))
        single.load_state_dict({**trunk_of(part), "query.0": query.detach()}, strict=False)
        seen = run(single, rows)
        total[: seen.shape[0]] += seen
    torch.testing.assert_close(out, part.map(total))


def test_a_gap_in_the_clock_leaves_the_place_of_the_finer_window_to_the_longer_one():
    part = small(windows_s=[0.5, 1.0], queries=2)
    shape = Shape(3, times=(0.0, 1.6, 3.1))
    rows = torch.randn(3, 4)
    out = part(Packed(rows, (shape,)), Context())
    assert out.shapes == (Shape(6, times=(0.0, 0.0, 1.6, 1.6, 3.1, 3.1)),)
    coarse = bare(small(windows_s=[1.0], queries=2))
    coarse.load_state_dict({**trunk_of(part), "query.0": part.query[1].detach()}, strict=False)
    difference = bare(part)(Packed(rows, (shape,)), Context()).x - coarse(Packed(rows, (shape,)), Context()).x
    # Half seconds 0, 3 and 6 have rows: the first half of the first second, the second of the second, the first again.
    assert (difference.abs().amax(1) > 1e-4).tolist() == [True, False, False, True, True, False]


def test_diversity_is_the_mean_cosine_of_different_queries():
    x = torch.randn(2, 3, 5)
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = torch.stack([torch.stack([F.cosine_similarity(w[i], w[j], dim=0) for i, j in pairs]).mean() for w in x])
    torch.testing.assert_close(likeness(x), expected)
    torch.testing.assert_close(likeness(torch.ones(1, 4, 5)), torch.ones(1))


def test_the_diversity_loss_is_a_sum_over_windows_whatever_the_batch():
    part, long, short = small(), torch.randn(15, 4), torch.randn(3, 4)
    together = part(Packed.of([long, short]), Context()).losses["diversity"]
    apart = [part(Packed.of([rows]), Context()).losses["diversity"] for rows in (long, short)]
    assert float(together.count) == 5 and together.weight == 0.01 and not together.is_coupled
    torch.testing.assert_close(together.total, (apart[0] + apart[1]).total)


@pytest.mark.parametrize("options", [{"diversity": 0.0}, {"queries": 1}])
def test_no_diversity_loss_without_weight_or_without_pairs(options):
    assert small(**options)(Packed.of([torch.randn(5, 4)]), Context()).losses == {}


def test_training_on_diversity_makes_queries_of_a_window_differ():
    part, rows = small(queries=4), Packed.of([torch.randn(8, 4)])
    part.query[0].data = part.query[0].data * 0.1 + 1.0
    optimizer = torch.optim.SGD(part.parameters(), lr=0.5)
    seen = []
    for _ in range(10):
        loss = part(rows, Context()).losses["diversity"]
        seen.append(float((loss.total / loss.count).detach()))
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    assert seen[-1] < seen[0] - 0.1


def test_seconds_without_a_clock_are_refused_by_shape_and_by_rows():
    part = small(windows_s=[1.0])
    with pytest.raises(ShapeError, match="without times"):
        part.out_shape(Shape(3))
    with pytest.raises(ShapeError, match="without times"):
        run(part, torch.randn(3, 4))


def test_queries_that_finer_windows_cannot_share_are_refused():
    with pytest.raises(ConfigError, match="share 3 queries"):
        small(windows=[2, 4], queries=3)
