"""Gated cross-attention in front of layers, against its formula written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from omniloom.errors import ConfigError
from omniloom.interaction.base import SlotFacts
from omniloom.interaction.cross_attention import CrossAttentionBlock, CrossAttentionWeights, TokenGate
from omniloom.interaction.sides import Sides
from tests.interaction.laws import model_with


def block_of(gate="tanh", reads="all", ffn=2, heads=1, is_shared=False):
    torch.manual_seed(0)
    weights = CrossAttentionWeights(6, heads, ffn, gate == "token")
    block = CrossAttentionBlock("a", 0, weights, 6, is_shared=is_shared, gate=gate, reads=reads)
    for value in (*block.parameters(), *weights.parameters()):
        nn.init.normal_(value, std=0.5)
    return block, weights


def facts_of(slots, rows, start, item=None):
    whole = torch.zeros(1, len(rows), dtype=torch.long)
    item = torch.arange(len(rows))[None] if item is None else torch.tensor([item])
    sides = Sides(rows[None], whole, torch.tensor([start]), item, whole + 1)
    slot = torch.arange(slots)[None]
    return SlotFacts(torch.zeros_like(slot), torch.zeros_like(slot), slot, sides={"a": sides})


@pytest.mark.parametrize("heads", [1, 3])
def test_a_block_is_gated_attention_and_then_a_gated_feed_forward(heads):
    block, weights = block_of(heads=heads)
    hidden, rows = torch.randn(1, 4, 6), torch.randn(3, 6)
    out = block(hidden, facts_of(4, rows, [0, 0, 0]))[0]
    x = block.norm(hidden[0])
    query, key, value = weights.query(x), weights.key(rows), weights.value(rows)
    size = 6 // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        mixed.append((query[:, part] @ key[:, part].T / size**0.5).softmax(-1) @ value[:, part])
    expected = hidden[0] + block.gate.tanh() * weights.out(torch.cat(mixed, -1))
    inner = weights.ffn_down(F.gelu(weights.ffn_up(block.ffn_norm(expected))))
    torch.testing.assert_close(out, expected + block.ffn_gate.tanh() * inner)


def test_a_slot_that_sees_no_row_gets_exactly_nothing_of_the_feed_forward_neither():
    block, _ = block_of()
    hidden = torch.randn(1, 4, 6)
    out = block(hidden, facts_of(4, torch.randn(2, 6), [2, 3]))
    assert torch.equal(out[:, :2], hidden[:, :2]) and bool((out != hidden).any(-1)[:, 2:].all())
    assert torch.equal(block(hidden, None), hidden)
    assert torch.equal(block(hidden, SlotFacts(*[torch.zeros(1, 4, dtype=torch.long)] * 3)), hidden)


def test_only_the_last_item_before_a_slot_is_read_or_all_of_them():
    """Two items of two and one rows; slot 3 stands behind both."""
    rows = torch.randn(3, 6)
    start, item = [0, 0, 2], [0, 0, 1]
    hidden = torch.randn(1, 4, 6)
    last, _ = block_of(reads="last")
    out = last(hidden, facts_of(4, rows, start, item))
    alone = last(hidden, facts_of(4, rows[2:], [2], [1]))
    torch.testing.assert_close(out[:, 2:], alone[:, 2:])
    torch.testing.assert_close(out[:, :2], last(hidden, facts_of(4, rows[:2], [0, 0], [0, 0]))[:, :2])
    whole, _ = block_of(reads="all")
    assert not torch.allclose(whole(hidden, facts_of(4, rows, start, item))[:, 2:], out[:, 2:])


def test_the_token_gate_shuts_each_channel_by_what_was_attended():
    gate = TokenGate(16)
    x = torch.randn(3, 16)
    expected = x / (1 + torch.exp(4 - F.relu(x @ gate.down.weight.T) @ gate.up.weight.T))
    torch.testing.assert_close(gate(x), expected)
    assert gate.down.weight.shape == (2, 16)
    block, weights = block_of(gate="token", ffn=0)
    nn.init.zeros_(weights.out.weight)
    hidden = torch.randn(1, 4, 6)
    assert torch.equal(block(hidden, facts_of(4, torch.randn(2, 6), [0, 0])), hidden)


def test_shared_projections_are_one_set_beside_gates_and_norms_of_every_layer(omni_folder):
    spec = {"type": "cross_attention", "inputs": ["image"], "every": 1, "heads": 4, "ffn": 2}
    own, shared = (model_with(omni_folder, a={**spec, "shared": on}).components()["a"] for on in (False, True))
    count = {name: sum(value.numel() for value in values.values()) for name, values in (("own", own), ("one", shared))}
    weights = 4 * 32 * 32 + 2 * 2 * 32 * 32
    layer = 2 * (2 * 32) + 2
    assert count == {"own": 2 * (weights + layer), "one": weights + 2 * layer}
    assert sum(name.startswith("adapters.a.") for name in shared) == 6


@pytest.mark.parametrize(("every", "layers"), [(1, ["0", "1"]), (2, ["1"])])
def test_blocks_stand_in_front_of_every_nth_layer(omni_folder, every, layers):
    model = model_with(omni_folder, a={"type": "cross_attention", "inputs": ["image"], "every": every})
    names = model.components()["a"]
    assert sorted({name.split("layers.")[1][0] for name in names}) == layers


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"inputs": []}, "needs `inputs`"),
        ({"inputs": ["nothing"]}, "reads 'nothing'"),
        ({"inputs": ["image"], "every": 0}, "every and heads of at least one"),
        ({"inputs": ["image"], "every": 3}, "acts in no layer"),
        ({"inputs": ["image"], "heads": 5, "every": 1}, "5 heads, which do not divide the width 32"),
        ({"inputs": ["image", "image"]}, "image, image: one of them twice"),
        ({"inputs": ["image"], "gate": "relu"}, "'gate' is 'relu'.*'tanh', 'token'"),
        ({"inputs": ["image"], "reads": "first"}, "'reads' is 'first'.*'last', 'all'"),
    ],
    ids=str,
)
def test_an_adapter_that_means_nothing_is_refused(omni_folder, spec, message):
    with pytest.raises(ConfigError, match=message):
        model_with(omni_folder, a={"type": "cross_attention", **spec})
