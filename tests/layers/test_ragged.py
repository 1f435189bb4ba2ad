from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from omniloom.layers import by_shape, halved, in_stacks, pad_rows


@given(st.lists(st.integers(1, 3), min_size=1, max_size=8))
def test_grouping_by_shape_loses_and_reorders_nothing(lengths):
    tensors = [torch.full((length, 2), float(index)) for index, length in enumerate(lengths)]
    seen = {}
    for indices, batch in by_shape(tensors):
        seen.update(zip(indices, batch, strict=True))
    assert sorted(seen) == list(range(len(lengths)))
    assert all(torch.equal(seen[index], tensor) for index, tensor in enumerate(tensors))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=8))
def test_stacks_of_equal_shape_give_one_result_a_tensor_in_order(lengths):
    tensors = [torch.full((length, 2), float(index)) for index, length in enumerate(lengths)]
    stacks = []

    def change(batch):
        stacks.append(len(batch))
        return 2 * batch

    changed = in_stacks(tensors, change)
    assert all(torch.equal(ours, 2 * tensor) for ours, tensor in zip(changed, tensors, strict=True))
    assert len(stacks) == len(set(lengths)) and sum(stacks) == len(lengths)


def test_padding_is_zero_behind_the_end():
    rows, lengths = pad_rows([torch.ones(1, 2), torch.ones(3, 2)])
    assert lengths.tolist() == [1, 3] and rows.sum(2).tolist() == [[2.0, 0.0, 0.0], [2.0, 2.0, 2.0]]


@given(st.integers(1, 200), st.integers(0, 4))
def test_halving_counts_what_strided_convolutions_leave(length, times):
    x = torch.zeros(1, 1, length)
    for _ in range(times):
        x = torch.nn.functional.conv1d(x, torch.zeros(1, 1, 3), stride=2, padding=1)
    assert halved(length, times) == x.shape[-1]
