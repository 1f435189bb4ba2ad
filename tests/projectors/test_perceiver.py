from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omniloom.errors import ConfigError
from omniloom.layers import grid_positions
from omniloom.projectors import Context
from omniloom.projectors.perceiver import Perceiver, row_positions
from omniloom.sequence import Packed, Shape


def small(**options):
    torch.manual_seed(0)
    return Perceiver(4, 6, **{"latents": 3, "width": 8, "heads": 2, **options})


def test_any_number_of_rows_becomes_k_latents():
    out = small()(Packed.of([torch.randn(1, 4), torch.randn(40, 4)]), Context())
    assert out.shapes == (Shape(3), Shape(3)) and out.x.shape == (6, 6)


def test_keys_are_the_rows_and_the_latents():
    part, rows = small(depth=1, heads=1), torch.randn(5, 4)
    layer, latents = part.layers[0], part.layers[0].latent_norm(part.latent)
    keys = torch.cat([layer.row_norm(part.row_map(rows)), latents])
    query, key, value = layer.attention.query(latents), layer.attention.key(keys), layer.attention.value(keys)
    x = part.latent + layer.attention.out(torch.softmax(query @ key.T / 8**0.5, -1) @ value)
    x = x + layer.mlp(layer.mlp_norm(x))
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, part.map(part.norm(x)))


def test_rows_without_place_or_time_are_a_set():
    part, rows = small(), torch.randn(7, 4)
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, part(Packed.of([rows.flip(0)]), Context()).x)


@pytest.mark.parametrize("shape", [Shape(6, grid=(1, 2, 3)), Shape(6, times=tuple(0.1 * i for i in range(6)))])
def test_rows_on_a_grid_or_with_a_clock_are_read_in_their_places(shape):
    part, rows = small(), torch.randn(6, 4)
    one, two = (part(Packed(x, (shape,)), Context()).x for x in (rows, rows.flip(0)))
    assert not torch.allclose(one, two)
    blind = small(positions=False)
    torch.testing.assert_close(*(blind(Packed(x, (shape,)), Context()).x for x in (rows, rows.flip(0))))


def test_positions_of_a_picture_are_those_of_its_grid():
    assert torch.equal(row_positions(Shape(6, (1, 2, 3)), 8), grid_positions((1, 2, 3), 8))
    assert torch.equal(row_positions(Shape(12, (2, 2, 3)), 8), grid_positions((2, 2, 3), 8))


def test_the_clock_tells_frames_apart_and_not_their_number():
    even = row_positions(Shape(4, (2, 1, 2), (0.0, 0.0, 1.0, 1.0)), 8)
    late = row_positions(Shape(4, (2, 1, 2), (0.0, 0.0, 5.0, 5.0)), 8)
    torch.testing.assert_close(even[:2], grid_positions((1, 1, 2), 8))
    assert torch.equal(even[:2], late[:2]) and not torch.allclose(even[2:], late[2:])
    # The same second, the same shift, wherever the row is on the picture.
    torch.testing.assert_close(even[2:] - even[:2], (even[2] - even[0]).expand(2, -1))


def test_qk_norm_keeps_scores_bounded_however_large_the_keys_become():
    part = small(qk_norm=True, depth=1)
    key = torch.randn(1, 2, 5, 4)
    seen = []
    inner = F.scaled_dot_product_attention

    def watch(query, key, value, **options):
        seen.append(float((query @ key.mT * options["scale"]).detach().abs().max()))
        return inner(query, key, value, **options)

    part.layers[0].attention.key.weight.data *= 1000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", watch)
        part(Packed.of([key.flatten(0, 2)]), Context())
    assert max(seen) <= 10.001


def test_latents_differ_from_the_first_step():
    out = small(latents=8, width=16)(Packed.of([torch.randn(9, 4)]), Context()).x
    assert torch.pdist(out).min() > 0.01


def test_a_width_that_positions_cannot_fill_is_refused():
    with pytest.raises(ConfigError, match="multiple of 4"):
        small(width=6)
    assert small(width=6, positions=False)(Packed.of([torch.randn(2, 4)]), Context()).lengths == [3]
