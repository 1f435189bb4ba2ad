"""Rows drawn towards known ones of another modality, without training: each is mixed with its nearest prototypes.

A model aligned on one modality answers to another through a shared space, but the spaces meet only roughly; prototypes
of the modality it was trained on close the gap. Source: the visual cache of ImageBind-LLM (arXiv:2309.03905):
10 neighbours, temperature 20, weight 0.5, three million prototypes; also in MuMu-LLaMA (arXiv:2412.06660).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, ShapeError
from omniloom.projectors.base import Context, Projector
from omniloom.projectors.width import require_width
from omniloom.registry import resolve_asset
from omniloom.sequence import Packed, Shape

__all__ = ["Prototypes"]

_FILE = "prototypes.safetensors"


class Prototypes(Projector):
    """(S, in_dim) rows f to (1 - w) f + w p, p = sum softmax(T cos) of the nearest prototypes; `out_dim` is `in_dim`.

    Prototypes come from a file, or from `remember()`; they are saved with the part and never trained. A part without
    any refuses to run.

    Args:
        id: a safetensors file with one (N, in_dim) tensor, a folder with it as prototypes.safetensors, or a
            `scheme:name` of the assets table; None: start with none.
        count: prototypes there is room for.
        neighbours: how many are mixed; fewer where there are not as many.
        temperature: T, of the softmax over cosines.
        weight: w, of the prototypes.
        normalize: p and the result have length one, as in ImageBind-LLM; its rows have as well.
        weights: False starts with none, whatever `id` says.
    Raises:
        ConfigError: a count below one, or a weight outside of 0 to 1.
        MissingAssetError: no such file.
        CheckpointError: a file that holds no prototypes of this width, or too many.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        id: str | None = None,
        count: int = 1024,
        neighbours: int = 10,
        temperature: float = 20.0,
        weight: float = 0.5,
        normalize: bool = True,
        weights: bool = True,
    ) -> None:
        super().__init__()
        if min(count, neighbours) < 1 or not 0.0 <= weight <= 1.0:
            raise ConfigError(
                "Prototypes needs a count and neighbours of at least one and a weight from 0 to 1, got "
                f"{count}, {neighbours} and {weight}."
            )
        self.in_dim, self.out_dim = in_dim, in_dim
        self.id, self.count, self.neighbours, self.temperature = id, count, neighbours, temperature
        self.weight, self.normalize, self.weights = weight, normalize, weights
        self.prototypes: Tensor
        self.known: Tensor
        self.register_buffer("prototypes", torch.zeros(count, in_dim))
        self.register_buffer("known", torch.zeros((), dtype=torch.long))
        if id is not None and weights:
            self.remember(_read(id, in_dim, count))

    @torch.no_grad()
    def remember(self, rows: Tensor) -> None:
        """Add (N, in_dim) prototypes to those it has.

        Raises:
            ShapeError: rows of another width, or more than there is room for.
        """
        if rows.dim() != 2 or rows.shape[1] != self.in_dim:
            raise ShapeError(f"Prototypes got rows {tuple(rows.shape)} to remember; expected (N, {self.in_dim}).")
        if self.prototypes.is_meta:
            return
        known = int(self.known)
        if known + rows.shape[0] > self.count:
            raise ShapeError(
                f"Prototypes has {known} of {self.count} and got {rows.shape[0]} more to remember. Raise `count`."
            )
        self.prototypes[known : known + rows.shape[0]] = rows.to(self.prototypes)
        self.known += rows.shape[0]

    def forward(self, packed: Packed, context: Context) -> Packed:
        """Each row mixed by itself; shapes stay.

        Raises:
            ConfigError: it has no prototypes.
        """
        require_width(self, packed)
        known = int(self.known)
        if not known:
            raise ConfigError("Prototypes has none to mix rows with. Give a file as `id`, or call remember() first.")
        x = packed.x.to(self.prototypes)
        prototypes = self.prototypes[:known]
        cosines = F.normalize(x, dim=-1) @ F.normalize(prototypes, dim=-1).T
        best, nearest = cosines.topk(min(self.neighbours, known), dim=-1)
        shares = (self.temperature * best).softmax(-1)
        mixed = (shares[..., None] * prototypes[nearest]).sum(1)
        if self.normalize:
            mixed = F.normalize(mixed, dim=-1)
        x = (1 - self.weight) * x + self.weight * mixed
        return Packed(F.normalize(x, dim=-1) if self.normalize else x, packed.shapes)

    def out_shape(self, shape: Shape) -> Shape:
        """As many rows as came, where they were."""
        return shape


def _read(id: str, width: int, count: int) -> Tensor:
    path = Path(resolve_asset(id))
    path = path / _FILE if path.is_dir() else path
    if not path.is_file():
        raise MissingAssetError(
            f"there are no prototypes {id!r}: looked at {path}. Give a safetensors file, a folder with {_FILE}, or a "
            "scheme:name."
        )
    try:
        tensors = list(load_file(path).values())
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no sound safetensors file. Copy it again from its source.") from error
    if len(tensors) != 1 or tensors[0].dim() != 2 or tensors[0].shape[1] != width:
        found = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:3])
        raise CheckpointError(f"{path} holds the tensors {found}; expected one of shape (N, {width}).")
    if tensors[0].shape[0] > count:
        raise CheckpointError(f"{path} holds {tensors[0].shape[0]} prototypes, and there is room for {count}: `count`.")
    return tensors[0]
