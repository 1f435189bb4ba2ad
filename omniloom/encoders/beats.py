"""BEATs, the encoder of general sound that most sound-hearing language models share.

Patches of a filter bank pass blocks whose attention knows distances, gated by the query itself, and whose residuals are
weighted to go deep. Parameters have the names of the published files, which hold pickles: convert one once with
`omniloom convert BEATs_iter3_plus_AS2M.pt FOLDER --key model`.

Source: BEATs (arXiv:2212.09058); gated relative positions, WavLM (arXiv:2110.13900); DeepNorm (arXiv:2203.00555). In
ChatBridge, X-InstructBLIP, CREMA, Uni-MoE, VideoLLaMA2, SALMONN, Ola ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from omniloom.encoders.base import Encoder
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, ShapeError
from omniloom.layers import in_stacks
from omniloom.registry import resolve_asset
from omniloom.sequence import Packed, Shape

__all__ = ["Beats"]


class Beats(Encoder):
    """Raw (F, num_mels) frames to a row for each patch, time after time, low to high: 8 rows each 160 ms.

    Frames come from the processor `filter_bank`. Sounds of different lengths run one after another, unpadded. Dropout
    is off.

    Args:
        id: folder with `model.safetensors`, or such a file, or `scheme:name` of the assets table.
        weights: False begins at random and reads no file.
        num_mels: M of the processor.
        width, depth, heads, hidden: of the blocks.
        stem_width: of the patches before them.
        patch: side of a patch, in frames and mels.
        reach: rows that the positional convolution sees, even; `groups` of its channels.
        buckets, distance: distances that are told apart, and from where on they are not.
    Raises:
        ConfigError: no `id` for weights, or sizes that do not fit each other.
        MissingAssetError: no such file.
        CheckpointError: a file of another model.
    """

    def __init__(
        self,
        *,
        id: str | None = None,
        weights: bool = True,
        num_mels: int = 128,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        stem_width: int = 512,
        patch: int = 16,
        reach: int = 128,
        groups: int = 16,
        buckets: int = 320,
        distance: int = 800,
    ) -> None:
        super().__init__()
        fits = depth >= 1 and num_mels >= patch >= 1 and reach % 2 == 0 and buckets % 4 == 0 and distance > buckets // 4
        if not fits or width % max(heads, 1) or width % max(groups, 1):
            raise ConfigError(
                f"Beats cannot have num_mels={num_mels}, width={width}, depth={depth}, heads={heads}, patch={patch}, "
                f"reach={reach}, groups={groups}, buckets={buckets}, distance={distance}; expected a width that heads "
                "and groups divide, an even reach, buckets in fours, and a distance above a quarter of them."
            )
        if weights and id is None:
            raise ConfigError("Beats needs the option 'id', a folder with model.safetensors; or set weights: false.")
        self.id, self.weights = id, weights
        self.num_mels, self.width, self.depth, self.heads, self.hidden = num_mels, width, depth, heads, hidden
        self.stem_width, self.patch, self.reach, self.groups = stem_width, patch, reach, groups
        self.buckets, self.distance = buckets, distance
        self.out_dim = width
        self.patch_embedding = nn.Conv2d(1, stem_width, patch, patch, bias=False)
        self.layer_norm = nn.LayerNorm(stem_width)
        self.post_extract_proj = nn.Linear(stem_width, width) if stem_width != width else nn.Identity()
        self.encoder = _Blocks(width, depth, heads, hidden, reach, groups, buckets, distance)
        if weights:
            _load(self, Path(resolve_asset(str(id))))

    def forward(self, raws: Sequence[Tensor]) -> Packed:
        """Rows in time order.

        Raises:
            ShapeError: no items, another number of mel bands, or fewer frames than a patch.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if raw.dim() != 2 or raw.shape[1] != self.num_mels or raw.shape[0] < 1:
                expected = f"(F, {self.num_mels}) frames"
                raise refuse_raw(self, index, raw, expected, "Use the processor 'filter_bank' of that num_mels.")
        shapes = [self.out_shape(Shape(raw.shape[0])) for raw in raws]
        return Packed.of(in_stacks(raws, self._encoded), shapes)

    def _encoded(self, frames: Tensor) -> Tensor:
        x = frames.to(self.patch_embedding.weight)[:, None]
        patches = self.patch_embedding(x).flatten(2).transpose(1, 2)
        rows: Tensor = self.encoder(self.post_extract_proj(self.layer_norm(patches)))
        return rows

    def out_shape(self, shape: Shape) -> Shape:
        """Whole patches on the grid (time, pitch, 1), each at the time of its first frame.

        Raises:
            ShapeError: fewer frames than a patch.
        """
        columns, pitches = shape.len // self.patch, self.num_mels // self.patch
        if columns < 1:
            raise ShapeError(f"Beats got {shape.len} frames; one row needs {self.patch}. Drop or pad the sound.")
        times = shape.times
        if times is not None:
            times = tuple(times[column * self.patch] for column in range(columns) for _ in range(pitches))
        return Shape(columns * pitches, (columns, pitches, 1), times)

    def minimal_raw(self) -> Tensor:
        """One patch of zeros."""
        return torch.zeros(self.patch, self.num_mels)


class _Blocks(nn.Module):
    """A convolution tells positions, then the blocks; distances are embedded once and gated by each block."""

    def __init__(
        self, width: int, depth: int, heads: int, hidden: int, reach: int, groups: int, buckets: int, distance: int
    ) -> None:
        super().__init__()
        conv = nn.Conv1d(width, width, reach, padding=reach // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (reach * width)))
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.pos_conv = nn.Sequential(nn.utils.parametrizations.weight_norm(conv, dim=2))
        self.layer_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Block(width, heads, hidden, depth, buckets * (not i)) for i in range(depth))
        self.buckets, self.distance = buckets, distance

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, width) to the same."""
        # An even kernel gives one row too many, at the end.
        positions = F.gelu(self.pos_conv(x.transpose(1, 2))[..., :-1]).transpose(1, 2)
        x = self.layer_norm(x + positions)
        bias = self._distances(x.shape[1], x.device)
        for layer in self.layers:
            x = layer(x, bias)
        return x

    def _distances(self, length: int, device: torch.device) -> Tensor:
        """(H, L, L): half of the buckets for each direction, half of those for single steps, the rest in logarithms."""
        table: Any = self.layers[0].self_attn.relative_attention_bias  # type: ignore[union-attr]
        places = torch.arange(length, device=device)
        steps = places[None] - places[:, None]
        half, exact = self.buckets // 2, self.buckets // 4
        far = (steps.abs().clamp(min=1).float() / exact).log() / math.log(self.distance / exact) * (half - exact)
        bucket = torch.where(steps.abs() < exact, steps.abs(), (exact + far.long()).clamp(max=half - 1))
        biases: Tensor = table(bucket + (steps > 0) * half)
        return biases.permute(2, 0, 1)


class _Block(nn.Module):
    """Attention and an MLP, normed after each residual; `depth` weights the residuals."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int, buckets: int) -> None:
        super().__init__()
        self.alpha = (2 * depth) ** 0.25
        self.self_attn = _Attention(width, heads, buckets)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)
        gain = (8 * depth) ** -0.25
        for layer in (self.self_attn.v_proj, self.self_attn.out_proj, self.fc1, self.fc2):
            nn.init.xavier_normal_(layer.weight, gain=gain)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, L, width) to the same; `bias` (H, L, L)."""
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, bias))
        return self.final_layer_norm(self.alpha * x + self.fc2(F.gelu(self.fc1(x))))


class _Attention(nn.Module):
    """Multi-head attention; how much distances count, each query says by two gates. `buckets` 0 has no table."""

    def __init__(self, width: int, heads: int, buckets: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))
        if buckets:
            self.relative_attention_bias = nn.Embedding(buckets, heads)
            nn.init.normal_(self.relative_attention_bias.weight, std=0.02)
        for layer in (self.q_proj, self.k_proj):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, L, width) to the same; `bias` (H, L, L)."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        update, reset = self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, -1)
        gate = update * (reset * self.grep_a - 1) + 2
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=gate * bias.to(gate))
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _load(part: Beats, place: Path) -> None:
    file = place if place.suffix == ".safetensors" else place / "model.safetensors"
    if not file.is_file():
        raise MissingAssetError(
            f"no BEATs weights at {file}. Convert a published file by `omniloom convert FILE.pt FOLDER --key model`, "
            "or set weights: false."
        )
    conv = "encoder.pos_conv.0."
    named = {
        f"{conv}weight_g": f"{conv}parametrizations.weight.original0",
        f"{conv}weight_v": f"{conv}parametrizations.weight.original1",
    }
    # Published files repeat the one table of distances for every block, and finetuned ones hold a classifier.
    found = {
        named.get(name, name): value
        for name, value in load_file(file).items()
        if not name.startswith("predictor.")
        and not (name.endswith("relative_attention_bias.weight") and ".layers.0." not in name)
    }
    try:
        part.load_state_dict(found, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{file} holds another network than this BEATs: {error}") from error
