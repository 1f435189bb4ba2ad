"""The optimizer of a stage: AdamW over the selected parameters, a learning rate per glob, warm-up and cosine decay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from omniloom.config import StageConfig
from omniloom.errors import ConfigError

__all__ = ["load_optimizer_state", "make_optimizer", "optimizer_state", "set_progress"]


def make_optimizer(stage: StageConfig, trainable: Mapping[str, nn.Parameter]) -> torch.optim.AdamW:
    """One group per learning rate; the first glob that matches a parameter's component or name gives it.

    Raises:
        ConfigError: a trained parameter that no glob of `lr` matches, or a glob that matches none.
    """
    rates = stage.lr if isinstance(stage.lr, Mapping) else {"*": stage.lr}
    groups: dict[str, dict[str, nn.Parameter]] = {glob: {} for glob in rates}
    for name, value in trainable.items():
        glob = next(
            (glob for glob in rates if fnmatchcase(name, glob) or fnmatchcase(name.partition(".")[0], glob)), None
        )
        if glob is None:
            raise ConfigError(
                f"stage {stage.name!r} trains {name}, but no glob of `lr` matches it. Add one, or a last '*'."
            )
        groups[glob][name] = value
    for glob, members in groups.items():
        if not members:
            raise ConfigError(f"stage {stage.name!r}: the lr glob {glob!r} matches no trained parameter.")
    return torch.optim.AdamW(
        [
            {"params": list(members.values()), "lr": rates[glob], "peak_lr": rates[glob], "names": list(members)}
            for glob, members in groups.items()
        ],
        weight_decay=stage.weight_decay,
        betas=(0.9, 0.98),
    )


def set_progress(optimizer: torch.optim.Optimizer, step: int, steps: int, warmup: float) -> float:
    """Set the learning rates for `step` (from 0) of `steps`: linear up over the warm-up share, then a cosine to zero.

    Returns the factor that was applied.
    """
    ramp = max(1, round(warmup * steps))
    if step < ramp:
        factor = (step + 1) / ramp
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - ramp + 1) / max(1, steps - ramp + 1)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return factor


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of every parameter by name, as tensors that safetensors can hold."""
    state: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, value in zip(group["names"], group["params"], strict=True):
            for key, tensor in optimizer.state.get(value, {}).items():
                state[f"{name}#{key}"] = tensor.reshape(1) if tensor.dim() == 0 else tensor
    return state


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Put saved moments back; parameters without any stay untouched."""
    for group in optimizer.param_groups:
        for name, value in zip(group["names"], group["params"], strict=True):
            mine = {key.rpartition("#")[2]: tensor for key, tensor in saved.items() if key.rpartition("#")[0] == name}
            if mine:
                optimizer.state[value] = {
                    key: tensor.reshape(()).clone() if key == "step" else tensor.clone() for key, tensor in mine.items()
                }
