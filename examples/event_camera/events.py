"""An event camera: a pixel speaks only when its brightness changes, so motion is all it sees.

Payload: points (x px, y px, t s), one feature: the sign of the change. One row per window of time comes out."""

import torch
from torch import Tensor, nn

from omniloom.encoders import Encoder, Processor
from omniloom.layers import by_shape
from omniloom.sequence import Packed, Shape


class EventFrames(Processor):
    """Events to raw (T, 2, Y, X): how often each pixel grew darker and brighter in each window, as log(1 + count)."""

    payload_kind = "points"

    def __init__(self, *, sensor_px: int = 32, window_s: float = 0.05):
        self.sensor_px, self.window_s = sensor_px, window_s

    def __call__(self, payload, rng: torch.Generator | None = None) -> Tensor:
        xyt = torch.from_numpy(payload.xyz.copy())
        x, y = xyt[:, :2].long().clamp(0, self.sensor_px - 1).T
        window = ((xyt[:, 2] - xyt[:, 2].min()) / self.window_s).long()
        brighter = torch.from_numpy(payload.features[:, 0] > 0).long()
        counts = torch.zeros(int(window.max()) + 1, 2, self.sensor_px, self.sensor_px)
        return counts.index_put_((window, brighter, y, x), torch.ones(len(x)), accumulate=True).log1p()

    def shape(self, raw: Tensor) -> Shape:
        return Shape(len(raw), times=tuple(index * self.window_s for index in range(len(raw))))


class EventConv(Encoder):
    """Raw (T, 2, Y, X) to T rows: convolutions over space and time, averaged over space."""

    def __init__(self, *, width: int = 64):
        super().__init__()
        self.width = self.out_dim = width
        self.motion = nn.Conv3d(2, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3))
        self.mixing = nn.Conv3d(width, width, (3, 3, 3), stride=(1, 2, 2), padding=1)
        self.norm = nn.LayerNorm(width)

    def forward(self, raws) -> Packed:
        rows = [raws[0]] * len(raws)
        for indices, batch in by_shape(raws):  # items of one length together, so nothing needs a mask
            x = nn.functional.gelu(self.motion(batch.to(self.motion.weight).transpose(1, 2)))
            x = nn.functional.gelu(self.mixing(x)).mean((-2, -1)).transpose(1, 2)
            for index, item in zip(indices, self.norm(x), strict=True):
                rows[index] = item
        return Packed.of(rows)

    def out_shape(self, shape: Shape) -> Shape:
        return shape

    def minimal_raw(self) -> Tensor:
        return torch.zeros(1, 2, 4, 4)


SLOTS = {"max": 8, "over": "resample"}
MODALITY = dict(payload="points", processor=EventFrames, encoder=EventConv, projector="mlp", slots=SLOTS)
