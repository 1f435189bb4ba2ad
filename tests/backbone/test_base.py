"""The one door through which a plan becomes an attention mask."""

from __future__ import annotations

import torch

from omniloom.backbone.base import CacheView, attention_mask
from omniloom.sequence import Plan, Text
from tests.examples import asked, plans_of

SAMPLES = [asked(Text("a")), asked(Text("bc")), asked(Text("d"))]


def test_plain_rows_need_no_mask(stock):
    assert attention_mask(Plan.stack(plans_of(stock, SAMPLES))) is None


def test_a_slot_reads_its_own_document_up_to_itself(stock):
    plan = Plan.pack(plans_of(stock, SAMPLES), 40)
    for window in (None, 3):
        mask = attention_mask(plan, window=window)[:, 0]
        for row in range(plan.shape[0]):
            for q in range(int(plan.lengths[row])):
                reads = mask[row, q].nonzero()[:, 0].tolist()
                first = int((plan.document[row] == plan.document[row, q]).nonzero()[0])
                assert reads == list(range(first if window is None else max(first, q - window + 1), q + 1))


def test_every_slot_reads_something_padding_too(stock):
    assert bool(attention_mask(Plan.pack(plans_of(stock, SAMPLES), 40)).any(-1).all())


def test_a_window_of_the_cache_counts_positions_and_not_slots():
    valid = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1]], dtype=torch.bool)
    view = CacheView(None, valid, torch.tensor([6, 4]))
    assert view.mask().squeeze().tolist() == valid.tolist()
    assert view.mask(window=3).squeeze().int().tolist() == [[0, 0, 0, 1, 1, 1], [0, 1, 0, 0, 1, 1]]
    assert not view.is_plain and CacheView(None, valid[:1], torch.tensor([6])).is_plain
