"""Tensors in files: safetensors only, strict on the way in, with one digest that depends on their values alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from omniloom.errors import CheckpointError
from omniloom.files import write_whole

__all__ = ["assign_strict", "digest_of", "read_tensors", "write_tensors"]


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors whole; the same tensors give the same bytes."""
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    write_whole(path, save(plain))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: not there, cut short or malformed. There is no other way to read it.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.name} is missing from {path.parent}. The run is incomplete; train it again or copy it whole."
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no sound safetensors file. Copy it again from its source.") from error


def assign_strict(target: Mapping[str, Tensor], source: Mapping[str, Tensor], *, what: str) -> None:
    """Copy source values into target tensors; names, shapes and dtypes must be the same.

    Raises:
        CheckpointError: lists everything that is missing, unexpected or of another shape or dtype.
    """
    problems = [f"missing {name}" for name in target if name not in source]
    problems += [f"unexpected {name}" for name in source if name not in target]
    for name in target:
        if name in source and (target[name].shape != source[name].shape or target[name].dtype != source[name].dtype):
            got, expected = (f"{tuple(value.shape)} {value.dtype}" for value in (source[name], target[name]))
            problems.append(f"{name} is {got}, expected {expected}")
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(
            f"{what} does not fit the model: {shown}. The run file and the weights belong to different models."
        )
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])
