"""What a shared part has of its own for each modality that it serves."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from omniloom.errors import ConfigError, did_you_mean

__all__ = ["Own"]


class Own(nn.ModuleDict):
    """Modules by a modality's name. A part keeps one as `own`, so `COMPONENT.own.NAME.*` selects what is NAME's."""

    def claim(self, modality: str, make: Callable[[], nn.Module]) -> None:
        """Make the modality's own module, once: a modality may name the part in several places.

        Raises:
            ConfigError: a name that a container of modules cannot hold.
        """
        if modality in self:
            return
        try:
            self[modality] = make()
        except KeyError as error:
            raise ConfigError(
                f"no modality that has parameters of its own can be named {modality!r}: {error}. Give it another name."
            ) from error

    def of(self, modality: str, part: nn.Module) -> nn.Module:
        """The modality's own module; `part` is the owner, for the message.

        Raises:
            ConfigError: the part was never told that it serves this modality.
        """
        if modality not in self:
            raise ConfigError(
                f"{type(part).__name__} has no parameters of its own for the modality {modality!r}."
                f"{did_you_mean(modality, self)} Call serve() with each modality before the first forward()."
            )
        return self[modality]
