"""Room 7: stages, the loop, exact resume.

The room and the door `omniloom.train(run)` have one name, so the room can be called as the door: whichever of the two a
program meets, `omniloom.train("run.yaml")` trains.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from omniloom.train.run import open_sources, train

__all__ = ["open_sources", "train"]


class _Door(ModuleType):
    def __call__(self, run: Any, **options: Any) -> Path:
        return train(run, **options)


sys.modules[__name__].__class__ = _Door
