"""A folder with the tiny run, once."""

from __future__ import annotations

import pytest

from omniloom.testing.tiny_run import write_tiny_run


@pytest.fixture(scope="package")
def tiny(tmp_path_factory):
    """A folder with `run.yaml`, its data and its language model; nothing trained."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_run(folder, steps=5, count=6)
    return folder
