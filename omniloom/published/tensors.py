"""Single tensors of a published checkpoint, found by the end of their names; safetensors only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from transformers.utils import cached_file

from omniloom.errors import CheckpointError, MissingAssetError
from omniloom.published.source import Part, Source
from omniloom.registry import resolve_asset

__all__ = ["Weights"]


class Weights:
    """The tensors of a published model.

    Raises:
        MissingAssetError: there are no safetensors.
    """

    def __init__(self, source: Source) -> None:
        self.id = source.id
        self._folder, self._revision = resolve_asset(source.id), source.revision or "main"
        self._files: dict[str, str] = {}
        whole = self._file("model.safetensors")
        if whole is not None:
            with safe_open(str(whole), "pt") as tensors:
                self._files = dict.fromkeys(tensors.keys(), "model.safetensors")
            return
        index = self._file("model.safetensors.index.json")
        if index is None:
            raise MissingAssetError(
                f"no safetensors weights for {source.id!r}. Convert older weight files to safetensors first."
            )
        self._files = json.loads(index.read_text())["weight_map"]

    def of(self, part: Part, module: nn.Module) -> dict[str, Tensor]:
        """The tensors that a part takes, under the names of its own parameters, in their dtypes.

        Raises:
            CheckpointError: a parameter that the part takes from nowhere, a tensor that is not in the file or stands
                there several times, or one of another shape.
        """
        found = {}
        for name, value in module.named_parameters():
            tensor = self._tensor(_name_of(name, part.tensors, self.id))
            if tensor.shape != value.shape and tensor.numel() == value.numel():
                # Queries and biases are published with empty axes in front.
                tensor = tensor.reshape(value.shape) if tensor.squeeze().shape == value.squeeze().shape else tensor
            if tensor.shape != value.shape:
                raise CheckpointError(
                    f"the weights of {self.id!r} give {name} the shape {tuple(tensor.shape)}, the part has "
                    f"{tuple(value.shape)}. They are of another model than its configuration says."
                )
            found[name] = tensor.to(value.dtype)
        return found

    def named(self, part: Part) -> dict[str, Tensor]:
        """The tensors that a part takes, under their names in the file."""
        inside = [f".{name}." for name in part.tensors.values()]
        places = [place for place in self._files if any(name in f".{place}." for name in inside)]
        return {place: self._read(place) for place in sorted(places)}

    def _tensor(self, name: str) -> Tensor:
        places = [place for place in self._files if place == name or place.endswith("." + name)]
        if len(places) != 1:
            raise CheckpointError(
                f"the weights of {self.id!r} hold {len(places)} tensors {name!r}; expected one. The file is of another "
                "model."
            )
        return self._read(places[0])

    def _read(self, place: str) -> Tensor:
        file = self._file(self._files[place])
        if file is None:
            raise MissingAssetError(f"the file {self._files[place]!r} of {self.id!r} is not here. Fetch it whole.")
        with safe_open(str(file), "pt") as tensors:
            tensor: Tensor = tensors.get_tensor(place)
        return tensor

    def _file(self, name: str) -> Path | None:
        try:
            found = cached_file(
                self._folder, name, revision=self._revision, _raise_exceptions_for_missing_entries=False
            )
        except OSError as error:
            raise MissingAssetError(f"no {name} for {self.id!r}: {str(error).splitlines()[0]}") from error
        return None if found is None else Path(str(found))


def _name_of(parameter: str, tensors: Mapping[str, str], id: str) -> str:
    """The name in the file of a parameter, by its own name or by that of the module that holds it."""
    if parameter in tensors:
        return tensors[parameter]
    module, _, rest = parameter.rpartition(".")
    while module:
        if module in tensors:
            return f"{tensors[module]}.{rest}"
        module, _, last = module.rpartition(".")
        rest = f"{last}.{rest}"
    raise CheckpointError(f"{id!r} has nothing for the parameter {parameter!r}. Its configuration asks for more parts.")
