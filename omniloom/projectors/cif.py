"""As many rows as there are words: each row of an item adds to a sum that fires whenever it is full.

Source: continuous integrate-and-fire (arXiv:1905.11235), as X-LLM (arXiv:2305.04160) shortens speech to about the rate
of text. How often it fires is learned, so nobody knows the number of rows before the part has run.
"""

from __future__ import annotations

from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omniloom.errors import ConfigError, ShapeError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.sequence import Auxiliary, Packed, Shape

__all__ = ["CIF"]


class CIF(Projector):
    """(S, in_dim) to (S', out_dim); an item becomes one row a firing, at least one. A late part.

    Each row gets a weight between 0 and 1 from itself and its neighbours. Weights are added up along the item; whenever
    `threshold` is reached, the rows since the last firing are summed by their weights, the row at the border shared
    between both sides, and the sum is mapped to out_dim. What is left at the end fires if it is worth `tail` of a
    threshold, filled up to a whole one; an item that never fires gives that one row, whatever is left.

    In training, weights of an item with a known answer are scaled to as many firings as its answer has tokens, and the
    loss "quantity", the distance of the unscaled firings from that number, teaches the weights to do without.

    Args:
        kernel: rows that a weight looks at, an odd number.
        width: channels of the convolution that makes the weights.
        threshold: sum of weights that fires.
        tail: part of a threshold that the end of an item must reach to fire.
        quantity: weight of the loss "quantity"; 0 for none.
    Raises:
        ConfigError: an even kernel, no width, a threshold or a tail outside of (0, 1], or a negative weight.
    """

    is_late = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        kernel: int = 3,
        width: int = 256,
        threshold: float = 1.0,
        tail: float = 0.5,
        quantity: float = 1.0,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0 or width < 1:
            raise ConfigError(f"CIF needs an odd kernel and a width, got kernel={kernel}, width={width}.")
        if not 0 < threshold <= 1 or not 0 < tail <= 1 or quantity < 0:
            raise ConfigError(
                f"CIF needs a threshold and a tail above 0 and up to 1, and a quantity of at least 0; "
                f"got {threshold}, {tail}, {quantity}."
            )
        self.in_dim, self.out_dim = in_dim, out_dim
        self.kernel, self.width, self.threshold, self.tail, self.quantity = kernel, width, threshold, tail, quantity
        self.input_norm = nn.LayerNorm(in_dim)
        self.conv = nn.Conv1d(in_dim, width, kernel, padding=kernel // 2)
        self.alpha = nn.Linear(width, 1)
        self.norm = nn.LayerNorm(in_dim)
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Fired rows of every item, in order, each at the time of the row it starts with.

        Raises:
            ShapeError: answers are given, but not one an item.
        """
        require_width(self, packed)
        if context.answers and len(context.answers) != len(packed):
            raise ShapeError(f"CIF got {len(context.answers)} lengths of answers for {len(packed)} items.")
        x = packed.x.to(self.map.weight)
        answers = context.answers or [0] * len(packed)
        fired: list[Tensor] = []
        shapes: list[Shape] = []
        misses: list[Tensor] = []
        weights = self.weights(Packed(x, packed.shapes)).split(packed.lengths)
        for rows, alpha, shape, answer in zip(x.split(packed.lengths), weights, packed.shapes, answers, strict=True):
            if answer > 0:
                misses.append((alpha.sum() / self.threshold - answer).abs())
            count = answer if self.training else 0
            shares, starts = fire(alpha, self.threshold, self.tail, count)
            fired.append(shares.to(rows) @ rows)
            times = None if shape.times is None else tuple(shape.times[start] for start in starts)
            shapes.append(Shape(len(starts), times=times))
        losses = {}
        if misses and self.quantity:
            total = torch.stack(misses).sum()
            losses["quantity"] = Auxiliary(total, total.new_tensor(len(misses)), weight=self.quantity)
        return Packed(self.map(self.norm(torch.cat(fired))), tuple(shapes), losses=losses)

    def out_shape(self, shape: Shape) -> NoReturn:
        """Refused: only `forward` knows.

        Raises:
            ShapeError: always.
        """
        raise ShapeError(
            "CIF is a late part: how many rows an item becomes is known after forward(), not from its shape. "
            "Project the item first and plan with the shape of its rows."
        )

    def weights(self, packed: Packed) -> Tensor:
        """The (S,) float32 weights of rows; an item's end is silence to the convolution, whatever follows it."""
        padded, mask = packed.padded()
        rows = self.input_norm(padded) * mask[..., None]
        seen = F.relu(self.conv(rows.transpose(1, 2))).transpose(1, 2)
        # In float32: a sum of 1,500 weights in bfloat16 is off by several firings.
        alpha: Tensor = self.alpha(seen)[..., 0].float().sigmoid()
        return alpha[mask]


def fire(alpha: Tensor, threshold: float, tail: float, count: int = 0) -> tuple[Tensor, list[int]]:
    """Who takes part in which firing: (firings, T) shares of T weights, and the row that each firing starts with.

    Firing j collects the sum of weights from j to j + 1 thresholds, so the share of a row is how much of its own piece
    of the sum lies there. `count` above 0 scales the weights to that many firings; else the sum decides.
    """
    if count > 0:
        alpha = alpha * (count * threshold / alpha.sum())
    end = alpha.cumsum(0)
    full = float(end[-1].detach()) / threshold
    firings = count or max(1, int(full) + (full - int(full) >= tail))
    borders = threshold * torch.arange(firings, device=alpha.device, dtype=alpha.dtype)[:, None]
    shares = (torch.minimum(end, borders + threshold) - torch.maximum(end - alpha, borders)).clamp(min=0)
    if not count and firings > full:
        filled = shares[-1:] * (threshold / shares[-1].sum())
        shares = torch.cat([shares[:-1], filled])
    starts = torch.searchsorted(end.detach(), borders[:, 0], right=True).clamp(max=len(alpha) - 1)
    return shares, starts.tolist()
