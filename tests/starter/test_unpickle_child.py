"""The old pickle of the smartwatch data is read in a child process that knows arrays and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from omniloom.errors import DataError
from omniloom.starter.sensors import unpickled_arrays


def _save(path: Path, content: object) -> Path:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    series = [np.random.default_rng(i).standard_normal((5 + i, 6)) for i in range(3)]
    path = _save(tmp_path / "a.npy", {"X": series, "y": np.array([0, 1, 1]), "y_labels": ["PEN", "ABD"]})
    arrays = unpickled_arrays(path)
    assert sorted(arrays) == ["X_0", "X_1", "X_2", "y", "y_labels"]
    assert all(np.array_equal(arrays[f"X_{i}"], x) for i, x in enumerate(series))
    assert arrays["y_labels"].tolist() == ["PEN", "ABD"]


class _Command:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npy", {"X": _Command(tmp_path / "made")})
    with pytest.raises(DataError, match=r"asks for posix\.mkdir; only numpy arrays"):
        unpickled_arrays(path)
    assert not (tmp_path / "made").exists()


class _Encoding:
    def __reduce__(self):
        import codecs

        return codecs.encode, ("abc", "rot13")


def test_bytes_in_another_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rot13"):
        unpickled_arrays(_save(tmp_path / "a.npy", {"X": _Encoding()}))


def test_a_plain_array_is_not_taken_for_a_pickle(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(DataError, match="expected one pickled object"):
        unpickled_arrays(tmp_path / "a.npy")
