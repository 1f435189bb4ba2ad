from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omniloom.errors import ConfigError
from omniloom.layers import Attention, Block


def test_masked_keys_change_nothing():
    block, rows = Block(8, 2), torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, True, False, False]])
    noisy = torch.where(mask[..., None], rows, 100.0)
    torch.testing.assert_close(block(rows, mask)[:, :3], block(noisy, mask)[:, :3])
    torch.testing.assert_close(block(rows, mask)[:, :3], block(rows[:, :3]))


def test_masked_memory_changes_nothing():
    block, rows, memory = Block(8, 2, memory_width=6), torch.randn(1, 3, 8), torch.randn(1, 4, 6)
    mask = torch.tensor([[True, True, False, False]])
    out = block(rows, memory=memory, memory_mask=mask)
    torch.testing.assert_close(out, block(rows, memory=memory[:, :2]))


def test_attention_without_a_mask_is_the_textbook_formula():
    part, x = Attention(4, 1), torch.randn(1, 3, 4)
    query, key, value = part.query(x)[0], part.key(x)[0], part.value(x)[0]
    expected = part.out(torch.softmax(query @ key.T / 2.0, -1) @ value)
    torch.testing.assert_close(part(x)[0], expected)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="multiple"):
        Attention(10, 4)


def test_a_mask_for_each_query_hides_keys_from_that_query_alone():
    part, x = Attention(8, 2), torch.randn(1, 3, 8)
    mask = torch.ones(3, 3, dtype=torch.bool).tril()[None]
    out = part(x, key_mask=mask)
    for last in range(3):
        torch.testing.assert_close(out[:, last], part(x[:, : last + 1])[:, last])


def test_cosine_scores_do_not_change_with_the_size_of_the_rows():
    part, memory = Attention(8, 2, is_cosine=True), torch.randn(1, 4, 8)
    part.query.bias.data.zero_()
    x = torch.randn(1, 3, 8)
    torch.testing.assert_close(part(x, memory), part(100 * x, memory))
    assert not torch.allclose(Attention(8, 2)(x, memory), part(x, memory))


def test_cosine_scores_start_at_ten_times_the_cosine():
    part, x = Attention(4, 1, is_cosine=True), torch.randn(1, 3, 4)
    query, key, value = (F.normalize(part.query(x)[0], dim=-1), F.normalize(part.key(x)[0], dim=-1), part.value(x)[0])
    torch.testing.assert_close(part(x)[0], part.out(torch.softmax(10 * query @ key.T, -1) @ value))


def test_positions_of_keys_leave_the_values_as_they_are():
    part, x, positions = Attention(4, 1), torch.randn(1, 3, 4), torch.randn(3, 4)
    query, key, value = part.query(x)[0], part.key(x + positions)[0], part.value(x)[0]
    expected = part.out(torch.softmax(query @ key.T / 2.0, -1) @ value)
    torch.testing.assert_close(part(x, key_positions=positions)[0], expected)


def test_an_adapter_adds_to_the_map_it_is_named_for():
    part, x = Attention(4, 1), torch.randn(1, 3, 4)
    added = torch.nn.Linear(4, 4, bias=False)
    with_it = part(x, adapters={"value": added})
    part.value.weight.data += added.weight.data
    torch.testing.assert_close(with_it, part(x))


def test_the_adapters_of_a_block_reach_self_attention_and_cross_attention():
    block, x, memory = Block(4, 2, memory_width=6), torch.randn(1, 3, 4), torch.randn(1, 5, 6)
    inner, cross = torch.nn.Linear(4, 4), torch.nn.Linear(6, 4)
    adapters = {"attention.query": inner, "cross.value": cross}
    rows = block.attention_norm(x)
    expected = x + block.attention(rows, adapters={"query": inner})
    torch.testing.assert_close(block.attend(x, adapters=adapters), expected)
    expected = x + block.cross(block.cross_norm(x), memory, adapters={"value": cross})
    torch.testing.assert_close(block.read(x, memory, adapters=adapters), expected)
