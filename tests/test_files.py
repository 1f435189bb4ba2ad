"""Files and folders are there whole or not at all."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniloom.files import remove_leftovers, sha256_of_file, whole_folder, write_whole


@given(first=st.binary(max_size=50), second=st.binary(max_size=50))
def test_a_file_holds_what_was_written_last(tmp_path_factory, first, second):
    path = tmp_path_factory.getbasetemp() / "deep" / "er" / "file"
    write_whole(path, first)
    assert path.read_bytes() == first
    write_whole(path, second)
    assert path.read_bytes() == second and os.listdir(path.parent) == ["file"]
    assert sha256_of_file(path) == hashlib.sha256(second).hexdigest()


def test_text_is_written_as_utf_8(tmp_path):
    write_whole(tmp_path / "a", "é漢")
    assert (tmp_path / "a").read_bytes() == "é漢".encode()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    write_whole(tmp_path / "a", "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_reader_meets_the_old_file_until_the_new_one_is_whole(tmp_path, monkeypatch):
    seen, replace = [], os.replace
    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr(os, "replace", lambda *args: seen.append((tmp_path / "a").read_text()) or replace(*args))
    write_whole(tmp_path / "a", "new")
    assert seen == ["old"] and (tmp_path / "a").read_text() == "new"


def test_a_folder_appears_in_one_piece_and_replaces_the_older_one(tmp_path):
    for text in ("one", "two"):
        with whole_folder(tmp_path / "run") as draft:
            (draft / "inner").mkdir()
            (draft / "inner" / text).write_text(text)
            if text == "one":
                assert not (tmp_path / "run").exists()
            else:
                assert (tmp_path / "run" / "inner" / "one").exists()
        assert os.listdir(tmp_path) == ["run"] and os.listdir(tmp_path / "run" / "inner") == [text]


def test_a_folder_that_fails_on_the_way_is_not_there(tmp_path):
    with whole_folder(tmp_path / "run") as draft:
        (draft / "old").touch()
    with pytest.raises(KeyError), whole_folder(tmp_path / "run") as draft:
        (draft / "new").touch()
        raise KeyError
    assert os.listdir(tmp_path) == ["run"] and os.listdir(tmp_path / "run") == ["old"]


def test_drafts_of_killed_processes_are_removed_wherever_they_are(tmp_path):
    for name in ("a.unfinished-1", "deep/b.unfinished-2/inner.unfinished-3", "deep/c.unfinished-4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "deep" / "kept").write_text("x")
    assert remove_leftovers(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "kept"]
    assert remove_leftovers(tmp_path) == 0 and remove_leftovers(tmp_path / "nowhere") == 0
