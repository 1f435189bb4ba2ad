"""The kit proves parts whose raw tensors are bundles, and projectors that read taps or have parameters per modality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from omniloom.encoders import Encoder, Processor
from omniloom.media import Series
from omniloom.projectors import Projector
from omniloom.sequence import Bundle, Packed, Shape
from omniloom.testing import ConformanceFailure, check_encoder, check_processor, check_projector
from omniloom.testing.raw_tensors import changed_raw, copied_raw, shape_text, tensors_of

DRAW = np.random.default_rng(0)
PAYLOADS = [Series(DRAW.normal(0, 1, (steps, 2)).astype(np.float32)) for steps in (8, 21, 5, 8)]
BUNDLE = Bundle(values=torch.arange(6.0).view(3, 2), length=torch.tensor([3]))


class Counted(Processor):
    """A series and how long it is."""

    payload_kind = "series"

    def __call__(self, payload, rng=None):
        return Bundle(values=torch.from_numpy(payload.values.copy()), length=torch.tensor([len(payload.values)]))

    def shape(self, raw):
        return Shape(int(raw["length"]))


class Steps(Encoder):
    """Every step becomes a row."""

    def __init__(self):
        super().__init__()
        self.out_dim, self.map = 8, nn.Linear(2, 8)

    def forward(self, raws):
        return Packed.of([self.map(raw["values"].to(self.map.weight)) for raw in raws])

    def out_shape(self, shape):
        return shape

    def minimal_raw(self):
        return Bundle(values=torch.zeros(1, 2), length=torch.tensor([1]))


class Hungry(Steps):
    """Changes the length of the raw it was given."""

    def forward(self, raws):
        out = super().forward(raws)
        for raw in raws:
            raw["length"].add_(1)
        return out


class Leaky(Counted):
    """A bundle with an infinite number in its second tensor."""

    def __call__(self, payload, rng=None):
        return Bundle(values=super().__call__(payload)["values"], length=torch.tensor([torch.inf]))


class Tapping(Projector):
    """Reads the rows of an inner layer only, by a map of each modality's own."""

    def __init__(self, in_dim, out_dim):
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.own = nn.ModuleDict()

    def serve(self, modality):
        self.own[modality] = nn.Linear(self.in_dim, self.out_dim)

    def forward(self, packed, context):
        own = self.own[context.modality]
        return Packed(own(packed.taps[1].to(own.weight)), packed.shapes)

    def out_shape(self, shape):
        return shape


def test_a_bundle_is_proven_as_one_tensor_is():
    check_processor(Counted(), PAYLOADS)
    check_encoder(Steps(), Counted(), PAYLOADS)


def test_a_tensor_of_a_bundle_changed_in_place_is_caught():
    with pytest.raises(ConformanceFailure, match="changed in place"):
        check_encoder(Hungry(), Counted(), PAYLOADS)


def test_infinity_in_any_tensor_of_a_bundle_is_caught():
    with pytest.raises(ConformanceFailure, match="NaN or infinity"):
        check_processor(Leaky(), PAYLOADS)


def test_a_projector_of_taps_with_parameters_per_modality_is_proven():
    rows = torch.randn(9, 6)
    check_projector(Tapping(6, 4), Packed(rows, (Shape(2), Shape(7)), taps={1: rows + 1}))


def test_a_changed_bundle_keeps_its_whole_numbers_and_shapes():
    other = changed_raw(BUNDLE)
    assert torch.equal(other["length"], BUNDLE["length"]) and not torch.equal(other["values"], BUNDLE["values"])
    assert other["values"].shape == BUNDLE["values"].shape


def test_a_bundle_of_whole_numbers_alone_is_changed_in_them():
    codes = Bundle(codes=torch.arange(20))
    assert not torch.equal(changed_raw(codes)["codes"], codes["codes"])


def test_a_copy_has_memory_of_its_own():
    copy = copied_raw(BUNDLE)
    copy["values"].zero_()
    assert BUNDLE["values"].any() and len(tensors_of(copy)) == 2


def test_shapes_are_told_by_name():
    assert shape_text(BUNDLE) == "Bundle(values=(3, 2), length=(1,))" and shape_text(torch.zeros(2, 3)) == "(2, 3)"
