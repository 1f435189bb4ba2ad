"""Each item's rows become `tokens` weighted means; the weights are learned from the rows themselves."""

import torch
from torch import nn

from omniloom.projectors import Context, Projector
from omniloom.sequence import Packed, Shape


class WeightedMean(Projector):
    """(S, in_dim) to (items * tokens, out_dim)."""

    def __init__(self, in_dim: int, out_dim: int, *, tokens: int = 4) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.tokens = in_dim, out_dim, tokens
        self.score = nn.Linear(in_dim, tokens, bias=False)  # a bias would cancel in the softmax
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, packed: Packed, context: Context) -> Packed:
        rows = [item.to(self.map.weight) for item in packed.items()]
        means = [self.score(item).softmax(0).T @ item for item in rows]
        return Packed(self.map(torch.cat(means)), tuple(self.out_shape(shape) for shape in packed.shapes))

    def out_shape(self, shape: Shape) -> Shape:
        return Shape(self.tokens)
