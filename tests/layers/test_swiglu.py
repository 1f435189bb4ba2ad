from __future__ import annotations

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from omniloom.layers import SwiGLU


def test_it_is_the_feed_forward_of_llama_behind_its_norm():
    part, x = SwiGLU(8, 20), torch.randn(5, 8)
    norm, mlp = LlamaRMSNorm(8), LlamaMLP(LlamaConfig(hidden_size=8, intermediate_size=20, num_attention_heads=2))
    norm.weight = part.norm.weight = torch.nn.Parameter(torch.randn(8))
    mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight = (
        part.gate.weight,
        part.up.weight,
        part.down.weight,
    )
    torch.testing.assert_close(part(x), x + mlp(norm(x)))
