"""Made-up payloads: of every kind, of several sizes, always the same."""

from __future__ import annotations

import pytest

from omniloom.media import KINDS
from omniloom.testing import made_payloads


def _sizes(payload):
    fields = [getattr(payload, name) for name in payload.__dataclass_fields__]
    return tuple(field.shape for field in fields if hasattr(field, "shape"))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_set_of_every_kind_holds_four_different_payloads_of_several_sizes(kind):
    sets = list(made_payloads(kind))
    assert sets
    for payloads in sets[:3]:
        assert [payload.kind for payload in payloads] == [kind] * 4
        assert len({payload.digest() for payload in payloads}) == 4
        sizes = {
            tuple(getattr(p, n).shape for n in p.__dataclass_fields__ if hasattr(getattr(p, n), "shape"))
            for p in payloads
        }
        assert len(sizes) >= 2


def test_the_same_seed_gives_the_same_payloads_and_another_seed_others():
    def digests(seed):
        return [payload.digest() for payload in next(made_payloads("points", seed=seed))]

    assert digests(1) == digests(1) != digests(2)


def test_the_wanted_channels_come_first():
    assert next(made_payloads("series", channels=(7,)))[0].values.shape[1] == 7


def test_a_kind_that_is_not_built_in_has_none():
    assert list(made_payloads("smell")) == []
