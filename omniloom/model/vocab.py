"""Rows of the extended vocabulary: embeddings and output rows of every code, beside the frozen language model's own.

Source: separate embedding and output matrices for non-text tokens, TEAL (arXiv:2311.04589); initialised at the mean
of the text rows, as in NExT-GPT (arXiv:2309.05519).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["VocabRows"]


class VocabRows(nn.Module):
    """`embedding` and `head`: (N, D) float32, for the N ids behind the `base_size` ids of the language model."""

    def __init__(self, base_size: int, size: int, text_embedding: Tensor, text_head: Tensor) -> None:
        super().__init__()
        self.base_size = base_size
        width = text_embedding.shape[1]
        self.embedding = nn.Parameter(torch.empty(size, width))
        self.head = nn.Parameter(torch.empty(size, width))
        if text_embedding.device.type == "meta":
            return
        with torch.no_grad():
            table = text_embedding.float()
            self.embedding.copy_(table.mean(0) + torch.randn(size, width) * table.std(0) * 0.5)
            self.head.copy_(text_head.float().mean(0).expand(size, -1))

    def embed(self, ids: Tensor) -> Tensor:
        """(N,) ids of the extended vocabulary -> (N, D)."""
        return self.embedding[ids - self.base_size]

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, D) hidden -> (N, size) logits in the dtype of the rows."""
        return hidden.to(self.head.dtype) @ self.head.T
