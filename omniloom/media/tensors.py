"""One way from a tensor, an array or nested lists to a numpy array."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["to_numpy"]


def to_numpy(values: object) -> np.ndarray:
    """A numpy array of `values`; tensors come to the CPU, bfloat16 becomes float32 (numpy has no bfloat16).

    Raises:
        ValueError, TypeError: nested lists of unequal length.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    return np.asarray(values)
