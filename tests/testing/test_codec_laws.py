"""The kit's laws of codecs and layouts: the built-in pair passes, each break is caught by name."""

from __future__ import annotations

import pytest
import torch

from omniloom.codecs.image_fsq import ImageFSQ
from omniloom.codecs.layouts import Flattened
from omniloom.errors import ShapeError
from omniloom.media import Image
from omniloom.sequence import Codes, Shape
from omniloom.testing import ConformanceFailure, check_codec, check_modality, made_payloads

PICTURES = next(made_payloads("image"))
TINY = {"size_px": 8, "grid": 2, "levels": [4, 4], "width": 8}


def test_a_sound_codec_and_layout_keep_every_law_inside_a_model():
    row = dict(payload="image", codec={"type": "image_fsq", **TINY}, layout="flattened")
    report = check_modality(row)
    assert report.is_kept and len(report.results) == 13
    assert report["model: codes are learned"].seen == "6 slots, begin and end included"


class Outside(ImageFSQ):
    def encode(self, payload):
        return Codes((super().encode(payload).books[0] + 16,), self.code_shape())


class OtherShape(ImageFSQ):
    def code_shape(self):
        return Shape(5)

    def encode(self, payload):
        return Codes((torch.zeros(4, dtype=torch.long),), Shape(4))


class Deaf(ImageFSQ):
    def encode(self, payload):
        return super().encode(PICTURES[0])


class Raw(ImageFSQ):
    def decode(self, codes):
        return super().decode(codes).pixels


class Picky(ImageFSQ):
    def decode(self, codes):
        if not any(torch.equal(codes.books[0], self.encode(picture).books[0]) for picture in PICTURES):
            raise ShapeError("never seen")
        return super().decode(codes)


class Detached(ImageFSQ):
    def loss(self, payloads):
        with torch.no_grad():
            sums = super().loss(payloads)
        value, count = sums["reconstruction"]
        return {"reconstruction": (value + 0 * self.encoder[0].weight.sum(), count)}


class Reversed(Flattened):
    def read(self, slots, shape):
        return super().read(list(slots)[::-1], shape)


@pytest.mark.parametrize(
    ("codec", "layout", "law", "seen"),
    [
        (Outside, None, "codec: codes lie in their codebooks", "of a codebook of 16 entries"),
        (OtherShape, None, "codec: codes lie in their codebooks", "code_shape() says"),
        (Deaf, None, "codec: same payload same codes, others differ", "gave the same codes"),
        (Raw, None, "codec: decode(encode(payload)) is a payload", "decode() gave ndarray"),
        (Picky, None, "codec: whatever codes the model says decode", "never seen"),
        (Detached, None, "codec: its loss trains every parameter", "no gradient reaches"),
        (ImageFSQ, Reversed, "layout: slots and codes are inverse", "are other codes"),
    ],
)
def test_a_broken_codec_or_layout_is_caught(codec, layout, law, seen):
    torch.manual_seed(0)
    part = codec(**TINY).eval()
    with pytest.raises(ConformanceFailure) as failure:
        check_codec(part, PICTURES, layout and layout(part.sizes))
    assert law in [result.law for result in failure.value.report.broken]
    assert seen in failure.value.report[law].seen


def test_decoded_payloads_are_pictures():
    part = ImageFSQ(**TINY)
    assert isinstance(part.decode(part.encode(PICTURES[0])), Image)
