"""A cached folder is whole or absent."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest

from omniloom.errors import CheckpointError
from omniloom.starter.cache import MANIFEST, folder_sha256s, home, made_folder, tree_sha256, verified


def _write(text: str):
    def make(folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "a" / "b.txt").write_text(text)

    return make


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNILOOM_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("OMNILOOM_HOME")
    assert home() == Path.home() / ".cache" / "omniloom"


def test_a_folder_is_made_once_for_a_stamp_and_again_for_another(tmp_path: Path) -> None:
    place = tmp_path / "data" / "set"
    made_folder(place, {"version": "1"}, _write("one"))
    made_folder(place, {"version": "1"}, _write("never"))
    assert (place / "a" / "b.txt").read_text() == "one"
    made_folder(place, {"version": "2"}, _write("two"))
    assert (place / "a" / "b.txt").read_text() == "two"


def test_a_failed_making_leaves_nothing_and_the_old_folder_stays(tmp_path: Path) -> None:
    place = tmp_path / "set"
    made_folder(place, {"version": "1"}, _write("one"))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made_folder(place, {"version": "2"}, fail)
    assert (place / "a" / "b.txt").read_text() == "one"
    with pytest.raises(OSError, match="disk full"):
        made_folder(tmp_path / "new", {}, fail)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["set"]


def test_two_who_want_the_same_folder_make_it_once(tmp_path: Path) -> None:
    made = []
    start = threading.Barrier(2)

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("x")

    def want() -> None:
        start.wait()
        made_folder(tmp_path / "set", {"version": "1"}, make)

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_the_manifest_holds_the_hash_of_every_file(tmp_path: Path) -> None:
    place = made_folder(tmp_path / "set", {"version": "1"}, _write("one"))
    manifest = json.loads((place / MANIFEST).read_text())
    assert manifest["files"] == {"a/b.txt": hashlib.sha256(b"one").hexdigest()}
    verified(place)
    (place / "a" / "b.txt").write_text("other")
    with pytest.raises(CheckpointError, match=r"a/b\.txt"):
        verified(place)


def test_a_folder_that_something_else_put_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(CheckpointError, match="has no manifest"):
        made_folder(tmp_path / "set", {}, _write("one"))


def test_one_file_is_hashed_as_itself_and_many_by_their_names_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert tree_sha256(folder_sha256s(tmp_path)) == hashlib.sha256(b"x").hexdigest()
    assert tree_sha256({"a": "1", "b": "2"}) != tree_sha256({"a": "2", "b": "1"})


def test_links_are_not_part_of_a_cached_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match="is a link"):
        folder_sha256s(tmp_path)
