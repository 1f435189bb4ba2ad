"""Every codec of the part table keeps the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omniloom.errors import MediaError, ShapeError
from omniloom.media import Audio, Image
from omniloom.registry import BUILT_IN, build, spec_of
from omniloom.sequence import Codes, Shape

NOISE = np.random.default_rng(0)


def pictures(count=3, side=8):
    return [Image(NOISE.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


CASES = {
    "image_fsq": [
        ({"width": 8}, pictures()),
        ({"width": 8, "size_px": 16, "channels": 3, "grid": 4, "levels": [4, 4]}, pictures()),
        ({"width": 8, "size_px": 4, "grid": 4, "levels": [5]}, pictures()),
    ],
}
FLAT = [(name, *case) for name, cases in CASES.items() for case in cases]
WRONG = Audio(np.zeros((1, 9), np.float32), 8000)


@pytest.fixture(params=FLAT, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    """(a fresh codec, its spec, payloads)."""
    name, options, payloads = request.param
    torch.manual_seed(0)
    return build("codecs", {"type": name, **options}), {"type": name, **options}, payloads


def test_every_built_in_codec_is_tested_here():
    assert set(CASES) == set(BUILT_IN["codecs"])


def test_a_spec_read_back_builds_an_equal_part(case):
    part, spec, _ = case
    read = spec_of("codecs", part)
    assert spec.items() <= read.items() and spec_of("codecs", build("codecs", read)) == read


def test_codes_have_the_declared_shape_and_sizes(case):
    part, _, payloads = case
    codes = part.encode(payloads[0])
    assert codes.shape == part.code_shape() and len(codes.books) == len(part.sizes)
    assert all(
        0 <= int(book.min()) <= int(book.max()) < size for book, size in zip(codes.books, part.sizes, strict=True)
    )
    assert part.decode(codes).kind == part.payload_kind == payloads[0].kind


def test_encoding_and_decoding_are_deterministic(case):
    part, _, payloads = case
    first, second = part.encode(payloads[0]), part.encode(payloads[0])
    assert all(torch.equal(a, b) for a, b in zip(first.books, second.books, strict=True))
    assert part.decode(first).digest() == part.decode(second).digest()


def test_losses_are_sums_that_add_up_over_any_split_of_the_batch(case):
    part, _, payloads = case
    whole, alone = part.loss(payloads), [part.loss([payload]) for payload in payloads]
    for name, (total, count) in whole.items():
        torch.testing.assert_close(sum(each[name][0] for each in alone), total)
        assert sum(int(each[name][1]) for each in alone) == int(count)


def test_every_parameter_gets_a_gradient(case):
    part, _, payloads = case
    sum(total for total, _ in part.loss(payloads).values()).backward()
    assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_runs_in_bfloat16(case):
    part, _, payloads = case
    part = part.to(torch.bfloat16)
    assert part.decode(part.encode(payloads[0])).kind == part.payload_kind
    assert all(bool(total.isfinite()) for total, _ in part.loss(payloads).values())


def test_a_state_dict_round_trip_gives_the_same_codes_and_payloads(case):
    part, spec, payloads = case
    other = build("codecs", spec)
    other.load_state_dict(part.state_dict(), strict=True)
    codes = part.encode(payloads[0])
    assert torch.equal(codes.books[0], other.encode(payloads[0]).books[0])
    assert part.decode(codes).digest() == other.decode(codes).digest()


def test_a_payload_of_another_kind_is_refused(case):
    part, _, _ = case
    with pytest.raises(MediaError, match="wrong_payload"):
        part.encode(WRONG)
    with pytest.raises(MediaError, match="wrong_payload"):
        part.loss([WRONG])


def test_an_empty_batch_is_refused(case):
    with pytest.raises(ShapeError, match="at least one"):
        case[0].loss([])


def test_codes_of_another_shape_or_size_are_refused(case):
    part, _, payloads = case
    book = part.encode(payloads[0]).books[0]
    with pytest.raises(ShapeError, match="expected"):
        part.decode(Codes((book[:-1],), Shape(len(book) - 1)))
    with pytest.raises(ShapeError, match="expected"):
        part.decode(Codes((book + part.sizes[0],), Shape(len(book))))


def test_it_builds_on_the_meta_device(case):
    with torch.device("meta"):
        assert all(p.is_meta for p in build("codecs", case[1]).parameters())
