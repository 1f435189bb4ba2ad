from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context
from omniloom.projectors.cif import CIF, fire
from omniloom.sequence import Packed, Shape


def small(**options):
    torch.manual_seed(0)
    return CIF(4, 6, **{"width": 8, **options})


def items(*lengths):
    draw = torch.Generator().manual_seed(1)
    shapes = tuple(Shape(n, times=tuple(0.02 * i for i in range(n))) for n in lengths)
    return Packed(torch.randn(sum(lengths), 4, generator=draw), shapes)


def by_hand(alpha, threshold, tail):
    """The published algorithm, step by step: (shares, rows that firings start with)."""
    fired, starts, current, full, start = [], [], [0.0] * len(alpha), 0.0, 0
    for step, weight in enumerate(alpha):
        left = weight
        while full + left >= threshold:
            taken = threshold - full
            current[step] += taken
            fired.append(current)
            starts.append(start)
            current, full, left, start = [0.0] * len(alpha), 0.0, left - taken, step
        if full == 0.0:
            start = step if left > 0 else step + 1
        current[step] += left
        full += left
    if full >= tail * threshold or not fired:
        fired.append([share * threshold / full for share in current])
        starts.append(start)
    return torch.tensor(fired), starts


def test_a_row_at_the_border_of_two_firings_is_shared_between_them():
    # 0.2 + 0.9 fires with 0.8 of the second row, whose other 0.1 starts the next firing; the last 0.4 is no tail.
    shares, starts = fire(torch.tensor([0.2, 0.9, 0.6, 0.6, 0.1]), 1.0, 0.5)
    expected = torch.tensor([[0.2, 0.8, 0, 0, 0], [0, 0.1, 0.6, 0.3, 0]])
    torch.testing.assert_close(shares, expected)
    assert starts == [0, 1]


@pytest.mark.parametrize("threshold,tail", [(1.0, 0.5), (0.9, 0.3), (0.5, 1.0)])
def test_firings_are_those_of_the_published_loop(threshold, tail):
    draw = torch.Generator().manual_seed(0)
    for length in (1, 2, 7, 40):
        alpha = torch.rand(length, generator=draw)
        expected, starts = by_hand(alpha.tolist(), threshold, tail)
        shares, found = fire(alpha, threshold, tail)
        torch.testing.assert_close(shares, expected, atol=1e-5, rtol=1e-5)
        assert found == starts


def test_the_rest_fires_from_the_tail_on_and_is_filled_up():
    shares, _ = fire(torch.tensor([0.6, 0.6, 0.4]), 1.0, 0.5)
    torch.testing.assert_close(shares, torch.tensor([[0.6, 0.4, 0.0], [0.0, 1 / 3, 2 / 3]]))
    assert fire(torch.tensor([0.6, 0.6, 0.2]), 1.0, 0.5)[0].shape[0] == 1


def test_an_item_that_never_fires_gives_one_row():
    shares, starts = fire(torch.tensor([0.02, 0.06]), 1.0, 0.5)
    torch.testing.assert_close(shares, torch.tensor([[0.25, 0.75]]))
    assert starts == [0]


@pytest.mark.parametrize("count", [1, 3, 25])
def test_scaled_weights_fire_as_often_as_the_answer_is_long(count):
    alpha = torch.rand(10, generator=torch.Generator().manual_seed(0))
    shares, starts = fire(alpha, 1.0, 0.5, count)
    assert shares.shape == (count, 10) and len(starts) == count
    torch.testing.assert_close(shares.sum(1), torch.ones(count))
    torch.testing.assert_close(shares.sum(0), alpha * count / alpha.sum())


def test_the_gradient_of_the_weights_is_the_slope():
    alpha = torch.tensor([0.2, 0.9, 0.6, 0.7, 0.4], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda a: fire(a, 1.0, 0.5)[0], (alpha,))
    torch.autograd.gradcheck(lambda a: fire(a, 1.0, 0.5, 4)[0], (alpha,))


def test_rows_are_the_shared_sums_mapped_and_keep_their_start_in_time():
    part, packed = small().eval(), items(9)
    alpha = part.weights(packed)
    shares, starts = fire(alpha, 1.0, 0.5)
    out = part(packed, Context())
    torch.testing.assert_close(out.x, part.map(part.norm(shares @ packed.x)))
    assert out.shapes == (Shape(len(starts), times=tuple(0.02 * start for start in starts)),)


def test_a_known_answer_decides_in_training_and_not_afterwards():
    part, packed = small(), items(9, 5, 7)
    context = Context(answers=[2, 11, 0])
    natural = part(packed, Context()).lengths
    assert part(packed, context).lengths == [2, 11, natural[2]]
    assert part.eval()(packed, context).lengths == natural
    assert all(n >= 1 for n in natural)


def test_quantity_is_the_distance_of_unscaled_firings_from_the_answer():
    part, packed = small(quantity=0.3), items(9, 5)
    sums = [float(weights.sum().detach()) for weights in part.weights(packed).split([9, 5])]
    loss = part(packed, Context(answers=[2, 0])).losses["quantity"]
    assert float(loss.total.detach()) == pytest.approx(abs(sums[0] - 2), rel=1e-5)
    assert (float(loss.count), loss.weight, loss.is_coupled) == (1.0, 0.3, False)
    assert part(packed, Context(answers=[0, 0])).losses == {} and part(packed, Context()).losses == {}


def test_training_on_quantity_makes_it_fire_as_often_as_the_answer_is_long():
    part, packed = small(), items(12, 8)
    optimizer = torch.optim.Adam(part.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        part(packed, Context(answers=[9, 6])).losses["quantity"].total.backward()
        optimizer.step()
    assert part.eval()(packed, Context()).lengths == [9, 6]


def test_what_follows_an_item_in_the_batch_does_not_reach_its_weights():
    part, packed = small(kernel=5).eval(), items(3, 8)
    torch.testing.assert_close(part.weights(packed)[:3], part.weights(packed.singles()[0]))


def test_the_number_of_rows_is_not_known_from_a_shape():
    with pytest.raises(ShapeError, match="late part"):
        small().out_shape(Shape(5))
    assert CIF.is_late


def test_answers_must_be_one_an_item():
    with pytest.raises(ShapeError, match="1 lengths of answers for 2 items"):
        small()(items(3, 4), Context(answers=[2]))


@pytest.mark.parametrize("options", [{"kernel": 4}, {"threshold": 0.0}, {"tail": 1.5}, {"quantity": -1.0}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigError):
        small(**options)
