"""Interactions that transformers' own classes have too, on the same weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, MixtralConfig
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from omniloom.interaction.base import HookContext, SlotFacts
from omniloom.interaction.deepstack import StackedRows
from omniloom.interaction.moe_ffn import MoEFFN, SparseExperts
from omniloom.interaction.taps import Placed

_SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def mixtures():
    """(Mixtral's own block, ours with its weights)."""
    torch.manual_seed(0)
    config = MixtralConfig(**_SIZES, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
    theirs = MixtralSparseMoeBlock(config).eval()
    for value in theirs.parameters():
        nn.init.normal_(value, std=0.3)
    ours = SparseExperts(
        MoEFFN(experts=4, top_k=2, balance=0.5), "a", 0, LlamaMLP(LlamaConfig(**_SIZES)), 16, HookContext()
    )
    with torch.no_grad():
        ours.router.copy_(theirs.gate.weight)
        for number, expert in enumerate(ours.experts):
            gate, up = theirs.experts.gate_up_proj[number].chunk(2)
            expert.gate_proj.weight.copy_(gate)
            expert.up_proj.weight.copy_(up)
            expert.down_proj.weight.copy_(theirs.experts.down_proj[number])
    return theirs, ours


def test_sparse_experts_are_mixtrals(mixtures):
    theirs, ours = mixtures
    hidden = torch.randn(3, 7, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(hidden, nn.Identity(), None), theirs(hidden), atol=1e-5, rtol=1e-5)


def test_the_balance_is_that_of_mixtral_for_each_choice(mixtures):
    """transformers counts a slot's two choices as two, so its shares sum to 2."""
    theirs, ours = mixtures
    hidden, real = torch.randn(2, 7, 16), torch.ones(2, 7, dtype=torch.long)
    real[1, 4:] = 0
    document = torch.where(real == 1, 0, -1)
    ours(hidden, nn.Identity(), SlotFacts(document, document, document))
    logits = hidden.view(-1, 16) @ theirs.gate.weight.T
    expected = load_balancing_loss_func((logits,), 4, 2, real) / 2
    (loss,) = ours.context.losses.values()
    torch.testing.assert_close(loss.total / loss.count, expected)


def test_rows_behind_a_layer_are_added_as_qwen3_vl_adds_them():
    torch.manual_seed(0)
    hidden, rows = torch.randn(2, 9, 16), torch.randn(5, 16)
    seen = torch.zeros(2, 9, dtype=torch.bool)
    seen[0, 2:4] = seen[1, 5:8] = True
    row, slot = seen.nonzero(as_tuple=True)
    zeros = torch.zeros(2, 9, dtype=torch.long)
    facts = SlotFacts(zeros, zeros, torch.arange(9).expand(2, 9), sides={"a": {1: Placed(rows, row, slot)}})
    expected = Qwen3VLTextModel._deepstack_process(SimpleNamespace(), hidden, seen, rows)
    assert torch.equal(StackedRows("a", 1, gated=False)(hidden, facts), expected)
