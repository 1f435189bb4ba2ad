"""Tensors in files, and their digest."""

from __future__ import annotations

import hashlib
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omniloom.checkpoint.tensors import assign_strict, digest_of, read_tensors, write_tensors
from omniloom.errors import CheckpointError


def made(shape: list[int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """A tensor of small whole numbers."""
    return torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool])
SHAPES = st.lists(st.integers(0, 3), max_size=3)
TENSORS = st.dictionaries(
    st.text("abc./_", min_size=1, max_size=6),
    st.builds(made, SHAPES, DTYPES, st.integers(0, 99)),
    max_size=4,
)


@given(tensors=TENSORS)
def test_tensors_come_back_bit_for_bit_and_the_same_give_the_same_bytes(tmp_path_factory, tensors):
    path = tmp_path_factory.getbasetemp() / "tensors.safetensors"
    write_tensors(path, tensors)
    first = path.read_bytes()
    again = read_tensors(path)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], value) and again[name].dtype == value.dtype for name, value in tensors.items())
    write_tensors(path, dict(reversed(tensors.items())))
    assert path.read_bytes() == first and digest_of(again) == digest_of(tensors)


def test_views_and_strides_are_saved_by_their_values(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    write_tensors(tmp_path / "x.safetensors", {"t": whole.T, "row": whole[1]})
    again = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(again["t"], whole.T) and digest_of(again) == digest_of({"t": whole.T, "row": whole[1]})


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4).double()},
        {"a": torch.tensor([0.0, 0, 0, 1e-30])},
        {},
    ],
    ids=["name", "shape", "dtype", "value", "none"],
)
def test_the_digest_tells_names_shapes_dtypes_and_values(other):
    assert digest_of(other) != digest_of({"a": torch.zeros(4)})


def test_a_digest_is_sha256_over_name_dtype_shape_and_little_endian_bytes():
    plain = b"a|torch.int64|(3,)|" + b"".join(number.to_bytes(8, "little") for number in range(3))
    assert digest_of({"a": torch.arange(3)}) == hashlib.sha256(plain).hexdigest()


@pytest.mark.parametrize("data", [b"", b"{}", b"\x00" * 100, pickle.dumps({"a": 1}), b"\xff" * 8 + b"{}"])
def test_what_is_no_safetensors_file_is_refused(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="no sound safetensors"):
        read_tensors(tmp_path / "x.safetensors")


def test_a_missing_file_is_told_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"x.safetensors is missing"):
        read_tensors(tmp_path / "x.safetensors")


def test_assigning_lists_all_that_does_not_fit_and_changes_nothing():
    target = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)}
    source = {"a": torch.ones(2), "b": torch.ones(3), "d": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"it does not fit the model: missing c; unexpected d; b is \(3,\)"):
        assign_strict(target, source, what="it")
    assert not target["a"].any()


def test_assigning_fills_the_target_in_place():
    target = {"a": torch.nn.Parameter(torch.zeros(2))}
    kept = target["a"]
    assign_strict(target, {"a": torch.ones(2)}, what="it")
    assert kept.tolist() == [1, 1]
