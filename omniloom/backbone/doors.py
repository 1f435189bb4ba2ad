"""The doors of one decoder layer: the modules of hooks as its children, and how they are passed through.

A hook's module stands at `layer.adapters.NAME.PLACE`, so that it is selected, saved and moved with the layer; the
weights of the stock layer keep their names, but behind a door at its feed-forward they begin with `base.`. What runs
there knows nothing of transformers: any layer that takes its hidden states first can have these doors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from omniloom.backbone.narrowing import Narrowing
from omniloom.errors import ConfigError

__all__ = ["PLACES", "HookedFFN", "LayerDoors", "open_door"]

PLACES = ("before", "after", "attention", "visible", "scores", "ffn", "kept")


class LayerDoors(nn.ModuleDict):
    """Name -> place -> the hook there. `context` gives the facts of the pass under way; `passing`, while a layer runs
    that some slots pass by, all hidden states and the facts of all slots."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        self.context = context
        self.passing: tuple[Tensor, Any] | None = None

    def at(self, place: str) -> Iterator[Any]:
        """The hooks at a place, in the order they were installed."""
        for places in self.values():
            if place in places:  # type: ignore[operator]
                yield places[place]  # type: ignore[index]

    def passed(self, place: str, hidden: Tensor) -> Tensor:
        """(B, L, D) hidden states through every hook at "before" or "after"."""
        for hook in self.at(place):
            hidden = hook(hidden, self.context.facts)
        return hidden

    def beside(self, query: Tensor, attention: nn.Module) -> Tensor | None:
        """(B, H, L, d) what the hooks add to the heads' mixtures; None for nothing."""
        total: Tensor | None = None
        for hook in self.at("attention"):
            added = hook(query, attention, self.context.facts)
            if added is not None:
                total = added if total is None else total + added
        return total

    def watched(self, query: Tensor, key: Tensor) -> None:
        """Show the hooks at "scores" a layer's queries and keys."""
        for hook in self.at("scores"):
            hook(query, key, self.context.facts)

    def visible(self, slots: int, keys: int) -> Tensor | None:
        """(B, 1, L, T) bool, True where every hook at "visible" lets a slot read a key; None where all may.

        Hooks are asked about all slots, those included that the layer does not keep.
        """
        kept, facts = self.kept, self.context.facts
        if kept is not None:
            keys += kept.slots - kept.places.length
        if kept is not None and self.passing is not None:
            slots, facts = kept.slots, self.passing[1]
        allowed: Tensor | None = None
        for hook in self.at("visible"):
            seen = hook(slots, keys, facts)
            if seen is not None:
                allowed = seen if allowed is None else allowed & seen
        return allowed if kept is None else kept.mask(allowed)

    @property
    def kept(self) -> Narrowing | None:
        """What the layer keeps of the prompt under way, or of the one that is answered; None: everything."""
        facts = self.context.facts
        found: Narrowing | None = None if facts is None else facts.kept.get(self)
        return found

    def choose(self) -> Narrowing | None:
        """Ask the hooks at "kept" about a prompt, and remember for its answer; None in a step, or where all runs."""
        self.passing = None
        facts = self.context.facts
        if facts is None or facts.is_step:
            return None
        runs: Tensor | None = None
        for hook in self.at("kept"):
            wanted = hook(facts)
            if wanted is not None:
                runs = wanted if runs is None else runs & wanted
        if runs is not None:
            facts.kept[self] = Narrowing(runs, facts)
        return self.kept


class HookedFFN(nn.Module):
    """A stock feed-forward as `base`, and the hook that stands in its place."""

    def __init__(self, base: nn.Module, doors: LayerDoors) -> None:
        super().__init__()
        self.base = base
        self._doors = (doors,)  # not a child here: it is the layer's

    @property
    def is_replaced(self) -> bool:
        """Whether the hook in its place never runs it."""
        return any(getattr(hook, "replaces", False) for hook in self._doors[0].at("ffn"))

    def forward(self, hidden: Tensor) -> Tensor:
        doors = self._doors[0]
        for hook in doors.at("ffn"):
            result: Tensor = hook(hidden, self.base, doors.context.facts)
            return result
        stock: Tensor = self.base(hidden)
        return stock


def open_door(layer: nn.Module, place: str, name: str, hook: nn.Module, context: Any) -> LayerDoors:
    """Put a hook at one place of a layer; "before" and "after" work from then on, the other places are the caller's.

    Raises:
        ConfigError: there is a hook of that name at that place, or a second one in place of a feed-forward; a name that
            a layer's doors have themselves.
    """
    found: Any = getattr(layer, "adapters", None)
    if found is None:
        found = LayerDoors(context)
        layer.adapters = found
        layer.register_forward_pre_hook(_enter, with_kwargs=True)
        # In front of hooks that record the output: what is recorded is what the next layer gets.
        layer.register_forward_hook(_leave, prepend=True)
    doors: LayerDoors = found
    if name not in doors:
        if hasattr(doors, name):
            raise ConfigError(f"an adapter cannot be named {name!r}, which means something else in a layer. Rename it.")
        doors[name] = nn.ModuleDict()
    places: Any = doors[name]
    if place in places:
        raise ConfigError(f"the adapter {name!r} stands twice at the same place ({place}) of a layer. Rename one.")
    if place == "ffn" and any(True for _ in doors.at("ffn")):
        raise ConfigError(f"{name!r} would be the second in place of one feed-forward. Give them different layers.")
    places[place] = hook
    return doors


# Functions of the module and not closures: a copied layer must run its own hooks.


def _enter(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (layer.adapters.passed("before", args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": layer.adapters.passed("before", kwargs["hidden_states"])}


def _leave(layer: Any, args: tuple[Any, ...], output: Any) -> Any:
    if isinstance(output, tuple):
        return (layer.adapters.passed("after", output[0]), *output[1:])
    return layer.adapters.passed("after", output)
