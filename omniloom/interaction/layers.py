"""Which layers of the language model an interaction acts in, as a run file names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omniloom.errors import ConfigError, did_you_mean

__all__ = ["blocks_of", "layers_of"]


def layers_of(name: str, layers: str | Sequence[int], count: int) -> list[int]:
    """The layers of "all" or of a list, in order.

    Raises:
        ConfigError: a layer that is not there, or none at all; `name` is the adapter's.
    """
    if isinstance(layers, str):
        if layers != "all":
            raise ConfigError(
                f"adapter {name!r} acts in layers {layers!r}; expected 'all' or a list of numbers from 0."
            )
        layers = range(count)
    if not layers:
        raise ConfigError(f"adapter {name!r} acts in no layer.")
    for layer in layers:
        if type(layer) is not int or not 0 <= layer < count:
            raise ConfigError(
                f"adapter {name!r} acts in layer {layer!r}; the language model has {count} layers that can be hooked, "
                "counted from 0."
            )
    return sorted(set(layers))


def blocks_of(
    name: str, layers: str | Sequence[int] | Mapping[str, Sequence[int]], inputs: Sequence[str], count: int
) -> dict[int, list[str]]:
    """Layer -> the modalities that it reads: all of them, or those that have it in their block.

    Raises:
        ConfigError: as `layers_of`; a block of a modality that is no input, or an input without a block.
    """
    if not isinstance(layers, Mapping):
        return {layer: list(inputs) for layer in layers_of(name, layers, count)}
    for modality in layers:
        if modality not in inputs:
            raise ConfigError(f"adapter {name!r} has layers for {modality!r}.{did_you_mean(modality, inputs)}")
    without = [modality for modality in inputs if modality not in layers]
    if without:
        raise ConfigError(f"adapter {name!r} reads {without[0]!r} but has no layers for it. Give it some.")
    found: dict[int, list[str]] = {}
    for modality in inputs:
        for layer in layers_of(name, layers[modality], count):
            found.setdefault(layer, []).append(modality)
    return dict(sorted(found.items()))
