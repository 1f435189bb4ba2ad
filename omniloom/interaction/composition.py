"""One component made of several that were trained apart, without training and without data.

A state is the tensors of one component by name, as a run keeps them. Merging one state is that state, bit for bit, by
average, by a sum of weight 1 and by TIES at density 1. `init` in a run file merges components of runs, or puts them
side by side.

Source: Model Composition (arXiv:2402.12750), which merges adapters of unimodal models; TIES merging
(arXiv:2306.01708): trim, elect signs, average what agrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from omniloom.errors import CheckpointError, ConfigError

__all__ = ["merge", "renamed"]

State = Mapping[str, Tensor]
How = Literal["average", "sum", "ties"]


def merge(
    states: Sequence[State],
    how: How = "average",
    *,
    density: float = 0.2,
    weights: Sequence[float] | None = None,
    groups: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Tensor]:
    """One state of several; a tensor that only some have is merged among those.

    Args:
        how: "average" by weight; weighted "sum"; "ties": of each state keep the `density` of largest values, counted
            over all its tensors; of each value take the sign that weighs more; average those of that sign.
        weights: one a state, 1 if not given. `groups`: glob over names of tensors -> weights of their own.
    Raises:
        ConfigError: no states, another number of weights, a density outside of (0, 1], or a glob that matches nothing.
        CheckpointError: tensors of one name in different shapes.
    """
    if not states or how not in ("average", "sum", "ties") or not 0 < density <= 1:
        raise ConfigError(
            f"cannot merge {len(states)} states by {how!r} at density {density}; expected at least one, 'average', "
            "'sum' or 'ties', and 0 < density <= 1."
        )
    for given in (weights or [1.0] * len(states), *(groups or {}).values()):
        if len(given) != len(states):
            raise ConfigError(f"{len(states)} states are merged with {len(given)} weights; give one a state.")
    names = list(dict.fromkeys(name for state in states for name in state))
    idle = [glob for glob in groups or {} if not any(fnmatchcase(name, glob) for name in names)]
    if idle:
        raise ConfigError(f"the weights of {idle[0]!r} match no tensor. Names are such as {names[0]!r}.")
    least = [_least(state, density) if how == "ties" else 0.0 for state in states]
    parted: dict[str, list[tuple[Tensor, float]]] = {}
    for name in names:
        own = next((value for glob, value in (groups or {}).items() if fnmatchcase(name, glob)), weights)
        for number, state in enumerate(states):
            if name in state:
                value = state[name].to(torch.promote_types(state[name].dtype, torch.float32))
                value = torch.where(value.abs() >= least[number], value, 0.0) if least[number] > 0 else value
                parted.setdefault(name, []).append((value, 1.0 if own is None else float(own[number])))
    for name, parts in parted.items():
        if len({value.shape for value, _ in parts}) > 1:
            shapes = ", ".join(str(tuple(value.shape)) for value, _ in parts)
            raise CheckpointError(f"{name} cannot be merged: its shapes are {shapes}. Give the adapters one rank.")
    if how == "ties":
        majority = sum(float((w * value).sign().sum()) for parts in parted.values() for value, w in parts)
        merged = {name: _agreeing(parts, 1.0 if majority >= 0 else -1.0) for name, parts in parted.items()}
    else:
        merged = {name: _weighted(parts, is_mean=how == "average") for name, parts in parted.items()}
    dtypes = {name: next(state[name].dtype for state in states if name in state) for name in names}
    return {name: value.to(dtypes[name]) for name, value in merged.items()}


def _weighted(parts: Sequence[tuple[Tensor, float]], *, is_mean: bool) -> Tensor:
    whole = sum(weight for _, weight in parts) if is_mean else 1.0
    if not whole:
        raise ConfigError("weights that sum to 0 have no average; use 'sum'.")
    return reduce(torch.add, [value * (weight / whole) for value, weight in parts])


def _least(state: State, density: float) -> float:
    """The size from which on a value of the state is among its largest; 0 keeps all."""
    sizes = torch.cat([value.detach().abs().float().flatten() for value in state.values()])
    kept = max(round(density * len(sizes)), 1)
    return 0.0 if kept >= len(sizes) else float(sizes.kthvalue(len(sizes) - kept + 1).values)


def _agreeing(parts: Sequence[tuple[Tensor, float]], majority: float) -> Tensor:
    """The mean of the values whose sign is the elected one; where values cancel, that of the majority of all."""
    values = [value * weight for value, weight in parts]
    sign = reduce(torch.add, values).sign()
    sign = torch.where(sign == 0, majority, sign)
    agrees = [value.sign() * sign >= 0 for value in values]
    count = reduce(torch.add, [((value != 0) & kept).to(value) for value, kept in zip(values, agrees, strict=True)])
    kept_values = [torch.where(kept, value, 0.0) for value, kept in zip(values, agrees, strict=True)]
    return reduce(torch.add, kept_values) / count.clamp(min=1)


def renamed(state: State, old: str, new: str) -> dict[str, Tensor]:
    """The state of adapter `old` as one of adapter `new`."""
    return {f".{name}".replace(f".adapters.{old}.", f".adapters.{new}.")[1:]: value for name, value in state.items()}
