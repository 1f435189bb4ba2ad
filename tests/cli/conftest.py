"""The command line called in this process, and a tiny run that it trained itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from omniloom.cli.main import app
from omniloom.testing import write_tiny_run


@pytest.fixture(scope="session")
def call() -> Callable[..., Result]:
    """`call("list", "encoders")`: exit code, stdout and stderr."""

    def called(*args: Any, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)

    return called


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file with its language model and data."""
    return write_tiny_run(tmp_path_factory.mktemp("tiny"), steps=2, count=6)


@pytest.fixture(scope="session")
def training(call: Callable[..., Result], tiny: Path) -> tuple[Path, Result]:
    """A run folder, and what `omniloom train` said when it made it."""
    folder = tiny.parent / "runs" / "tiny"
    sampled = [f"stages.{stage}.sample_every=2" for stage in ("align", "instruct")]
    done = call("train", tiny, "--out", folder, *(arg for text in sampled for arg in ("--set", text)))
    assert done.exit_code == 0, done.output
    return folder, done


@pytest.fixture(scope="session")
def run(training: tuple[Path, Result]) -> Path:
    """A trained and evaluated run folder. Read it only."""
    return training[0]


@pytest.fixture
def media(tiny: Path) -> Path:
    """The folder of the tiny run's media."""
    return tiny.parent / "data"
