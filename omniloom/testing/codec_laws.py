"""The laws of discrete encoding: a codec, and a layout of its codes into slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from omniloom.codecs import Codec, Layout
from omniloom.media import KINDS, Payload
from omniloom.sequence import Codes, Shape
from omniloom.testing.part_laws import disturbed, expect, expect_finite, expect_gradients, option_law
from omniloom.testing.report import Ledger

__all__ = ["codec_laws", "expect_payload"]


def expect_payload(value: object, kind: str) -> None:
    """Break the law unless it is a payload of this kind; a payload has checked itself when it was made."""
    wanted = KINDS[kind].payload_type if kind in KINDS else Payload
    expect(isinstance(value, wanted), f"decode() gave {type(value).__name__}; expected a payload of kind {kind!r}.")


def codec_laws(
    ledger: Ledger, codec: Codec, payloads: Sequence[Payload], layout: Layout | None = None, **options: Any
) -> None:
    """Codes lie in their codebooks, decode to payloads, and can be trained; slots and codes are inverse."""
    codes_law = "codec: codes lie in their codebooks"

    def codes() -> str:
        for index, payload in enumerate(payloads):
            _expect_codes(codec.encode(payload), codec, f"payload {index}")
        return f"{len(codec.sizes)} codebooks of {list(codec.sizes)} entries"

    def repeats() -> str:
        made = [codec.encode(payload) for payload in payloads]
        for index, payload in enumerate(payloads):
            expect(_equal(codec.encode(payload), made[index]), f"payload {index} gave other codes the second time.")
        expect(
            any(not _equal(other, made[0]) for other in made[1:]),
            f"{len(made)} different payloads gave the same codes.",
        )
        return f"{len(payloads)} payloads twice"

    def decodes() -> str:
        for payload in payloads:
            made = codec.encode(payload)
            expect_payload(codec.decode(made), codec.payload_kind)
            expect(
                codec.decode(made).digest() == codec.decode(made).digest(),
                "the same codes gave two different payloads.",
            )
        return f"payloads of kind {codec.payload_kind!r}"

    def decodes_any() -> str:
        draw = torch.Generator().manual_seed(0)
        shape = codec.code_shape() or codec.encode(payloads[0]).shape
        for _ in range(4):
            expect_payload(codec.decode(_random_codes(codec, shape, draw)), codec.payload_kind)
        return "four draws of random codes"

    def loss() -> str:
        with disturbed(codec, train=True) as parameters:
            sums = codec.loss(payloads)
            expect(bool(sums), "loss() gave no losses; expected {name: (sum, count)}.")
            for name, (value, count) in sums.items():
                expect_finite(value.detach(), f"losses {name!r}")
                expect(float(count) > 0, f"the loss {name!r} has the count {float(count):g}; expected one above zero.")
            sum((value / count for value, count in sums.values()), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
            return expect_gradients(parameters)

    option_law(ledger, "codec: options can be read back", codec, **options)
    remedy = "give one id tensor per codebook with 0 <= id < sizes[k], and the shape that code_shape() declares."
    ledger.prove(codes_law, codes, remedy=remedy)
    remedy = "encode without noise, from the payload's contents."
    ledger.prove("codec: same payload same codes, others differ", repeats, remedy=remedy, needs=[codes_law])
    remedy = "return a payload of payload_kind from decode()."
    ledger.prove("codec: decode(encode(payload)) is a payload", decodes, remedy=remedy, needs=[codes_law])
    remedy = "any ids inside the codebooks must decode: the model may say any of them."
    ledger.prove("codec: whatever codes the model says decode", decodes_any, remedy=remedy, needs=[codes_law])
    remedy = "return sums and counts with gradients to every parameter."
    ledger.prove("codec: its loss trains every parameter", loss, remedy=remedy, needs=[codes_law])
    if layout is not None:
        _layout_law(ledger, codec, payloads, layout, codes_law)


def _layout_law(ledger: Ledger, codec: Codec, payloads: Sequence[Payload], layout: Layout, codes_law: str) -> None:
    def inverse() -> str:
        draw = torch.Generator().manual_seed(1)
        made = [codec.encode(payload) for payload in payloads]
        made += [_random_codes(codec, made[0].shape, draw) for _ in range(4)]
        for codes in made:
            slots = layout.place(codes)
            expected = layout.length(codes.shape)
            expect(len(slots) == expected, f"place() gave {len(slots)} slots, length() says {expected}.")
            for step, slot in enumerate(slots):
                first, stop = layout.allowed(step)
                expect(
                    first <= slot < stop <= layout.size,
                    f"slot {step} holds {slot}, allowed() says {first}..{stop - 1}.",
                )
            expect(_equal(layout.read(slots, codes.shape), codes), "read(place(codes)) are other codes.")
        return f"{len(made)} items of {layout.length(made[0].shape)} slots"

    remedy = "make place() and read() inverse, inside the ids that allowed() gives."
    ledger.prove("layout: slots and codes are inverse", inverse, remedy=remedy, needs=[codes_law])


def _expect_codes(codes: Codes, codec: Codec, what: str) -> None:
    expect(
        len(codes.books) == len(codec.sizes), f"{what}: {len(codes.books)} codebooks; sizes says {len(codec.sizes)}."
    )
    for book, size in zip(codes.books, codec.sizes, strict=True):
        least, most = int(book.min()), int(book.max())
        expect(0 <= least and most < size, f"{what}: ids {least}..{most} of a codebook of {size} entries.")
    declared = codec.code_shape()
    expect(declared in (None, codes.shape), f"{what}: codes of shape {codes.shape}; code_shape() says {declared}.")


def _random_codes(codec: Codec, shape: Shape, draw: torch.Generator) -> Codes:
    return Codes(tuple(torch.randint(size, (shape.len,), generator=draw) for size in codec.sizes), shape)


def _equal(a: Codes, b: Codes) -> bool:
    same = len(a.books) == len(b.books) and a.shape == b.shape
    return same and all(torch.equal(one, two) for one, two in zip(a.books, b.books, strict=True))
