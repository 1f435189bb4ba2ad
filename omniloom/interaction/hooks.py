"""Where a part may act inside the language model's layers: the `linear` hook.

A hooked layer is replaced by a wrapper that holds the stock layer as `base` and the hooked modules as `adapters`,
so hook modules are children of the layer they act on. Without adapters the wrapper returns the stock result, bit
for bit. What a hook may know of the slots comes through one `HookContext` that the model sets before each forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from omniloom.errors import ConfigError
from omniloom.interaction.base import HookContext, SlotFacts

__all__ = ["HookedLinear", "LinearHook", "hook_linears", "linear_names"]


class LinearHook(nn.Module):
    """A module at a linear layer: `forward(x, facts)` is added to the layer's output.

    `facts` tells of the slots that run; None outside of a pass over a plan.
    """

    def forward(self, x: Tensor, facts: SlotFacts | None) -> Tensor:
        """What is added, of the shape of the layer's output."""
        raise TypeError(f"{type(self).__name__} is a hook without a forward; write forward(x, facts).")


class HookedLinear(nn.Module):
    """A stock linear layer and what is added to its output: base(x) + sum of adapters(x, facts)."""

    def __init__(self, base: nn.Linear, context: HookContext) -> None:
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self._context = context

    @property
    def weight(self) -> Tensor:
        """The stock weight: some models read it to learn a dtype."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        for adapter in () if self._context.is_plain else self.adapters.values():
            y = y + adapter(x, self._context.facts)
        return y


def linear_names(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Names of the linear layers, hooked or not, that match a glob of `targets`; the output head never does.

    Raises:
        ConfigError: a glob matches none, or there is none, so that nothing can pass for an adapter.
    """
    if not targets:
        raise ConfigError("an adapter without `targets` is at no layer. Name some, or leave `targets` out.")
    found: list[Any] = [part for part in model.modules() if hasattr(part, "get_output_embeddings")]
    heads = {id(part.get_output_embeddings()) for part in found}
    linears = [name for name, part in model.named_modules() if _is_linear(name, part) and id(part) not in heads]
    for target in targets:
        if not any(fnmatchcase(name, target) for name in linears):
            endings = sorted({name.rpartition(".")[2] for name in linears})
            raise ConfigError(
                f"adapter target {target!r} matches no linear layer. Layers end in: {', '.join(endings)}."
            )
    return [name for name in linears if any(fnmatchcase(name, target) for target in targets)]


def _is_linear(name: str, part: nn.Module) -> bool:
    if name.endswith("lm_head") or ".adapters." in f".{name}" or name.endswith(".base"):
        return False
    return isinstance(part, nn.Linear | HookedLinear)


def hook_linears(model: nn.Module, name: str, layers: dict[str, LinearHook], context: HookContext) -> None:
    """Put one hook under `name` at each named linear layer of the model."""
    for path, hook in layers.items():
        names = path.split(".")
        if any(getattr(model.get_submodule(".".join(names[:end])), "is_replaced", False) for end in range(len(names))):
            raise ConfigError(
                f"adapter {name!r} would change {path!r}, in a feed-forward that experts replace and that never runs. "
                "Leave it out of `targets`, or give the experts `residual: true`."
            )
        parent_path, _, leaf = path.rpartition(".")
        parent = model.get_submodule(parent_path)
        layer = getattr(parent, leaf)
        if not isinstance(layer, HookedLinear):
            layer = HookedLinear(layer, context)
            setattr(parent, leaf, layer)
        layer.adapters[name] = hook
