from __future__ import annotations

import pytest
import torch

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
