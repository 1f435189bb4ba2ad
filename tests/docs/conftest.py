"""Each page is played once for all tests about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .pages import play


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Page -> the folder in which its blocks have run."""
    done: dict[Path, Path] = {}

    def run(page: Path) -> Path:
        if page not in done:
            done[page] = play(page, tmp_path_factory.mktemp(page.stem) / "work")
        return done[page]

    return run
