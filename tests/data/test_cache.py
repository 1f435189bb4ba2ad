"""Cached rows come back bit for bit, or are made anew loudly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from omniloom.data import FeatureCache
from omniloom.errors import ShapeError
from omniloom.sequence import Packed, Shape

KEY = FeatureCache.key("payload", {"type": "image"}, "weights")


def _packed(dtype: torch.dtype = torch.float32) -> Packed:
    return Packed(torch.randn(6, 5).to(dtype), (Shape(6, grid=(1, 2, 3), times=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5)),))


def _file(folder: Path) -> Path:
    return next(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_rows_and_shape_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    cache, packed = FeatureCache(tmp_path), _packed(dtype)
    assert cache.get(KEY) is None and KEY not in cache
    cache.put(KEY, packed)
    again = FeatureCache(tmp_path).get(KEY)
    assert again is not None and KEY in cache
    assert again.x.dtype == dtype and torch.equal(again.x, packed.x) and again.shapes == packed.shapes


def test_a_view_of_a_larger_tensor_is_kept_as_its_own_rows(tmp_path: Path) -> None:
    rows = torch.randn(10, 8)
    FeatureCache(tmp_path).put(KEY, Packed(rows[2:5].t().t(), (Shape(3),)))
    again = FeatureCache(tmp_path).get(KEY)
    assert again is not None and torch.equal(again.x, rows[2:5])
    assert _file(tmp_path).stat().st_size < 1000


@pytest.mark.parametrize("part", ["payload", "processor", "weights"])
def test_whatever_the_rows_depend_on_is_in_the_key(part: str) -> None:
    facts = {"payload": "payload", "processor": {"type": "image"}, "weights": "weights"}
    changed = {**facts, part: {"type": "image", "size_px": 8} if part == "processor" else "other"}
    assert FeatureCache.key(*changed.values()) != KEY  # type: ignore[arg-type]


def test_hits_misses_and_bytes_are_counted(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.get(KEY)
    cache.put(KEY, _packed())
    cache.get(KEY)
    stats = cache.stats
    assert (stats.hits, stats.misses, stats.written_bytes, stats.read_bytes) == (1, 1, 120, 120)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "text", "header"])
def test_damaged_rows_are_removed_with_a_warning(tmp_path: Path, harm: str) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, _packed())
    file = _file(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    harmed = {
        "flip": bytes(content),
        "cut": bytes(content[:-7]),
        "empty": b"",
        "text": b"hello",
        "header": b"\xff" * 64,
    }[harm]
    file.write_bytes(harmed)
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.get(KEY) is None
    assert not file.exists() and cache.stats.corrupt == 1
    cache.put(KEY, _packed())
    assert cache.get(KEY) is not None


def test_rows_of_another_count_than_their_shape_are_damaged(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, _packed())
    file = _file(tmp_path)
    file.write_bytes(
        file.read_bytes()
        .replace(b'len\\": 6', b'len\\": 5')
        .replace(b'\\"grid\\": [1, 2, 3]', b'\\"grid\\": [1, 1, 5]')
    )
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.get(KEY) is None


def test_several_writers_of_one_key_leave_one_whole_file_and_nothing_else(tmp_path: Path) -> None:
    packed = _packed()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: FeatureCache(tmp_path).put(KEY, packed), range(40)))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{KEY}.safetensors"]
    again = FeatureCache(tmp_path).get(KEY)
    assert again is not None and torch.equal(again.x, packed.x)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omniloom.data.cache.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        FeatureCache(tmp_path).put(KEY, _packed())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_rows_of_several_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError):
        FeatureCache(tmp_path).put(KEY, Packed(torch.zeros(3, 2), (Shape(1), Shape(2))))


def test_taps_pooled_vectors_and_mosaics_come_back_as_they_were(tmp_path: Path) -> None:
    shape = Shape(10, grid=(5, 1, 2), mosaic=(2, 2, 7, 9))
    whole = Packed(
        torch.randn(20, 3), (shape, shape), torch.randn(2, 4), {2: torch.randn(20, 5), -1: torch.randn(20, 3)}
    )
    item = whole.singles()[1]
    cache = FeatureCache(tmp_path)
    cache.put(KEY, item)
    back = cache.get(KEY)
    assert back is not None and back.shapes == (shape,) and back.pooled is not None and item.pooled is not None
    assert torch.equal(back.x, whole.x[10:]) and torch.equal(back.pooled, whole.pooled[1:])
    assert set(back.taps) == {2, -1} and all(torch.equal(back.taps[n], whole.taps[n][10:]) for n in back.taps)


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sha256"):
        FeatureCache(tmp_path).get("../" + KEY[3:])
