"""One way from a tensor, an array or nested lists to a numpy array, and to plain numbers."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import MediaError
from .codes import invalid

__all__ = ["numbers", "to_float32", "to_numpy"]


def to_numpy(values: object) -> np.ndarray:
    """A numpy array of `values`; tensors come to the CPU, bfloat16 becomes float32 (numpy has no bfloat16).

    Raises:
        ValueError, TypeError: nested lists of unequal length.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    return np.asarray(values)


def numbers(values: object, kind: str) -> np.ndarray:
    """An array of plain numbers; ragged lists, text and objects are refused by the kind's invalid code."""
    try:
        array = to_numpy(values)
    except (ValueError, TypeError, OverflowError):
        raise MediaError(invalid(kind), "the rows are not of one length. Fill them up first.") from None
    if array.dtype.kind not in "biuf":
        raise MediaError(invalid(kind), "the values are not all plain numbers.")
    return array


def to_float32(values: np.ndarray) -> np.ndarray:
    """A new float32 array in C order. What overflows becomes infinity, and the payload refuses it."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32, order="C")
