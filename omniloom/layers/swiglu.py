"""The gated feed-forward of LLaMA-style blocks.

Source: SwiGLU, arXiv:2002.05202; in projectors, the bind network of ImageBind-LLM (arXiv:2309.03905) and the experts of
OneLLM (arXiv:2312.03700).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SwiGLU"]


class SwiGLU(nn.Module):
    """x + down(silu(gate(n)) * up(n)) with n the RMS norm of x: (..., width) to the same, `hidden` wide inside."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Each row alone."""
        rows = self.norm(x)
        return x + self.down(F.silu(self.gate(rows)) * self.up(rows))
