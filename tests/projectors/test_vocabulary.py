from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors import Context, vocabulary
from omniloom.projectors.vocabulary import VocabularyAttention
from omniloom.sequence import Packed


def small():
    torch.manual_seed(0)
    return VocabularyAttention(5, 8, heads=2), torch.randn(30, 8), torch.randn(7, 5)


def test_it_is_attention_with_the_table_as_keys_and_values():
    part, table, rows = small()
    expected = part.attention(part.map(rows)[None], table[None])[0]
    torch.testing.assert_close(part(Packed.of([rows]), Context(embedding=table)).x, expected)


@pytest.mark.parametrize("held", [1, 60, 100])
def test_taking_rows_in_turns_changes_neither_rows_nor_gradients(held, monkeypatch):
    part, table, rows = small()
    table.requires_grad_()

    def run():
        part.zero_grad()
        table.grad = None
        out = part(Packed.of([rows]), Context(embedding=table)).x
        out.square().sum().backward()
        return [out.detach(), table.grad, *(p.grad for p in part.parameters())]

    whole = run()
    monkeypatch.setattr(vocabulary, "_SCORES", held)
    for turned, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(turned, expected)


def test_a_vocabulary_of_150_000_tokens_is_read_without_another_table():
    torch.manual_seed(0)
    part, table = VocabularyAttention(4, 8, heads=2), torch.randn(150_000, 8)
    largest = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() != table.untyped_storage().data_ptr():
                largest.append(out.numel())
            return out

    with Watch(), torch.no_grad():
        out = part(Packed.of([torch.randn(3, 4)]), Context(embedding=table)).x
    assert out.shape == (3, 8) and max(largest) == 3 * 2 * 150_000


def test_without_a_table_it_says_what_it_needs():
    part, _, rows = small()
    with pytest.raises(ConfigError, match="embedding table"):
        part(Packed.of([rows]), Context())


def test_a_table_of_another_width_is_refused():
    part, _, rows = small()
    with pytest.raises(ShapeError, match=r"\(30, 9\); expected \(V, 8\)"):
        part(Packed.of([rows]), Context(embedding=torch.zeros(30, 9)))
