from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from omniloom.errors import CheckpointError, ConfigError, MissingAssetError, ShapeError
from omniloom.projectors import Context
from omniloom.projectors.prototypes import Prototypes
from omniloom.sequence import Packed

AXES = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]])


def told(**options):
    part = Prototypes(3, 9, **options)
    part.remember(AXES)
    return part


def test_a_row_is_mixed_with_the_softmax_of_its_nearest():
    part = told(neighbours=2, temperature=5.0, weight=0.25, normalize=False)
    row = torch.tensor([[0.6, 0.8, 0.0]])  # cosines .6 and .8 to the first and second
    shares = torch.softmax(torch.tensor([3.0, 4.0]), 0)
    expected = 0.75 * row + 0.25 * (shares[0] * AXES[0] + shares[1] * AXES[1])
    torch.testing.assert_close(part(Packed.of([row]), Context()).x, expected)


def test_normalised_it_is_the_cache_of_imagebind_llm():
    part = told(neighbours=2)
    row = torch.nn.functional.normalize(torch.tensor([[0.6, 0.7, 0.1]]))
    best, nearest = (row @ torch.eye(3)).topk(2)
    retrieved = (best * 20).softmax(-1) @ AXES[nearest[0]]
    mixed = 0.5 * row + 0.5 * retrieved / retrieved.norm()
    torch.testing.assert_close(part(Packed.of([row]), Context()).x, mixed / mixed.norm())


def test_without_weight_of_its_own_a_row_becomes_its_nearest():
    part = told(neighbours=1, weight=1.0, normalize=False)
    out = part(Packed.of([torch.tensor([[0.1, 5.0, 0.2]])]), Context())
    torch.testing.assert_close(out.x, AXES[1:2])


def test_prototypes_are_saved_with_the_part_and_come_from_a_file_alike(tmp_path):
    save_file({"rows": AXES}, tmp_path / "prototypes.safetensors")
    part, loaded = told(count=5), Prototypes(3, 9, count=5)
    loaded.load_state_dict(part.state_dict())
    rows = Packed.of([torch.randn(4, 3)])
    expected = part(rows, Context()).x
    assert torch.equal(loaded(rows, Context()).x, expected)
    for place in (tmp_path, tmp_path / "prototypes.safetensors"):
        assert torch.equal(Prototypes(3, 9, id=str(place))(rows, Context()).x, expected)


def test_without_prototypes_it_refuses_to_run():
    with pytest.raises(ConfigError, match="remember"):
        Prototypes(3, 9)(Packed.of([torch.zeros(1, 3)]), Context())


def test_more_prototypes_than_there_is_room_for_are_refused():
    with pytest.raises(ShapeError, match="Raise `count`"):
        told(count=4).remember(AXES)


def test_a_file_that_is_not_there_or_of_another_width_is_refused(tmp_path):
    with pytest.raises(MissingAssetError, match="no prototypes"):
        Prototypes(3, 9, id=str(tmp_path / "none.safetensors"))
    save_file({"rows": AXES}, tmp_path / "prototypes.safetensors")
    with pytest.raises(CheckpointError, match=r"expected one of shape \(N, 4\)"):
        Prototypes(4, 9, id=str(tmp_path))
    with pytest.raises(CheckpointError, match="room for 2"):
        Prototypes(3, 9, id=str(tmp_path), count=2)


def test_random_weights_need_no_file(tmp_path):
    assert int(Prototypes(3, 9, id=str(tmp_path / "none"), weights=False).known) == 0
